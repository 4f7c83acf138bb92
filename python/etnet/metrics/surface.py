"""Distances between the boundaries of two masks: HD95, ASSD, normalised surface Dice, boundary IoU.

The paper argues with boundaries (Sec. 1) but measures only areas; these scores are ours. The boundary of a mask is its
pixels that have a neighbour outside it above, below, left or right; beyond the border of the image is outside. That is
the mask minus its erosion by the 4-neighbour cross, as in MONAI. Distances go from pixel centre to pixel centre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from etnet.types import BoolArray, UInt8Array

TOLERANCES = (1.0, 2.0, 3.0)
"""Tolerances of the surface Dice, in the unit of the spacing: pixels unless one is given."""

BAND_SHARE = 0.02
"""Width of the band of boundary IoU as a share of the image's diagonal (Cheng et al. 2021, Sec. 4)."""

Presence = Literal["both", "missed", "false_alarm", "absent"]
FloatArray = npt.NDArray[np.float64]

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_CHUNK = 2**22


@dataclass(frozen=True)
class SurfaceScores:
    """How well two boundaries agree.

    Attributes:
        hd95: The larger of the two 95th percentiles of distances to the other boundary (interpolated linearly), in the
            unit of the spacing (Taha and Hanbury, BMC Medical Imaging 15:29, 2015; of the two directions the larger,
            as MONAI does). NaN unless both boundaries exist.
        assd: Mean of the distances of all pixels of both boundaries to the other one. NaN unless both exist.
        surface_dice: Per tolerance, the share of pixels of both boundaries whose distance to the other one is at most
            that tolerance (Nikolov et al., arXiv:1809.04430, with boundary pixels in place of surface elements, as
            MONAI does). 0 when only one boundary exists, NaN when none does.
        boundary_iou: IoU of the two inner bands, which are the pixels of a mask at most `BAND_SHARE` of the image's
            diagonal (Chebyshev distance) from the outside (Cheng et al., CVPR 2021). In structures that are thinner
            than the band, such as vessels, it equals the IoU. 0 when only one mask exists, NaN when none does.
        presence: `both`; `missed`, where only the truth has a boundary; `false_alarm`, where only the prediction has
            one; `absent`, where neither has.
    """

    hd95: float
    assd: float
    surface_dice: tuple[float, ...]
    boundary_iou: float
    presence: Presence


def surface_scores(
    predicted: BoolArray,
    truth: BoolArray,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    tolerances: Sequence[float] = TOLERANCES,
    where: BoolArray | None = None,
) -> SurfaceScores:
    """Compare the boundaries of two masks.

    Args:
        predicted: Mask [H, W], bool.
        truth: Mask [H, W], bool.
        spacing: Distance between rows and between columns, for instance in mm.
        tolerances: Tolerances of the surface Dice, in the unit of the spacing.
        where: Pixels that are scored [H, W], bool; None scores all. A pixel counts when no pixel outside this region
            has a say in whether it belongs to a boundary (or, for boundary IoU, to a band), so that the region's own
            border is never taken for a boundary.

    Raises:
        ValueError: Shapes differ, or a spacing is not positive.

    Example:
        >>> square = np.zeros((8, 8), bool); square[2:6, 2:6] = True
        >>> surface_scores(np.roll(square, 1, axis=1), square).hd95
        1.0
    """
    _check(predicted, truth, spacing, where)
    box = _joint_box(predicted, truth)
    if box is None:
        nothing = tuple(math.nan for _ in tolerances)
        return SurfaceScores(math.nan, math.nan, nothing, math.nan, "absent")
    masks = (predicted[box].astype(np.uint8), truth[box].astype(np.uint8))
    band = band_width(truth.shape)
    band_iou = _boundary_iou(masks, band, None if where is None else _inner(where, np.ones((3, 3)), band)[box])
    edges = [boundary(mask) for mask in masks]
    if where is not None:
        counted = _inner(where, _CROSS, 1)[box]
        edges = [edge & counted for edge in edges]
    found = (bool(edges[0].any()), bool(edges[1].any()))
    if not all(found):
        presence: Presence = "false_alarm" if found[0] else "missed" if found[1] else "absent"
        share = 0.0 if any(found) else math.nan
        return SurfaceScores(math.nan, math.nan, tuple(share for _ in tolerances), band_iou, presence)
    there, back = _distances(edges[0], edges[1], spacing), _distances(edges[1], edges[0], spacing)
    both = np.concatenate([there, back])
    return SurfaceScores(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        surface_dice=tuple(float(np.mean(both <= tolerance)) for tolerance in tolerances),
        boundary_iou=band_iou,
        presence="both",
    )


