"""What anatomy says about a mask that the network does not: how many regions a structure has, how small one can be.

Regions are 8-connected and background around them is 4-connected, as in `scipy.ndimage.binary_fill_holes`. A region
that is taken away, or a hole that is filled, becomes what surrounds it: a stray piece of an optic cup inside the rim
turns into rim, one in the background into background. Probabilities and edges stay as the network gave them.

Memory: about eight bytes per pixel of the smallest rectangle around the structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from etnet.errors import UsageError
from etnet.inference.localize import structure_classes
from etnet.inference.predictor import ImagePredictor
from etnet.inference.preprocess import Center
from etnet.inference.wrapped import WrappedPredictor
from etnet.types import BoolArray, Contract, Prediction, StructureRule, UInt8Array

Regions = npt.NDArray[np.int32]
"""Number of the region of each pixel [H, W], from 1; 0 outside of all."""


def apply_rules(labels: UInt8Array, rules: Sequence[StructureRule], contract: Contract) -> UInt8Array:
    """Apply rules one after the other; of each, regions are taken away before holes are filled.

    Args:
        labels: Class indices [H, W], uint8.
        rules: What structures must look like.
        contract: Names of classes and groups.

    Returns:
        New class indices [H, W], uint8.

    Raises:
        UsageError: A rule's structure does not exist, or its numbers make no sense.

    Example:
        >>> from etnet.config.schema import Recipe
        >>> labels = np.array([[1, 1, 0, 0, 1]], np.uint8)
        >>> apply_rules(labels, [StructureRule("foreground", largest=1)], Recipe().contract())
        array([[1, 1, 0, 0, 0]], dtype=uint8)
    """
    for rule in rules:
        require_rule(rule, contract)
    changed: UInt8Array = labels.copy()
    for rule in rules:
        members = structure_classes(contract, rule.structure)
        if rule.largest is not None or rule.min_area > 1:
            remove_regions(changed, members, largest=rule.largest, min_area=rule.min_area)
        if rule.fill_holes:
            fill_holes(changed, members)
    return changed


def require_rule(rule: StructureRule, contract: Contract) -> None:
    """Refuse a rule that cannot hold.

    Raises:
        UsageError: Its structure does not exist, or its numbers make no sense.
    """
    structure_classes(contract, rule.structure, network="network")
    if rule.largest is not None and rule.largest < 1:
        raise UsageError(f"{rule.structure}: the largest {rule.largest} regions are to stay; expected at least 1")
    if rule.min_area < 0:
        raise UsageError(f"{rule.structure}: the smallest area is {rule.min_area} pixels; expected 0 or more")


def remove_regions(labels: UInt8Array, members: Sequence[int], *, largest: int | None, min_area: int) -> None:
    """Take away regions of a structure, in place.

    Args:
        labels: Class indices [H, W], uint8; changed.
        members: Classes of the structure.
        largest: How many regions stay; of equally large ones the upper, then the left one. None keeps all.
        min_area: Smallest region that stays, in pixels.
    """
    box = _box_around(_is_member(labels, members))
    if box is None:
        return
    part = labels[box]
    count, regions, statistics = _connected(_is_member(part, members), connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    stays = areas >= min_area
    if largest is not None:
        stays[_by_area(statistics[1:])[largest:]] = False
    if stays.all():
        return
    around = _surroundings(part, regions, count)
    # Between the regions of one structure there is something else; the structure itself surrounds nothing of it.
    becomes = np.where(np.concatenate([[True], stays]), 0, around.argmax(axis=1)).astype(np.uint8)
    removed = np.concatenate([[False], ~stays])[regions]
    part[removed] = becomes[regions[removed]]


def fill_holes(labels: UInt8Array, members: Sequence[int]) -> None:
    """Give background that a structure encloses to the class of it that most of the hole's border has, in place.

    Background that also touches another class, or the border of the image, is no hole.

    Args:
        labels: Class indices [H, W], uint8; changed.
        members: Classes of the structure.
    """
    box = _box_around(_is_member(labels, members))
    if box is None:
        return
    part = labels[box]
    count, regions, statistics = _connected(part == 0, connectivity=4)
    height, width = part.shape
    left, top, columns, rows = (statistics[:, at] for at in range(4))
    inside = (left > 0) & (top > 0) & (left + columns < width) & (top + rows < height)
    around = _surroundings(part, regions, count)
    foreign = np.setdiff1d(np.arange(around.shape[1]), members)
    inside &= around[:, foreign].sum(axis=1) == 0
    inside[0] = False
    filled = inside[regions]
    part[filled] = around.argmax(axis=1).astype(np.uint8)[regions[filled]]


class PostprocessedPredictor(WrappedPredictor):
    """Applies rules to the labels of every prediction."""

    def __init__(self, inner: ImagePredictor, rules: Sequence[StructureRule]) -> None:
        """Wrap a predictor.

        Raises:
            UsageError: A rule's structure does not exist, or its numbers make no sense.
        """
        super().__init__(inner)
        for rule in rules:
            require_rule(rule, inner.contract)
        self.rules = tuple(rules)

    def predict_batch(
        self,
        images: Sequence[UInt8Array],
        *,
        centers: Sequence[Center | None] | None = None,
        probabilities: bool = True,
    ) -> list[Prediction]:
        """Predict several RGB images [H, W, 3], uint8; see `Predictor.predict_batch`."""
        predictions = self.inner.predict_batch(images, centers=centers, probabilities=probabilities)
        return [replace(item, labels=apply_rules(item.labels, self.rules, self.contract)) for item in predictions]


def _is_member(labels: UInt8Array, members: Sequence[int]) -> BoolArray:
    # A table of all classes: several times faster than np.isin.
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table[labels]


def _box_around(found: BoolArray) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest rectangle around pixels and one pixel more to each side; None without any."""
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    if not rows.size:
        return None
    return (
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )


def _connected(found: BoolArray, *, connectivity: int) -> tuple[int, Regions, npt.NDArray[np.int32]]:
    """Number of regions with the rest, which is region 0, their numbers by pixel, and OpenCV's statistics of each."""
    pixels = np.ascontiguousarray(found).view(np.uint8)
    count, regions, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=connectivity)
    return count, np.asarray(regions, np.int32), np.asarray(statistics, np.int32)


def _by_area(statistics: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Regions from the largest to the smallest; of equal ones the upper, then the left one first."""
    keys: Any = (statistics[:, cv2.CC_STAT_LEFT], statistics[:, cv2.CC_STAT_TOP], -statistics[:, cv2.CC_STAT_AREA])
    return np.lexsort(keys)


def _surroundings(labels: UInt8Array, regions: Regions, count: int) -> npt.NDArray[np.intp]:
    """How often each class lies beside each region, by a side of a pixel [regions, classes]; nothing for the rest."""
    classes = int(labels.max()) + 1
    found = np.zeros(count * classes, np.intp)
    for here, there in (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        border = regions[here] != regions[there]
        border &= regions[here] > 0
        pairs = regions[here][border].astype(np.intp) * classes + labels[there][border]
        found += np.bincount(pairs, minlength=count * classes)
    return found.reshape(count, classes)
