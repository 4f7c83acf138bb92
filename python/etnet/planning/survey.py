"""What a folder of images and masks is like, as far as a recipe depends on it."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from etnet.config.data_section import DataSection
from etnet.data.dataset import require_same_size
from etnet.data.datasets import find_part
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.io import read_size, read_stored
from etnet.data.mask_values import MaskSummary, scan_masks
from etnet.planning.classes import ClassPlan
from etnet.types import UInt8Array

SURVEYED = 100
"""Images that are looked at closely, spread evenly over the folder; values and sizes are read of all."""

OF_A_RARE_CLASS = 10
"""Images that are looked at besides, of each class that is on none of those."""

WIDTHS = (3, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129)
"""Diameters in pixels of the discs that structures are opened with."""

_TAILS = (0.5, 99.5)
_SPECK = 0.02
_MANY_VALUES = 10
_MANY_PATIENTS = 10
_AFTER_A_SIDE = "(?i:left|right|od|os|l|r)[_ -](.+)"


@dataclass(frozen=True)
class Structure:
    """One class in the surveyed masks; pixels are those of the files.

    Attributes:
        name: Of the class.
        images: Surveyed masks that have it.
        share: Of the labelled pixels of the surveyed masks, 0..1.
        width_px: Diameter of the smallest disc of `WIDTHS` that does not fit into half of its area; the largest of
            them for structures that are wider.
        extent_px: Longer side of the box around its largest component, the median over the masks that have it.
        components: Fewest and most connected components in a mask that has it, without those below 2 % of its area.
        holes: Whether any mask has a hole in it.
    """

    name: str
    images: int
    share: float
    width_px: int
    extent_px: float
    components: tuple[int, int]
    holes: bool


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        pairs: Images with masks.
        surveyed: Of them, how many were looked at closely.
        sizes: (height, width) of all images, with their number, the most frequent first.
        kinds: What the pixels of the surveyed images are, such as `RGB 8-bit`, with their number.
        window: Values between which nearly all pixels lie, where images have more than 8 bits.
        structures: The classes, without the background.
        spot: Longest side of the box around all structures together, as a share of the image's width, the largest over
            the surveyed masks; None unless each of them shows one connected piece, and no other mask is empty.
        spot_area: Area of that piece as a share of the image's, the smallest over the surveyed masks; None likewise.
        patient_pattern: Regular expression of the patient in the names, where they look like several images of each.
        patients: How many patients that makes.
    """

    pairs: int
    surveyed: int
    sizes: Mapping[tuple[int, int], int]
    kinds: Mapping[str, int]
    window: tuple[float, float] | None
    structures: tuple[Structure, ...]
    spot: float | None
    spot_area: float | None
    patient_pattern: str | None
    patients: int | None

    @property
    def size(self) -> tuple[int, int]:
        """Median height and width."""
        heights, widths = zip(*(size for size, count in self.sizes.items() for _ in range(count)), strict=True)
        return round(statistics.median(heights)), round(statistics.median(widths))

    @property
    def same_shape(self) -> bool:
        """Whether all images have about the same ratio of height and width, so that one size distorts none of them."""
        ratios = [height / width for height, width in self.sizes]
        return max(ratios) <= 1.05 * min(ratios)


def find_pairs(root: Path, data: DataSection) -> tuple[FoundPairs, list[MaskSummary]]:
    """Images and masks of one's own folder, every mask read and every size compared.

    Raises:
        DataError: The folder cannot be trained on; see `etnet.data.datasets.find_part`.
    """
    pairs = find_part(data, root, "train")
    summaries = scan_masks(pairs.masks)
    for image, mask in zip(pairs.images, summaries, strict=True):
        require_same_size(mask.path, mask.shape, image_path=image, image_shape=read_size(image))
    return pairs, summaries


