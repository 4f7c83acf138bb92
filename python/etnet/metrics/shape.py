"""Size, place and form of a structure: area, perimeter, equivalent diameter, solidity, centroid, bounding box.

All pixels of a structure count, in however many pieces they lie; beyond the border of the image is outside. Sizes are
in the unit of the scale; places are always in pixels, because they address pixels of the image.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from etnet.metrics.scale import PIXELS, Scale
from etnet.types import BoolArray


def shape_measures(mask: BoolArray, scale: Scale = PIXELS) -> dict[str, float]:
    """Measure one structure.

    - `area_*`: number of pixels, times the area of a pixel.
    - `perimeter_*`: see `perimeter`.
    - `equivalent_diameter_*`: diameter of the circle of the same area, sqrt(4 area / pi).
    - `solidity`: see `solidity`.
    - `centroid_row_px`, `centroid_column_px`: mean of the pixels' middles; that of the first pixel is at 0.5.
    - `box_top_px`, `box_left_px`, `box_height_px`, `box_width_px`: smallest upright rectangle that holds the structure;
      the first row and column are 0.

    Args:
        mask: Pixels of the structure [H, W], bool.
        scale: Size of a pixel.

    Returns:
        Values by column, always the same columns in the same order. For an empty mask area, perimeter and diameter are
        0; the rest is NaN.

    Example:
        >>> mask = np.zeros((8, 9), bool); mask[1:5, 2:8] = True
        >>> measures = shape_measures(mask, Scale(0.5, 0.5, "mm"))
        >>> measures["area_mm2"], measures["centroid_row_px"], measures["box_width_px"], measures["solidity"]
        (6.0, 3.0, 6, 1.0)
    """
    top, left, cut = _cut_out(mask)
    pixels = int(np.count_nonzero(cut))
    area = pixels * scale.pixel_area if scale.unit == "mm" else pixels
    row, column = (value + origin for value, origin in zip(_centroid(cut), (top, left), strict=True))
    box = (top, left, *cut.shape) if pixels else (math.nan,) * 4
    return {
        f"area_{scale.area_unit}": area,
        f"perimeter_{scale.unit}": perimeter(cut, scale),
        f"equivalent_diameter_{scale.unit}": math.sqrt(4 * area / math.pi),
        "solidity": solidity(cut),
        "centroid_row_px": row,
        "centroid_column_px": column,
        **dict(zip(("box_top_px", "box_left_px", "box_height_px", "box_width_px"), box, strict=True)),
    }


def perimeter(mask: BoolArray, scale: Scale = PIXELS) -> float:
    """Length of the boundary by the Cauchy-Crofton formula with four directions; borders of holes count too.

    The length of a curve is pi/2 times the mean, over all directions, of how often the lines of that direction cross
    it, times the distance between these lines. The lines here go along rows, columns and both diagonals of the grid;
    each direction stands for the angles that are nearer to it than to the others, so that pixels need not be square
    (Lehmann and Legland, "Efficient N-dimensional surface estimation using Crofton formula and run-length encoding",
    Insight Journal, 2012). For square pixels this is `perimeter_crofton` of scikit-image with four directions. The
    length of a circle is right to within 4 % at a radius of 10 pixels, 1 % from 25 on; that of a large square comes out
    5 % too short, upright or on its tip.

    Args:
        mask: Pixels of the structure [H, W], bool.
        scale: Size of a pixel.
    """
    inside = np.pad(mask, 1)
    diagonal = math.hypot(scale.row, scale.column)
    # Angle between the rows and a diagonal of the grid: half a right angle for square pixels.
    angle = math.atan2(scale.row, scale.column)
    along_rows = np.count_nonzero(inside[:, 1:] != inside[:, :-1])
    along_columns = np.count_nonzero(inside[1:] != inside[:-1])
    falling = np.count_nonzero(inside[1:, 1:] != inside[:-1, :-1])
    rising = np.count_nonzero(inside[1:, :-1] != inside[:-1, 1:])
    mean = (
        angle / math.pi * along_rows * scale.row
        + (0.5 - angle / math.pi) * along_columns * scale.column
        + 0.25 * (falling + rising) * scale.row * scale.column / diagonal
    )
    return float(math.pi / 2 * mean)


def solidity(mask: BoolArray) -> float:
    """Number of pixels over the number of those whose middle lies in the convex hull of all their middles.

    1 for every digital convex set, a disc for instance, at any size; the usual definition (Gonzalez and Woods, "Digital
    Image Processing", Sec. 11.3) with pixels as points. It does not depend on the size of a pixel. The pixels in the
    hull, whose corners are pixels, are counted by Pick's theorem from its area and the grid points on its border.

    Args:
        mask: Pixels of the structure [H, W], bool.

    Returns:
        Solidity, 0..1; NaN for an empty mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return math.nan
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)
    hull = cv2.convexHull(ends.astype(np.int32)).reshape(-1, 2).astype(np.int64)
    following = np.roll(hull, -1, axis=0)
    doubled_area = abs(int(np.sum(hull[:, 0] * following[:, 1] - hull[:, 1] * following[:, 0])))
    on_border = int(np.gcd(*np.abs(following - hull).T).sum())
    return int(np.count_nonzero(mask)) / ((doubled_area + on_border) // 2 + 1)


def _cut_out(mask: BoolArray) -> tuple[int, int, BoolArray]:
    """First row and column of the bounding box, and the mask inside it."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return top, left, mask[top : top + height, left : left + width]


def _centroid(mask: BoolArray) -> tuple[float, float]:
    """Mean (row, column) of the pixels' middles; NaN for an empty mask."""
    return _mean_position(mask.sum(axis=1)), _mean_position(mask.sum(axis=0))


def _mean_position(counts: npt.NDArray[np.int64]) -> float:
    total = int(counts.sum())
    return float(np.dot(counts, np.arange(counts.size) + 0.5)) / total if total else math.nan
