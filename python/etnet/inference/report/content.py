"""What a report is made of: the run as a whole, and one row per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class ReportRow:
    """One image that was segmented.

    Attributes:
        file: The input's id: its name, its path below the folder, or the table's id.
        height: Rows of the image.
        width: Columns.
        measurements: Values by column, as in `measurements.csv`; the column's name ends in its unit.
        uncertainty: How unsure the boundary is, 0..1, higher is less certain; None where the network does not say.
        flags: Names of what is unusual about the image, such as `blurred`.
    """

    file: str
    height: int
    width: int
    measurements: Mapping[str, float | str | None]
    uncertainty: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportHead:
    """What holds for the whole run.

    Attributes:
        title: Heading of the page.
        settings: What the user chose or did not change.
        model: Description of the model with its hashes; may be nested.
        ran_on: Back-end and device.
        versions: Version by package.
        counts: Number of images by what became of them, such as `done` and `failed`.
        class_names: Names of the classes in index order; index 0 is the background, which the legend leaves out.
        class_colors: An RGB colour, 0..255 each, per class.
        marks: Whatever else the pictures show, a name and its colour each.
    """

    title: str
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    ran_on: str
    versions: Mapping[str, str]
    counts: Mapping[str, int]
    class_names: tuple[str, ...] = ()
    class_colors: tuple[Rgb, ...] = ()
    marks: tuple[tuple[str, Rgb], ...] = field(default=())

    def legend(self) -> list[tuple[str, Rgb]]:
        """Names and colours of what the pictures show, the background left out."""
        classes = list(zip(self.class_names, self.class_colors, strict=True))[1:]
        return [*classes, *self.marks]