def survey(pairs: FoundPairs, summaries: Sequence[MaskSummary], classes: ClassPlan) -> Survey:
    """Look at the images and masks of a folder.

    Args:
        pairs: As `find_pairs` returns them.
        summaries: Likewise.
        classes: How their values are read.

    Raises:
        DataError: An image cannot be read.
    """
    chosen = _chosen(summaries, classes)
    kinds, window = _pixels([pairs.images[index] for index in chosen])
    drawn: list[list[_Drawn]] = [[] for _ in classes.names]
    labelled, together = 0, []
    for index in chosen:
        labels = classes.mapping.apply(pairs.masks[index].read(), path=pairs.masks[index].path)
        # The index of what has no label lies above those of the classes.
        labelled += int(np.count_nonzero(labels < len(classes.names)))
        together.append((_draw((labels > 0) & (labels < len(classes.names))), labels.shape))
        for number in range(1, len(classes.names)):
            drawing = _draw(labels == number)
            if drawing is not None:
                drawn[number].append(drawing)
    spot = _spot(together) if all(_shows_structure(summary, classes) for summary in summaries) else None
    pattern = patient_pattern(pairs.ids)
    return Survey(
        pairs=len(pairs.ids),
        surveyed=len(chosen),
        sizes=dict(Counter(summary.shape for summary in summaries).most_common()),
        kinds=dict(Counter(kinds).most_common()),
        window=window,
        structures=tuple(_structure(classes.names[number], drawn[number], labelled) for number in _numbers(classes)),
        spot=None if spot is None else spot[0],
        spot_area=None if spot is None else spot[1],
        patient_pattern=pattern,
        patients=None if pattern is None else len({_patient(pattern, name) for name in pairs.ids}),
    )


def _numbers(classes: ClassPlan) -> range:
    """Indices of the structures."""
    return range(1, len(classes.names))


def _shows_structure(summary: MaskSummary, classes: ClassPlan) -> bool:
    return any(classes.mapping.classes[value] in _numbers(classes) for value in summary.values)


def _chosen(summaries: Sequence[MaskSummary], classes: ClassPlan) -> list[int]:
    """Places of the images that are looked at closely, among them some of each class."""
    chosen = set(_spread(range(len(summaries)), SURVEYED))
    for value, number in classes.mapping.classes.items():
        holders = [place for place, summary in enumerate(summaries) if value in summary.values]
        if number in _numbers(classes) and chosen.isdisjoint(holders):
            chosen.update(_spread(holders, OF_A_RARE_CLASS))
    return sorted(chosen)


def _spread(places: Sequence[int], most: int) -> list[int]:
    """Some of the places, spread evenly."""
    return [places[round(at)] for at in np.linspace(0, len(places) - 1, min(len(places), most)).tolist()]


def _spot(together: Sequence[tuple[_Drawn | None, tuple[int, ...]]]) -> tuple[float, float] | None:
    """The longest side and the smallest area, as shares of the image, where every mask shows a single piece."""
    sides, areas = [], []
    for drawing, (height, width) in together:
        if drawing is None or drawing.components != 1:
            return None
        sides.append(drawing.extent / width)
        areas.append(drawing.area / (height * width))
    return max(sides), min(areas)


def patient_pattern(names: Sequence[str]) -> str | None:
    """A pattern for `data.patient_pattern` if all names share a form in which several images belong to one patient.

    That is what stands before the last separator, or after the name of a side. What all names share is no patient, what
    never repeats tells nothing, and a few words without a number, such as benign and malignant, are kinds of images.

    >>> patient_pattern(["p1_left", "p1_right", "p2_left", "p2_right"])
    '(.+)_[^_]+'
    >>> patient_pattern(["case_001", "case_002"]) is patient_pattern(["001_a", "002_a"]) is None
    True
    """
    ends = (f"(.+){mark}[^{mark}]+" for mark in map(re.escape, ("_", "-", " ")))
    return next((pattern for pattern in (_AFTER_A_SIDE, *ends) if _tells_patients(pattern, names)), None)


