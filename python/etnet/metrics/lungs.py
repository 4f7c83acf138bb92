"""What is read off lungs: area of either side and their ratio; volume and mean Hounsfield units of a stack of slices.

Sides are the patient's, in the usual display of a frontal X-ray or an axial slice: the patient's right is on the
image's left. A mask does not say when an image is mirrored.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from etnet.errors import DataError
from etnet.metrics.scale import PIXELS, Scale
from etnet.types import BoolArray

SMALLEST_SHARE = 0.1
"""Share of the larger lung that the second largest piece has at least, to be the other lung rather than a fragment."""

_MILLILITRE = 1000.0
_FEWEST_PIECES = 3


def lung_measures(lungs: BoolArray, scale: Scale = PIXELS) -> dict[str, float]:
    """Measure both lungs of one image by the pieces of their mask.

    - `lung_right_area_*`, `lung_left_area_*`: areas of the patient's right and left lung, see `split_lungs`.
    - `lung_left_to_right_area_ratio`: their quotient.
    - `lungs_told_apart`: 1 where the mask has two pieces side by side, else 0.

    Args:
        lungs: Pixels of both lungs [H, W], bool.
        scale: Size of a pixel.

    Returns:
        Values by column in a fixed order. Where the lungs are not told apart areas and ratio are NaN.
    """
    sides = split_lungs(lungs)
    if sides is None:
        return lung_side_measures(None, None, scale) | {"lungs_told_apart": 0}
    return lung_side_measures(*sides, scale) | {"lungs_told_apart": 1}


def lung_side_measures(right: BoolArray | None, left: BoolArray | None, scale: Scale = PIXELS) -> dict[str, float]:
    """Areas of the patient's right and left lung [H, W], bool, and left over right; NaN where a side is not known.

    The ratio is NaN too where the right lung is empty.
    """
    areas = [_area(side, scale) for side in (right, left)]
    return {
        f"lung_right_area_{scale.area_unit}": areas[0],
        f"lung_left_area_{scale.area_unit}": areas[1],
        "lung_left_to_right_area_ratio": areas[1] / areas[0] if areas[0] else math.nan,
    }


def split_lungs(lungs: BoolArray) -> tuple[BoolArray, BoolArray] | None:
    """The patient's right and left lung, by connected pieces (8 neighbours).

    The two largest pieces are the lungs if the smaller has at least `SMALLEST_SHARE` of the larger one's area and their
    columns overlap by less than half of the narrower one's; otherwise they are parts of one lung, or both lungs touch.
    Any further piece goes to the lung whose centroid is nearer in columns.

    Args:
        lungs: Pixels of both lungs [H, W], bool.

    Returns:
        Masks [H, W], bool, of the right lung (on the image's left) and the left one; None where that is open.
    """
    count, pieces, stats, centroids = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(lungs).view(np.uint8), connectivity=8
    )
    if count < _FEWEST_PIECES:
        return None
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    largest, second = np.argsort(-areas, kind="stable")[:2]
    starts, widths = stats[[largest, second], cv2.CC_STAT_LEFT], stats[[largest, second], cv2.CC_STAT_WIDTH]
    overlap = int((starts + widths).min() - starts.max())
    if areas[second] < SMALLEST_SHARE * areas[largest] or 2 * overlap >= widths.min():
        return None
    middle = centroids[[largest, second], 0].mean()
    on_image_left = centroids[:, 0] < middle
    on_image_left[0] = False
    first = on_image_left[pieces]
    return first, lungs & ~first


def lung_stack_measures(
    lungs: BoolArray,
    *,
    spacing: tuple[float, float, float],
    hounsfield: npt.NDArray[np.number[Any]] | None = None,
    source: str = "spacing",
) -> dict[str, float]:
    """Measure the lungs of a CT volume.

    - `lung_volume_ml`: number of voxels times the volume of one; a millilitre is 1000 cubic millimetres.
    - `lung_mean_hu`: mean of the Hounsfield units inside the mask, where they are given.

    Args:
        lungs: Voxels of both lungs [D, H, W], bool.
        spacing: Distance in mm between slices, rows and columns.
        hounsfield: Hounsfield units [D, H, W]: stored values after rescale slope and intercept.
        source: Where the volume was read, which errors name.

    Returns:
        Values by column; the mean is NaN for an empty mask.

    Raises:
        DataError: The spacing is not three positive finite numbers, or the shapes differ.
    """
    measures = {"lung_volume_ml": volume_ml(lungs, spacing, source=source)}
    if hounsfield is not None:
        if hounsfield.shape != lungs.shape:
            raise DataError(
                f"{source}: the mask has the shape {lungs.shape}, the volume {hounsfield.shape}; expected one shape "
                "(slices, rows, columns)"
            )
        measures["lung_mean_hu"] = float(hounsfield[lungs].mean(dtype=np.float64)) if lungs.any() else math.nan
    return measures


def volume_ml(mask: BoolArray, spacing: tuple[float, float, float], *, source: str = "spacing") -> float:
    """Number of voxels of a mask [D, H, W], bool, times the volume of one, in millilitres (1000 cubic millimetres).

    Args:
        mask: Voxels of a structure.
        spacing: Distance in mm between slices, rows and columns.
        source: Where the volume was read, which the error names.

    Raises:
        DataError: The spacing is not three positive finite numbers.
    """
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        raise DataError(
            f"{source}: the voxel spacing is {tuple(spacing)} mm; expected three positive numbers, the distance "
            "between slices, rows and columns"
        )
    return int(np.count_nonzero(mask)) * math.prod(spacing) / _MILLILITRE


def _area(side: BoolArray | None, scale: Scale) -> float:
    if side is None:
        return math.nan
    pixels = int(np.count_nonzero(side))
    return pixels * scale.pixel_area if scale.unit == "mm" else pixels
