"""Looks through a data folder once and collects every finding."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.config.schema import Recipe
from etnet.data.catalog import CATALOG, DatasetCard, dataset_of
from etnet.data.check.layout import locate
from etnet.data.check.reading import read_pairs
from etnet.data.check.report import CheckReport, PartSummary, ValueCount
from etnet.data.check.rules import Part, all_of, expected_values, thresholded_values
from etnet.data.datasets import find_part
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.file_tree import FileTree, list_files
from etnet.data.findings import Finding, PartMissing, Report, Severity, by_severity, such_files
from etnet.data.mask_sources import THRESHOLD
from etnet.errors import DataError

PARTS: tuple[Literal["train", "test"], ...] = ("train", "test")

Progress = Callable[[int, int], None]
"""Told how many samples were read, of how many."""


def check_dataset(root: Path, recipe: Recipe | None = None, *, progress: Progress | None = None) -> CheckReport:
    """Checks a data folder as training and evaluation would read it; every file is opened once.

    Args:
        root: The folder.
        recipe: How the data is read; None recognises the data set by its names and takes its built-in recipe.
        progress: Told how far it is.

    Raises:
        DataError: The folder does not exist, or no data set was recognised in it.
        UsageError: The folder holds several data sets in folders of their own.
    """
    files = list_files(root)
    home, used = locate(files, recipe)
    data, card = used.data, CATALOG.get(used.data.dataset)
    findings: list[Finding] = []
    parts = _read(data, home, report=findings.append, progress=progress)
    findings += all_of(parts, data, card)
    findings += _beside(files, data.dataset)
    return CheckReport(
        root=home,
        dataset=data.dataset,
        recognised=recipe is None,
        recipe=used.name,
        card=card,
        parts={part.name: _summary(part, card) for part in parts},
        values=_values(parts, card, data),
        findings=tuple(by_severity(_distinct(findings))),
    )


def _read(data: DataSection, root: Path, *, report: Report, progress: Progress | None) -> list[Part]:
    """Finds both parts by name, then reads them."""
    found = [(part, pairs) for part in PARTS if (pairs := _find(data, root, part, report=report)) is not None]
    total = sum(len(pairs.ids) for _, pairs in found)
    done = itertools.count(1)

    def advance() -> None:
        if progress is not None:
            progress(next(done), total)

    return [
        Part(part, pairs, read_pairs(pairs, intensity_window=data.intensity_window, progress=advance))
        for part, pairs in found
    ]


def _find(data: DataSection, root: Path, part: Literal["train", "test"], *, report: Report) -> FoundPairs | None:
    """The pairs of a part; None where there are none to be read."""
    try:
        return find_part(data, root, part, report=report)
    except PartMissing as error:
        # Training does without a test part; in one's own folder its absence is the rule.
        severity: Severity = "error" if part == "train" else "note" if data.dataset == "folder" else "warning"
        report(Finding(severity, "part-missing", str(error)))
    except DataError as error:
        report(Finding("error", "layout", str(error)))
    return None


def _beside(files: FileTree, dataset: str) -> Iterator[Finding]:
    """Findings about files that belong to no pair."""
    others = [path for path in files.pictures if dataset_of(path.name) not in (None, dataset)]
    if dataset != "folder" and others:
        title = CATALOG[dataset_of(others[0].name) or dataset].title
        yield Finding(
            "warning",
            "other-data-set",
            f"{others[0]}: named like an image of {title} ({such_files(len(others))}); expected only "
            f"{CATALOG[dataset].title} in this folder; move the other data set to a folder of its own",
            tuple(others),
        )
    if files.unfinished:
        yield Finding(
            "warning",
            "unfinished-download",
            f"{files.unfinished[0]}: a download or extraction that stopped half-way ("
            f"{such_files(len(files.unfinished))}); finish it or remove it",
            files.unfinished,
        )
    if files.litter:
        yield Finding(
            "note",
            "system-files",
            f"{files.litter[0]}: left behind by an operating system ({such_files(len(files.litter))}); ignored, may be "
            "removed",
            files.litter,
        )


def _summary(part: Part, card: DatasetCard | None) -> PartSummary:
    sizes = Counter(facts.size for facts in part.facts if facts.size is not None)
    depths = Counter(facts.depth for facts in part.facts if facts.size is not None)
    expected = None if card is None else getattr(card, part.name)
    return PartSummary(len(part.pairs.ids), expected, dict(sizes.most_common()), dict(depths.most_common()))


def _values(parts: Sequence[Part], card: DatasetCard | None, data: DataSection) -> Mapping[int, ValueCount]:
    """Stored values of all mask files, ascending."""
    files, pixels = Counter[int](), Counter[int]()
    for part in parts:
        for counts in (counts for facts in part.facts for counts in facts.stored):
            files.update(counts.keys())
            pixels.update(counts)
    expected = expected_values(parts, data) if data.mask_values or card is None else set(card.values)
    divided = thresholded_values(parts) - expected
    return {
        value: ValueCount(
            files[value], pixels[value], value in expected | divided, THRESHOLD if value in divided else None
        )
        for value in sorted(files)
    }


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """Both parts of a data set are drawn from the same files, and tell the same of them."""
    return list({(finding.rule, finding.sentence): finding for finding in findings}.values())
