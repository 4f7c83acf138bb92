"""What became of one input: what was written and measured, or the reason why nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from etnet.inference.inputs import InputItem, output_stem
from etnet.inference.measurements import Measurements

RESULT_FOLDERS = ("masks", "edges", "probabilities", "overlays")
"""Folders below the output folder that hold the files of results."""


@dataclass(frozen=True)
class ImageResult:
    """What was written for one input; paths are relative to the output folder.

    Attributes:
        file: The input's id: its name, its path below the folder, or the table's id.
        sha256: SHA-256 of the input file, hexadecimal; with a `.mhd` header, also of the voxels beside it.
        table_spacing: Distance in mm between rows and between columns, where a table gave it.
        height: Rows of the image, or of every slice.
        width: Columns.
        slices: 1 for an image, the number of slices for a volume.
        mask: Class indices.
        edge: Probability of a boundary times 255; None when not asked for, or for a network without edge guidance.
        probabilities: Class probabilities, one file or one per class; empty when not asked for.
        overlay: The classes over the image, or over the slice of a volume with most of them; None when not asked for.
        class_share: Share of each class in all pixels.
        measurements: What is read off the mask.
        uncertainty: Disagreement of the predicted edges with the mask's border, 0..1; None without edge guidance.
        quality_flags: What may be wrong with the image.
    """

    file: str
    sha256: str
    table_spacing: tuple[float, float] | None
    height: int
    width: int
    slices: int
    mask: str
    edge: str | None
    probabilities: tuple[str, ...]
    overlay: str | None
    class_share: dict[str, float]
    measurements: Measurements
    uncertainty: float | None = None
    quality_flags: tuple[str, ...] = ()

    @property
    def written(self) -> tuple[str, ...]:
        """All files of this input."""
        return tuple(path for path in (self.mask, self.edge, *self.probabilities, self.overlay) if path is not None)

    def is_of(self, item: InputItem, sha256: str) -> bool:
        """Whether this would be the result of an input with this hash."""
        name = self.mask.removeprefix("masks/")
        return (self.sha256, self.table_spacing) == (sha256, item.spacing) and output_stem(name) == item.output_name


@dataclass(frozen=True)
class Failure:
    """An input that could not be segmented, and why, in one sentence."""

    file: str
    reason: str


Result = ImageResult | Failure


def result_to_dict(result: Result) -> dict[str, Any]:
    """A result for JSON; a failure is told by its `reason`."""
    return asdict(result)


def result_from_dict(content: Mapping[str, Any]) -> Result:
    """The result that `result_to_dict` described.

    Raises:
        TypeError: The fields are others.
    """
    if "reason" in content:
        return Failure(**content)
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return ImageResult(**{**content, **lists})