def surface_scores_of(
    labels: npt.NDArray[np.integer[Any]],
    target: npt.NDArray[np.integer[Any]],
    structures: Mapping[str, Sequence[int]],
    *,
    where: BoolArray | None = None,
) -> dict[str, SurfaceScores]:
    """Compare the boundaries of every structure, in pixels.

    Args:
        labels: Predicted class indices [H, W].
        target: True class indices [H, W].
        structures: The classes that each structure consists of.
        where: Pixels that are scored [H, W], bool; see `surface_scores`.
    """
    return {
        name: surface_scores(np.isin(labels, members), np.isin(target, members), where=where)
        for name, members in structures.items()
    }


def boundary(mask: UInt8Array) -> BoolArray:
    """Pixels of a mask [H, W] of 0 and 1 that have one of their four neighbours outside it, or lie at the border.

    Example:
        >>> int(boundary(np.ones((4, 5), np.uint8)).sum())
        14
    """
    inside = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask > inside)


def band_width(shape: tuple[int, ...]) -> int:
    """Pixels of the band of boundary IoU for an image (height, width): 2 % of its diagonal, at least 1."""
    return max(1, round(BAND_SHARE * math.hypot(shape[0], shape[1])))


def _check(predicted: BoolArray, truth: BoolArray, spacing: tuple[float, float], where: BoolArray | None) -> None:
    shapes = [array.shape for array in (predicted, truth, where) if array is not None]
    if truth.ndim != 2 or len(set(shapes)) != 1:
        raise ValueError(f"masks have shapes {shapes}; expected one shape [H, W]")
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ValueError(f"spacing is {spacing}; expected two positive distances (between rows, between columns)")


def _joint_box(predicted: BoolArray, truth: BoolArray) -> tuple[slice, slice] | None:
    """The smallest rectangle that holds both masks; None when both are empty."""
    either = predicted | truth
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _inner(where: BoolArray, element: npt.NDArray[Any], times: int) -> BoolArray:
    """Pixels from which `times` steps do not leave the region; beyond the border of the image there is nothing."""
    eroded = cv2.erode(
        where.astype(np.uint8),
        element.astype(np.uint8),
        iterations=times,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=1,
    )
    return eroded.astype(np.bool_)


def _boundary_iou(masks: tuple[UInt8Array, UInt8Array], width: int, counted: BoolArray | None) -> float:
    square = np.ones((3, 3), np.uint8)
    bands = [
        mask > cv2.erode(mask, square, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        for mask in masks
    ]
    if counted is not None:
        bands = [band & counted for band in bands]
    either = int(np.count_nonzero(bands[0] | bands[1]))
    return int(np.count_nonzero(bands[0] & bands[1])) / either if either else math.nan


def _distances(start: BoolArray, end: BoolArray, spacing: tuple[float, float]) -> FloatArray:
    """Distance from each pixel of one set to the nearest of another, neither of them empty."""
    if spacing[0] != spacing[1]:
        return _distances_between_unequal_rows_and_columns(start, end, spacing)
    to_end = cv2.distanceTransform((~end).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[start]
    # Squares are whole numbers; rounding removes the error of OpenCV's float32, which a tolerance would notice.
    return np.asarray(np.sqrt(np.rint(np.square(to_end, dtype=np.float64))) * spacing[0])


def _distances_between_unequal_rows_and_columns(
    start: BoolArray, end: BoolArray, spacing: tuple[float, float]
) -> FloatArray:
    """As `_distances`, exact for any spacing; OpenCV's transform knows only square pixels.

    The nearest pixel of each column lies straight above or below; of these, one per column, the nearest is the answer.
    """
    height, width = end.shape
    rows = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(end, rows, -np.inf), axis=0)
    below = np.minimum.accumulate(np.where(end, rows, np.inf)[::-1], axis=0)[::-1]
    vertical = np.square(np.minimum(rows - above, below - rows) * spacing[0])
    horizontal = np.square(np.subtract.outer(np.arange(width), np.arange(width)) * spacing[1])
    at_row, at_column = np.nonzero(start)
    step = max(1, _CHUNK // width)
    parts = [
        np.min(vertical[at_row[first : first + step]] + horizontal[at_column[first : first + step]], axis=1)
        for first in range(0, at_row.size, step)
    ]
    return np.asarray(np.sqrt(np.concatenate(parts)))
