"""The centre of a structure, found in a predicted mask, or a sentence that says why there is none.

The paper (Sec. 3) takes the centre of the optic disc from M-Net's method and segments the image around it. Ours: the
centre is that of the largest connected region which a localizing network gave to the structure, taken exactly as
training takes it from a true mask (`etnet.data.roi.mask_center`). A centre is never guessed: where the region is too
small, too large, or one of two, localization fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from etnet.data.roi import mask_center
from etnet.errors import DataError, UsageError
from etnet.inference.preprocess import Center
from etnet.types import BoolArray, Contract, RegionOfInterest, UInt8Array

MIN_AREA = 0.002
"""Default of `LocalizationRule.min_area`: a tenth of the smallest optic disc of Drishti-GS."""

RIVAL_AREA = 0.5
"""A second region of this share of the largest one's area, and apart from it, makes the structure ambiguous."""


class LocalizationFailed(DataError):
    """The structure was not found in an image, so that the image cannot be segmented."""


@dataclass(frozen=True)
class LocalizationRule:
    """How a centre is read from a localizer's prediction.

    Attributes:
        structure: Class or group of classes whose centre is taken.
        min_area: Smallest area that counts as found, as a share of the image's, 0..1.
    """

    structure: str
    min_area: float = MIN_AREA

    def __post_init__(self) -> None:
        """Refuse a share that is none.

        Raises:
            UsageError: `min_area` is not in 0..1.
        """
        # The negation also refuses what is no number.
        if not 0.0 <= self.min_area < 1.0:
            raise UsageError(f"the smallest area is {self.min_area}; expected a share of the image, such as {MIN_AREA}")


def structure_classes(contract: Contract, structure: str, *, network: str = "localizer") -> tuple[int, ...]:
    """Indices of the classes that a name stands for: one class, or a group of several; `network` names it in errors.

    Raises:
        UsageError: The contract has no foreground class and no group of that name.
    """
    groups = dict(contract.class_groups)
    if structure in groups:
        return groups[structure]
    if structure in contract.class_names[1:]:
        return (contract.class_names.index(structure),)
    names = ", ".join([*contract.class_names[1:], *groups])
    raise UsageError(f"the {network} has no structure '{structure}'; expected one of {names}")


def find_center(
    labels: UInt8Array, contract: Contract, rule: LocalizationRule, *, roi: RegionOfInterest | None = None
) -> Center:
    """The centre of the largest connected region of a structure.

    Args:
        labels: What the localizer says about an image [H, W], uint8.
        contract: The localizer's classes.
        rule: Structure and smallest area.
        roi: The square that will be cut out around the centre; a larger region cannot be right. None allows any.

    Returns:
        (row, column) in pixels, the middle of the first pixel at (0.5, 0.5).

    Raises:
        LocalizationFailed: The structure is missing, too small, too large, or there are two of it.
        UsageError: The localizer knows no such structure.
    """
    found = np.isin(labels, structure_classes(contract, rule.structure))
    region = _largest_region(found, rule)
    area = int(np.count_nonzero(region))
    side = math.inf if roi is None else max(1, round(roi.side * labels.shape[1]))
    if area > side * side:
        raise LocalizationFailed(
            f"{_name(rule)} was not localized: it would cover {_percent(area, labels)} of the image, more than the "
            f"whole region of interest ({_percent(side * side, labels)}); use a localizer trained on images like this"
        )
    center = mask_center(region.astype(np.uint8))
    if center is None:
        raise ValueError("a region that was found has pixels")
    return center


def _largest_region(found: BoolArray, rule: LocalizationRule) -> BoolArray:
    """The largest of the 8-connected regions [H, W], bool, once it is sure to be the structure."""
    count, regions, statistics, centroids = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    # Region 0 is everything that was not found.
    areas = np.asarray(statistics)[1:, cv2.CC_STAT_AREA]
    if count == 1:
        raise LocalizationFailed(
            f"{_name(rule)} was not localized: no pixel of the image was recognised as it; leave the image out, or use "
            "a localizer trained on images like this"
        )
    largest = int(areas.argmax())
    if areas[largest] < rule.min_area * found.size:
        raise LocalizationFailed(
            f"{_name(rule)} was not localized: the largest region recognised as it covers "
            f"{_percent(areas[largest], found)} of the image, less than the {rule.min_area:.2%} that the bundle asks "
            "for; leave the image out, or make a bundle with a smaller --min-area"
        )
    _refuse_rivals(areas, np.asarray(centroids)[1:], largest, rule)
    return np.asarray(np.asarray(regions) == largest + 1, dtype=np.bool_)


def _refuse_rivals(areas: npt.NDArray[Any], centroids: npt.NDArray[Any], largest: int, rule: LocalizationRule) -> None:
    """Refuse two regions that could both be the structure; parts of one that a vessel divides lie closer together."""
    diameter = 2 * math.sqrt(areas[largest] / math.pi)
    apart = np.hypot(*(centroids - centroids[largest]).T) > diameter
    rivals = np.flatnonzero(apart & (areas >= RIVAL_AREA * areas[largest]))
    if rivals.size:
        other = rivals[areas[rivals].argmax()]
        places = " and ".join(f"row {centroids[i][1]:.0f}, column {centroids[i][0]:.0f}" for i in (largest, other))
        raise LocalizationFailed(
            f"{_name(rule)} was not localized: two regions were recognised as it, of {areas[largest]} and "
            f"{areas[other]} pixels (at {places}); leave the image out, or use a localizer trained on images like this"
        )


def _name(rule: LocalizationRule) -> str:
    return f"the {rule.structure.replace('_', ' ')}"


def _percent(area: float, image: npt.NDArray[Any]) -> str:
    return f"{area / image.size:.2%}"
