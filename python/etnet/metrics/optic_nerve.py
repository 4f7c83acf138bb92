"""What is read off optic disc and cup: cup-to-disc ratios, width of the rim in four quadrants, and two warnings.

Rim and cup are two classes of one mask; the disc is both. All their pixels count, no island is removed first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from etnet.metrics.clinical import CUP, DISC
from etnet.metrics.scale import PIXELS, Scale
from etnet.types import BoolArray

Eye = Literal["left", "right"]

STRAY_SHARE = 0.01
"""Share of a cup that may lie outside its disc, as resizing leaves it."""

_RAYS_PER_QUADRANT = 90
_STEPS_PER_PIXEL = 2
_FloatArray = npt.NDArray[np.float64]


def optic_nerve_measures(
    rim: BoolArray, cup: BoolArray, *, scale: Scale = PIXELS, eye: Eye | None = None
) -> dict[str, float]:
    """Measure the optic nerve head of one eye.

    - `optic_disc_vertical_diameter_*`, `..._horizontal_diameter_*`, and the same of the cup: from the topmost to the
      lowest pixel row, and from the leftmost to the rightmost column, both included.
    - `vertical_cup_to_disc_ratio`, `horizontal_cup_to_disc_ratio`: quotients of these (Orlando et al., "REFUGE
      Challenge", Medical Image Analysis 59, 2020, Sec. 3, the vertical one).
    - `cup_to_disc_area_ratio`: pixels of the cup over pixels of the disc.
    - `rim_width_*`: see `rim_widths`.
    - `no_cup`: 1 where there is a disc without a cup, else 0.
    - `cup_outside_disc`: 1 where more than `STRAY_SHARE` of the cup lies in pieces that touch no pixel of the rim (8
      neighbours), else 0. In a mask of classes a cup covers the rim below it, so that this is how one outside shows.

    Args:
        rim: Pixels of the disc outside the cup [H, W], bool.
        cup: Pixels of the cup [H, W], bool.
        scale: Size of a pixel.
        eye: Which eye it is, in an image that is not mirrored; None where it is not known.

    Returns:
        Values by column; the columns depend on the scale's unit and on whether the eye is known. Without a disc the
        diameters are 0, ratios and rim widths NaN; the ratios of a disc without a cup are 0.
    """
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(rim | cup).view(np.uint8))
    # A disc fills about a hundredth of a photograph.
    rim, cup = (mask[top : top + height, left : left + width] for mask in (rim, cup))
    disc = rim | cup
    heights, widths = ([_extent(mask, axis) for mask in (disc, cup)] for axis in (1, 0))
    areas = [int(np.count_nonzero(mask)) for mask in (disc, cup)]
    measures: dict[str, float] = {}
    for name, height, width in zip((DISC, CUP), heights, widths, strict=True):
        measures |= {
            f"{name}_vertical_diameter_{scale.unit}": _scaled(height, scale.row, scale),
            f"{name}_horizontal_diameter_{scale.unit}": _scaled(width, scale.column, scale),
        }
    return measures | {
        "vertical_cup_to_disc_ratio": _quotient(heights),
        "horizontal_cup_to_disc_ratio": _quotient(widths),
        "cup_to_disc_area_ratio": _quotient(areas),
        **{f"rim_width_{side}_{scale.unit}": value for side, value in rim_widths(disc, cup, scale, eye).items()},
        "no_cup": int(areas[0] > 0 and areas[1] == 0),
        "cup_outside_disc": int(_stray_share(rim, cup) > STRAY_SHARE),
    }


def rim_widths(disc: BoolArray, cup: BoolArray, scale: Scale = PIXELS, eye: Eye | None = None) -> dict[str, float]:
    """Mean width of the rim in each quadrant, in the order of the ISNT rule.

    The rule says that a healthy rim is broadest inferior, then superior, nasal, temporal (Jonas et al., "Optic disc,
    cup and neuroretinal rim size, configuration and correlations in normal eyes", Investigative Ophthalmology & Visual
    Science 29, 1988). Quadrants are the four right angles around up, down, left and right at the centroid of the disc
    (Harizman et al., "The ISNT rule and differentiation of normal from glaucomatous eyes", Archives of Ophthalmology
    124, 2006, compares such quadrants). Ours: the width along a ray from the centroid is the distance of its last
    pixel in the disc less that of its last pixel in the cup (0 where it meets none), and a quadrant's width is the mean
    over its rays, one per degree.

    Args:
        disc: Rim and cup [H, W], bool.
        cup: Pixels of the cup [H, W], bool.
        scale: Size of a pixel.
        eye: Which eye it is: the nose is on the right-hand side of an image of the right eye, and on the left-hand side
            of one of the left eye.

    Returns:
        Widths in the scale's unit by `inferior`, `superior`, `nasal`, `temporal`; without a known eye the last two are
        `image_left` and `image_right`. NaN without a disc.
    """
    widths = dict.fromkeys(("inferior", "superior", "image_left", "image_right"), math.nan)
    if disc.any():
        rays = _Rays.across(disc, scale)
        along_rays = rays.last_hit(disc) - rays.last_hit(cup)
        by_quadrant = along_rays.reshape(4, _RAYS_PER_QUADRANT).mean(axis=1)
        widths = dict(zip(("image_right", "inferior", "image_left", "superior"), map(float, by_quadrant), strict=True))
    nose = {"left": "image_left", "right": "image_right"}.get(eye or "")
    temple = {"left": "image_right", "right": "image_left"}.get(eye or "")
    order = {"inferior": "inferior", "superior": "superior"}
    order |= {"nasal": nose, "temporal": temple} if nose and temple else {s: s for s in ("image_left", "image_right")}
    return {name: widths[side] for name, side in order.items()}


@dataclass(frozen=True)
class _Rays:
    """Points along rays from the centroid of a disc, clockwise; the first is 45 degrees above the right-hand direction.

    Attributes:
        rows: Row of the pixel that each point lies in [R, P], int64.
        columns: Its column [R, P], int64.
        inside: Whether that pixel is in the image [R, P], bool; elsewhere row and column are 0.
        distances: Distance of the points from the centroid [P], in the scale's unit.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    inside: BoolArray
    distances: _FloatArray

    @classmethod
    def across(cls, disc: BoolArray, scale: Scale) -> _Rays:
        """Rays that are long enough to leave a disc [H, W], bool, which is not empty."""
        rows, columns = np.nonzero(disc)
        row, column = rows.mean() + 0.5, columns.mean() + 0.5
        reach = np.hypot((rows + 0.5 - row) * scale.row, (columns + 0.5 - column) * scale.column).max()
        # One pixel's diagonal more, because the farthest pixel reaches beyond its middle.
        step = min(scale.row, scale.column) / _STEPS_PER_PIXEL
        distances = np.arange(0, reach + math.hypot(scale.row, scale.column), step)
        angles = np.deg2rad(-45 + (np.arange(4 * _RAYS_PER_QUADRANT) + 0.5) * 90 / _RAYS_PER_QUADRANT)
        at_row = np.floor(row + np.outer(np.sin(angles), distances / scale.row)).astype(np.int64)
        at_column = np.floor(column + np.outer(np.cos(angles), distances / scale.column)).astype(np.int64)
        inside = (at_row >= 0) & (at_row < disc.shape[0]) & (at_column >= 0) & (at_column < disc.shape[1])
        return cls(np.where(inside, at_row, 0), np.where(inside, at_column, 0), inside, distances)

    def last_hit(self, mask: BoolArray) -> _FloatArray:
        """Distance of the last point of every ray that lies in a mask [H, W], bool; 0 on a ray that meets none."""
        hit = self.inside & mask[self.rows, self.columns]
        farthest = self.distances[hit.shape[1] - 1 - hit[:, ::-1].argmax(axis=1)]
        return np.where(hit.any(axis=1), farthest, 0.0)


def _extent(mask: BoolArray, axis: int) -> int:
    """Pixels from the first to the last row (axis 1) or column (axis 0) of a mask; 0 for an empty one."""
    held = np.flatnonzero(mask.any(axis=axis))
    return int(held[-1] - held[0]) + 1 if held.size else 0


def _scaled(pixels: int, spacing: float, scale: Scale) -> float:
    return pixels * spacing if scale.unit == "mm" else pixels


def _quotient(disc_and_cup: list[int]) -> float:
    disc, cup = disc_and_cup
    return cup / disc if disc else math.nan


def _stray_share(rim: BoolArray, cup: BoolArray) -> float:
    """Share of the cup in pieces that touch no pixel of the rim; 0 without a cup."""
    if not cup.any():
        return 0.0
    count, pieces = cv2.connectedComponents(np.ascontiguousarray(cup).view(np.uint8), connectivity=8)
    near_rim = cv2.dilate(np.ascontiguousarray(rim).view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    areas = np.bincount(pieces.ravel(), minlength=count)
    touching = np.zeros(count, np.bool_)
    touching[pieces[near_rim & cup]] = True
    return float(areas[1:][~touching[1:]].sum() / areas[1:].sum())
