"""Overlap scores from a confusion matrix: Dice, IoU, accuracy, sensitivity, specificity (paper Sec. 3, Tables 1 and 2).

Counting and scoring are separate, so that counts of many images can be added before the score is taken (pooled scores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from etnet.ndops import ConfusionMatrix, confusion_matrix

__all__ = ["ConfusionMatrix", "OverlapScores", "confusion_matrix", "mean_of_defined"]


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
    """

    class_names: tuple[str, ...]
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    accuracy: float
    pixels: int

    @classmethod
    def from_confusion(cls, matrix: ConfusionMatrix, class_names: tuple[str, ...]) -> OverlapScores:
        """Scores of a matrix [C, C] (row = true class) with C class names."""
        if matrix.shape != (len(class_names), len(class_names)):
            raise ValueError(
                f"confusion matrix has shape {matrix.shape}; expected [C, C] for {len(class_names)} classes"
            )
        total = int(matrix.sum())
        hit = np.diagonal(matrix)
        missed = matrix.sum(axis=1) - hit
        wrong = matrix.sum(axis=0) - hit
        rejected = total - hit - missed - wrong
        return cls(
            class_names=tuple(class_names),
            dice=_shares(2 * hit, 2 * hit + wrong + missed),
            iou=_shares(hit, hit + wrong + missed),
            sensitivity=_shares(hit, hit + missed),
            specificity=_shares(rejected, rejected + wrong),
            accuracy=float(hit.sum() / total) if total else math.nan,
            pixels=total,
        )

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur, background included (the paper's mIoU)."""
        return mean_of_defined(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the foreground classes that occur."""
        return mean_of_defined(self.dice[1:])

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers for JSON; NaN becomes None."""
        per_class = zip(self.class_names, self.dice, self.iou, self.sensitivity, self.specificity, strict=True)
        return {
            "accuracy": _number(self.accuracy),
            "mean_iou": _number(self.mean_iou),
            "mean_foreground_dice": _number(self.mean_dice),
            "pixels": self.pixels,
            "classes": {
                name: {
                    "dice": _number(dice),
                    "iou": _number(iou),
                    "sensitivity": _number(sensitivity),
                    "specificity": _number(specificity),
                }
                for name, dice, iou, sensitivity, specificity in per_class
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


def _shares(part: ConfusionMatrix, whole: ConfusionMatrix) -> tuple[float, ...]:
    return tuple(float(a / b) if b else math.nan for a, b in zip(part, whole, strict=True))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
