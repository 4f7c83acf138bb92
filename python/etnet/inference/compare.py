"""Whether two predictors say the same about real images: the check after every export and every engine build."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from etnet.inference.predictor import Predictor
from etnet.metrics.overlap import ConfusionMatrix, OverlapScores, confusion_matrix
from etnet.types import UInt8Array


@dataclass(frozen=True)
class ComparisonImage:
    """An image that both predictors segment.

    Attributes:
        id: Its name.
        image: RGB image [H, W, 3], uint8.
        mask: True class indices [H, W], uint8; None where there is no ground truth.
    """

    id: str
    image: UInt8Array
    mask: UInt8Array | None = None


@dataclass(frozen=True)
class Comparison:
    """How far a candidate is from its reference; all shares are of the pixels of all images together.

    Attributes:
        reference: What ran the reference.
        candidate: What ran the candidate.
        images: Number of images.
        pixels: Number of pixels.
        differing_labels: Share of the pixels with another label, 0..1.
        agreement: Dice of each class between candidate and reference; None for a class that neither found.
        reference_dice: Mean foreground Dice of the reference against the ground truth; None without ground truth.
        candidate_dice: The same of the candidate.
        largest_edge_difference: Largest difference of the boundary probability, in steps of 1/255; None without edges.
        mean_edge_difference: Mean of the same.
    """

    reference: str
    candidate: str
    images: int
    pixels: int
    differing_labels: float
    agreement: dict[str, float | None]
    reference_dice: float | None
    candidate_dice: float | None
    largest_edge_difference: int | None
    mean_edge_difference: float | None

    @property
    def dice_drop(self) -> float:
        """What the candidate loses in mean foreground Dice, below 0 where it gains.

        Against the ground truth where there is one; else 1 minus the Dice between the two predictors.
        """
        if self.reference_dice is not None and self.candidate_dice is not None:
            return self.reference_dice - self.candidate_dice
        found = [dice for name, dice in list(self.agreement.items())[1:] if dice is not None]
        return 1.0 - math.fsum(found) / len(found) if found else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {**asdict(self), "dice_drop": self.dice_drop}


class _Totals:
    """Counts that are summed over images."""

    def __init__(self, num_classes: int) -> None:
        empty = np.zeros((num_classes, num_classes), np.int64)
        self.between, self.reference, self.candidate = empty.copy(), empty.copy(), empty.copy()
        self.with_mask = 0
        self.edge_pixels = self.edge_sum = self.edge_largest = 0

    def add_edges(self, reference: UInt8Array, candidate: UInt8Array) -> None:
        difference = np.abs(reference.astype(np.int64) - candidate)
        self.edge_pixels += difference.size
        self.edge_sum += int(difference.sum())
        self.edge_largest = max(self.edge_largest, int(difference.max(initial=0)))


def compare_predictors(
    reference: Predictor,
    candidate: Predictor,
    images: Iterable[ComparisonImage],
    *,
    ignore_index: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Segment images with both predictors and count where they differ.

    Args:
        reference: What the candidate should be equal to.
        candidate: Has the same contract.
        images: At least one.
        ignore_index: Value of the masks without a label.
        progress: Called with the id of each image when it is counted.

    Raises:
        CheckFailed: One of the networks gave numbers that are not finite.
        DataError: An image does not fit a fixed size.
    """
    classes = reference.contract.num_classes
    totals = _Totals(classes)
    count = 0
    for item in images:
        wanted = reference.predict(item.image, probabilities=False)
        got = candidate.predict(item.image, probabilities=False)
        totals.between += confusion_matrix(got.labels, wanted.labels, num_classes=classes)
        if wanted.edges is not None and got.edges is not None:
            totals.add_edges(wanted.edges, got.edges)
        if item.mask is not None:
            totals.with_mask += 1
            count_against = partial(confusion_matrix, target=item.mask, num_classes=classes, ignore_index=ignore_index)
            totals.reference += count_against(wanted.labels)
            totals.candidate += count_against(got.labels)
        count += 1
        if progress is not None:
            progress(item.id)
    return _comparison(totals, reference, candidate, images=count)


def _comparison(totals: _Totals, reference: Predictor, candidate: Predictor, *, images: int) -> Comparison:
    names = reference.contract.class_names
    between = OverlapScores.from_confusion(totals.between, names)
    dice = [None if math.isnan(value) else value for value in between.dice]
    return Comparison(
        reference=reference.backend.name,
        candidate=candidate.backend.name,
        images=images,
        pixels=between.pixels,
        differing_labels=1.0 - between.accuracy if between.pixels else 0.0,
        agreement=dict(zip(names, dice, strict=True)),
        reference_dice=_mean_dice(totals.reference, names) if totals.with_mask else None,
        candidate_dice=_mean_dice(totals.candidate, names) if totals.with_mask else None,
        largest_edge_difference=totals.edge_largest if totals.edge_pixels else None,
        mean_edge_difference=totals.edge_sum / totals.edge_pixels if totals.edge_pixels else None,
    )


def _mean_dice(matrix: ConfusionMatrix, names: tuple[str, ...]) -> float:
    """Mean foreground Dice; 1 where there is no foreground and none was found."""
    dice = OverlapScores.from_confusion(matrix, names).mean_dice
    return 1.0 if math.isnan(dice) else dice
