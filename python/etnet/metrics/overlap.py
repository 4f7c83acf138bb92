"""Overlap scores from a confusion matrix: Dice, IoU, accuracy, sensitivity, specificity (paper Sec. 3, Tables 1 and 2).

Counting and scoring are separate, so that counts of many images can be added before the score is taken (pooled scores).
A group of classes, such as an optic disc of rim and cup, is scored like a class: pixels of all its classes are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.ndops import ConfusionMatrix, confusion_matrix

__all__ = [
    "ConfusionMatrix",
    "OverlapScores",
    "StructureCounts",
    "confusion_matrix",
    "mean_of_defined",
    "means_of_defined",
    "plain",
]

ClassGroups = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and classes of groups, as in `Contract.class_groups`."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StructureCounts:
    """Pixels of each structure (a class or a group of classes) in one or many images.

    Attributes:
        hit: Pixels of the structure that were predicted as it (TP) [..., S], float64 that holds whole numbers.
        missed: Pixels of the structure that were not (FN) [..., S].
        wrong: Other pixels that were predicted as it (FP) [..., S].
        correct: Pixels whose class is right [...].
        total: All pixels [...].
    """

    hit: FloatArray
    missed: FloatArray
    wrong: FloatArray
    correct: FloatArray
    total: FloatArray

    @classmethod
    def from_confusion(cls, matrices: ConfusionMatrix, members: Sequence[Sequence[int]]) -> StructureCounts:
        """Counts of confusion matrices [..., C, C] (row = true class) for structures given by their classes."""
        counts = matrices.astype(np.float64)
        holds = np.zeros((len(members), counts.shape[-1]))
        for row, classes in zip(holds, members, strict=True):
            row[list(classes)] = 1.0
        hit = np.einsum("sc,...cd,sd->...s", holds, counts, holds, optimize=True)
        return cls(
            hit=hit,
            missed=counts.sum(axis=-1) @ holds.T - hit,
            wrong=counts.sum(axis=-2) @ holds.T - hit,
            correct=np.trace(counts, axis1=-2, axis2=-1),
            total=counts.sum(axis=(-2, -1)),
        )

    def weighted(self, weights: npt.NDArray[np.int64]) -> StructureCounts:
        """Counts of resamples [R, ...], each a weighted sum of the images [N, ...], from weights [R, N]."""
        return StructureCounts(
            weights @ self.hit,
            weights @ self.missed,
            weights @ self.wrong,
            weights @ self.correct,
            weights @ self.total,
        )

    def rates(self) -> dict[str, FloatArray]:
        """Each score of each structure [..., S] by name; NaN where it has no pixel to stand on."""
        rejected = self.total[..., None] - self.hit - self.missed - self.wrong
        return {
            "dice": _shares(2 * self.hit, 2 * self.hit + self.wrong + self.missed),
            "iou": _shares(self.hit, self.hit + self.wrong + self.missed),
            "sensitivity": _shares(self.hit, self.hit + self.missed),
            "specificity": _shares(rejected, rejected + self.wrong),
        }

    def accuracy(self) -> FloatArray:
        """Share of the pixels with the right class [...]; NaN without pixels."""
        return _shares(self.correct, self.total)


@dataclass(frozen=True)
class OverlapScores:
    """Scores of one confusion matrix; a score that has no pixel to stand on is NaN, never 0 or 1.

    Attributes:
        class_names: Names in index order.
        dice: Per class 2TP / (2TP + FP + FN); NaN for a class absent from both maps.
        iou: Per class TP / (TP + FP + FN); NaN likewise.
        sensitivity: Per class TP / (TP + FN); NaN for a class absent from the truth.
        specificity: Per class TN / (TN + FP); NaN when no pixel lies outside the class.
        accuracy: Share of pixels with the right class; NaN without pixels.
        pixels: Number of pixels counted.
        groups: Per group of classes its Dice, IoU, sensitivity and specificity by name, with the same NaN rules.
    """

    class_names: tuple[str, ...]
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    accuracy: float
    pixels: int
    groups: dict[str, dict[str, float]]

    @classmethod
    def from_confusion(
        cls, matrix: ConfusionMatrix, class_names: tuple[str, ...], class_groups: ClassGroups = ()
    ) -> OverlapScores:
        """Scores of a matrix [C, C] (row = true class) with C class names and groups of these classes."""
        count = len(class_names)
        if matrix.shape != (count, count):
            raise ValueError(f"confusion matrix has shape {matrix.shape}; expected [C, C] for {count} classes")
        members = [*((index,) for index in range(count)), *(classes for _, classes in class_groups)]
        counts = StructureCounts.from_confusion(matrix, members)
        rates = {name: tuple(values.tolist()) for name, values in counts.rates().items()}
        return cls(
            class_names=tuple(class_names),
            dice=rates["dice"][:count],
            iou=rates["iou"][:count],
            sensitivity=rates["sensitivity"][:count],
            specificity=rates["specificity"][:count],
            accuracy=float(counts.accuracy()),
            pixels=int(matrix.sum()),
            groups={
                name: {score: values[count + index] for score, values in rates.items()}
                for index, (name, _) in enumerate(class_groups)
            },
        )

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur, background included (the paper's mIoU)."""
        return mean_of_defined(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the foreground classes that occur; groups are not classes."""
        return mean_of_defined(self.dice[1:])

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers for JSON; NaN becomes None."""
        per_class = zip(self.class_names, self.dice, self.iou, self.sensitivity, self.specificity, strict=True)
        return {
            "accuracy": plain(self.accuracy),
            "mean_iou": plain(self.mean_iou),
            "mean_foreground_dice": plain(self.mean_dice),
            "pixels": self.pixels,
            "classes": {
                name: {
                    "dice": plain(dice),
                    "iou": plain(iou),
                    "sensitivity": plain(sensitivity),
                    "specificity": plain(specificity),
                }
                for name, dice, iou, sensitivity, specificity in per_class
            },
            "groups": {
                name: {score: plain(value) for score, value in scores.items()} for name, scores in self.groups.items()
            },
        }


def mean_of_defined(values: tuple[float, ...] | list[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none.

    Example:
        >>> mean_of_defined([0.5, float("nan"), 1.0])
        0.75
    """
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def means_of_defined(values: FloatArray) -> FloatArray:
    """Mean over the last axis [..., S] of the values that are not NaN; NaN where there is none.

    Example:
        >>> means_of_defined(np.array([[0.5, math.nan, 1.0], [math.nan] * 3])).tolist()
        [0.75, nan]
    """
    defined = ~np.isnan(values)
    return _shares(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def plain(value: float) -> float | None:
    """A number for JSON; None for NaN."""
    return None if math.isnan(value) else value


def _shares(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), math.nan), where=np.greater(whole, 0)))
