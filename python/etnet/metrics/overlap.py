"""Overlap scores from a confusion matrix: Dice, IoU, accuracy, sensitivity, specificity (paper Sec. 3, Tables 1 and 2).

Counting and scoring are separate, so that counts of many images can be added before the score is taken (pooled scores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.types import BoolArray, UInt8Array

ConfusionMatrix = npt.NDArray[np.int64]


def confusion_matrix(
    labels: UInt8Array,
    target: UInt8Array,
    *,
    num_classes: int,
    ignore_index: int | None = None,
    where: BoolArray | None = None,
) -> ConfusionMatrix:
    """Count the pixels of every (true class, predicted class) pair.

    Args:
        labels: Predicted class indices, any shape, integer.
        target: True class indices, same shape.
        num_classes: Number of classes C.
        ignore_index: Value of `target` whose pixels are not counted.
        where: Pixels to count, bool, same shape; None counts all.

    Returns:
        Counts [C, C], int64; row = true class, column = predicted class.

    Raises:
        ValueError: Shapes differ, or a counted value is no class index.

    Example:
        >>> import numpy as np
        >>> confusion_matrix(np.array([0, 1, 1], np.uint8), np.array([0, 0, 1], np.uint8), num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    if labels.shape != target.shape:
        raise ValueError(f"labels have shape {labels.shape} and target {target.shape}; expected the same shape")
    counted = np.ones(target.shape, dtype=np.bool_) if where is None else np.asarray(where, dtype=np.bool_)
    if counted.shape != target.shape:
        raise ValueError(f"where has shape {counted.shape} and target {target.shape}; expected the same shape")
    if ignore_index is not None:
        counted = counted & (target != ignore_index)
    rows = target[counted].astype(np.int64)
    columns = labels[counted].astype(np.int64)
    for name, values in (("target", rows), ("labels", columns)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(f"{name} holds values {values.min()}..{values.max()}; expected 0..{num_classes - 1}")
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


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