def _tells_patients(pattern: str, names: Sequence[str]) -> bool:
    if not all(re.fullmatch(pattern, name) for name in names):
        return False
    groups = Counter(_patient(pattern, name) for name in names)
    named = len(groups) >= _MANY_PATIENTS or all(re.search(r"\d", patient) for patient in groups)
    return named and len(groups) >= 2 and len(names) / len(groups) >= 1.5 and max(groups.values()) <= len(names) / 2


def _patient(pattern: str, name: str) -> str:
    match = re.fullmatch(pattern, name)
    return name if match is None else match.group(1)


def _pixels(images: Iterable[Path]) -> tuple[list[str], tuple[float, float] | None]:
    """What each image's pixels are, and between which values nearly all of those of more than 8 bits lie."""
    kinds, tails = [], []
    for path in images:
        stored = read_stored(path)
        kinds.append(stored.kind)
        if stored.pixels.dtype.itemsize > 1 and stored.palette is None:
            # Around a round scan there may be NaN.
            low, high = np.percentile(stored.pixels[np.isfinite(stored.pixels)], _TAILS)
            tails.append((float(low), float(high)))
    return kinds, _window(tails) if tails else None


def _window(tails: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """From the lowest to the highest tail: whole numbers, unless the values lie close together, as those of 0..1 do."""
    low, high = min(low for low, _ in tails), max(high for _, high in tails)
    if high - low >= _MANY_VALUES:
        return math.floor(low), math.ceil(high)
    return (low, high) if low < high else (low, low + 1)


@dataclass(frozen=True)
class _Drawn:
    """One structure in one mask: its area, what of it is left after opening with each width, extent, components."""

    area: int
    left: tuple[int, ...]
    extent: int
    components: int
    hole: bool


def _draw(where: np.ndarray) -> _Drawn | None:
    mask: UInt8Array = where.astype(np.uint8)
    area = int(np.count_nonzero(mask))
    if not area:
        return None
    _, _, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = boxes[1:, cv2.CC_STAT_AREA]
    largest = boxes[1 + int(np.argmax(areas))]
    extent = int(max(largest[cv2.CC_STAT_WIDTH], largest[cv2.CC_STAT_HEIGHT]))
    _, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    pieces = int(np.count_nonzero(areas >= _SPECK * area))
    return _Drawn(area, _opened(mask), extent, pieces, bool((hierarchy[0][:, 3] >= 0).any()))


def _opened(mask: UInt8Array) -> tuple[int, ...]:
    """Area that is left after opening with a disc of each of `WIDTHS`; nothing is computed once nothing is left.

    The distance to the background tells where a disc fits, and the distance to those places what it covers, which
    takes the same time for any width.
    """
    # A border of background would make structures at the edge of the picture thinner than they are.
    inner = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5)
    left = []
    for width in WIDTHS:
        centres = (inner >= width / 2).astype(np.uint8)
        if not centres.any():
            break
        outside = cv2.distanceTransform(1 - centres, cv2.DIST_L2, 5)
        covered = (outside[1:-1, 1:-1] < width / 2) & (mask > 0)
        left.append(int(np.count_nonzero(covered)))
    return (*left, *(0 for _ in WIDTHS[len(left) :]))


def _structure(name: str, drawn: Sequence[_Drawn], labelled: int) -> Structure:
    area = sum(one.area for one in drawn)
    left = [sum(one.left[place] for one in drawn) for place in range(len(WIDTHS))]
    width = next((width for width, rest in zip(WIDTHS, left, strict=True) if rest < area / 2), WIDTHS[-1])
    components = [one.components for one in drawn]
    return Structure(
        name=name,
        images=len(drawn),
        share=area / max(labelled, 1),
        width_px=width,
        extent_px=statistics.median(one.extent for one in drawn),
        components=(min(components), max(components)),
        holes=any(one.hole for one in drawn),
    )
