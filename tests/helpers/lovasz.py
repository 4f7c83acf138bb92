"""Lovasz-Softmax from the definition of the Lovasz extension as a Choquet integral; nothing is ranked here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def jaccard_loss_of_mistakes(mistaken: np.ndarray, foreground: np.ndarray) -> float:
    """1 - |foreground without mistakes| / |foreground or mistaken| (Berman et al. 2018, eq. 6); 0 for no mistake."""
    if not mistaken.any():
        return 0.0
    return 1.0 - np.count_nonzero(foreground & ~mistaken) / np.count_nonzero(foreground | mistaken)


def choquet_class_loss(errors: np.ndarray, foreground: np.ndarray) -> float:
    """Integral over t in 0..1 of the Jaccard loss of the pixels whose error exceeds t."""
    thresholds = np.unique(np.concatenate([[0.0], errors]))
    return sum(
        (high - low) * jaccard_loss_of_mistakes(errors > low, foreground)
        for low, high in itertools.pairwise(thresholds)
    )


def choquet_lovasz_softmax(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    classes: str | Sequence[int] = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
) -> float:
    """Loss of logits [N, C, H, W] and target [N, H, W] in float64."""
    logits = np.moveaxis(logits.astype(np.float64), 1, -1)
    segments = [slice(n, n + 1) for n in range(len(logits))] if per_image else [slice(None)]
    losses = []
    for segment in segments:
        valid = np.ones(target[segment].shape, bool) if ignore_index is None else target[segment] != ignore_index
        labels = target[segment][valid]
        if labels.size == 0:
            continue
        scores = np.exp(logits[segment][valid] - logits[segment][valid].max(axis=-1, keepdims=True))
        probability = scores / scores.sum(axis=-1, keepdims=True)
        counted = classes
        if isinstance(classes, str):
            counted = np.unique(labels) if classes == "present" else range(logits.shape[-1])
        losses.append(
            np.mean([choquet_class_loss(np.abs((labels == c) - probability[:, c]), labels == c) for c in counted])
        )
    return float(np.mean(losses)) if losses else 0.0
