"""From pixels to millimetres: the unit of a length or an area, which every column of measurements carries in its name.

Lengths are in millimetres only where the distance between pixels is known; otherwise they are in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from etnet.errors import DataError


@dataclass(frozen=True)
class Scale:
    """Size of a pixel and the unit of what is measured with it.

    Attributes:
        row: Distance between the middles of neighbouring rows.
        column: Distance between the middles of neighbouring columns.
        unit: Unit of both.
    """

    row: float = 1.0
    column: float = 1.0
    unit: Literal["px", "mm"] = "px"

    @property
    def area_unit(self) -> str:
        """How the name of an area ends: `mm2`, or `px` for a number of pixels."""
        return "mm2" if self.unit == "mm" else "px"

    @property
    def pixel_area(self) -> float:
        """Area of one pixel."""
        return self.row * self.column


PIXELS = Scale()
"""Measured in pixels, because their size is not known."""


def millimetres(row: float, column: float, *, source: str = "spacing") -> Scale:
    """The scale of an image whose pixel spacing is known.

    Args:
        row: Distance between the middles of neighbouring rows, in mm.
        column: Distance between the middles of neighbouring columns, in mm.
        source: Where the spacing was read, which the error names.

    Raises:
        DataError: A distance is not a positive finite number.
    """
    if not all(math.isfinite(value) and value > 0 for value in (row, column)):
        raise DataError(
            f"{source}: the pixel spacing is ({row}, {column}) mm; expected two positive numbers, the distance between "
            "rows and between columns; correct it, or leave it out to measure in pixels"
        )
    return Scale(row, column, "mm")
