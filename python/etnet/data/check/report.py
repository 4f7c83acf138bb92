"""What a check of a data folder returns, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etnet.data.catalog import DatasetCard
from etnet.data.findings import Finding


@dataclass(frozen=True)
class PartSummary:
    """What one part, `train` or `test`, consists of.

    Attributes:
        pairs: Images with a mask.
        expected: Pairs of the official download; None for one's own data.
        sizes: Number of images by size, (width, height).
        depths: Number of images by kind of pixels, such as `RGB 8-bit`.
    """

    pairs: int
    expected: int | None
    sizes: Mapping[tuple[int, int], int]
    depths: Mapping[str, int]


@dataclass(frozen=True)
class ValueCount:
    """How often a value is stored in the mask files.

    Attributes:
        files: Files that hold it.
        pixels: Pixels of all files together.
        expected: Whether masks of this data set hold it.
        threshold: Grey that divides it, with its neighbours, into black and white; None where it stands for itself.
    """

    files: int
    pixels: int
    expected: bool
    threshold: int | None = None


@dataclass(frozen=True)
class CheckReport:
    """Everything found in a data folder.

    Attributes:
        root: The folder.
        dataset: Value of `data.dataset` under which it was read.
        recognised: Whether the check chose the data set itself, by the names of files and folders.
        recipe: Name of the recipe whose `data` section was used.
        card: What is known about the data set; None for one's own.
        parts: Summary by part.
        values: What the mask files store, by value.
        findings: Errors first, then warnings, then notes.
    """

    root: Path
    dataset: str
    recognised: bool
    recipe: str
    card: DatasetCard | None
    parts: Mapping[str, PartSummary]
    values: Mapping[int, ValueCount]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "root": str(self.root),
            "dataset": self.dataset,
            "recognised": self.recognised,
            "recipe": self.recipe,
            "parts": {name: _part_dict(part) for name, part in self.parts.items()},
            "mask_values": {
                str(value): {
                    "files": count.files,
                    "pixels": count.pixels,
                    "expected": count.expected,
                    "threshold": count.threshold,
                }
                for value, count in self.values.items()
            },
            "errors": self.errors,
            "findings": [_finding_dict(finding) for finding in self.findings],
        }


def _part_dict(part: PartSummary) -> dict[str, Any]:
    return {
        "pairs": part.pairs,
        "expected_pairs": part.expected,
        "sizes": {f"{width}x{height}": count for (width, height), count in part.sizes.items()},
        "depths": dict(part.depths),
    }


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "rule": finding.rule,
        "sentence": finding.sentence,
        "files": [str(path) for path in finding.files],
        "recipe_lines": list(finding.recipe_lines),
    }
