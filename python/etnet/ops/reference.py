"""Plain torch twins of the native operators, written from the formulas: test oracle, and fallback where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from etnet.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: str | Sequence[int] = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
) -> Tensor:
    """Lovasz-Softmax loss (paper eq. 1; Berman et al. 2018, Alg. 1), differentiable by autograd.

    Args:
        logits: Class scores [N, C, H, W], floating point; float64 is kept, everything else computed in float32.
        target: Class indices [N, H, W], integer.
        classes: `"present"` averages over the classes that occur in a segment, `"all"` over all, a list over its own.
        per_image: Whether each image is a segment of its own; otherwise the whole batch is one.
        ignore_index: Target value of pixels that are left out.

    Returns:
        The loss, a scalar; 0 (with zero gradient) if no pixel counts, NaN if a pixel's probabilities are.

    Raises:
        DataError: A target is neither a class index nor `ignore_index`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits if logits.dtype == torch.float64 else logits.float()
        target = target.long()
        check_target(target, num_classes=logits.shape[1], ignore_index=ignore_index)
        pieces = zip(scores.split(1), target.split(1), strict=True) if per_image else [(scores, target)]
        losses = [
            _segment_loss(*_pixels(piece, labels, ignore_index), classes)
            for piece, labels in pieces
            if _counts(labels, ignore_index)
        ]
        # `0 * sum` of nothing: a zero that is still connected to the logits.
        return torch.stack(losses).mean() if losses else scores.flatten()[:0].sum()


def _counts(labels: Tensor, ignore_index: int | None) -> bool:
    return bool((labels != ignore_index).any()) if ignore_index is not None else labels.numel() > 0


def _pixels(scores: Tensor, labels: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Scores [P, C] and labels [P] of the pixels that count, in memory order."""
    rows = scores.movedim(1, -1).reshape(-1, scores.shape[1])
    flat = labels.reshape(-1)
    if ignore_index is None:
        return rows, flat
    kept = flat != ignore_index
    return rows[kept], flat[kept]


def _segment_loss(rows: Tensor, labels: Tensor, classes: str | Sequence[int]) -> Tensor:
    probabilities = rows.softmax(dim=1)
    counted: Iterable[int] = range(rows.shape[1]) if isinstance(classes, str) else classes
    if classes == "present":
        counted = labels.unique().tolist()
    return torch.stack([_class_loss(probabilities[:, c], labels == c) for c in counted]).mean()


def _class_loss(probability: Tensor, foreground: Tensor) -> Tensor:
    errors = torch.where(foreground, 1 - probability, probability)
    ranked, order = errors.sort(descending=True, stable=True)
    return (ranked * jaccard_gradient(foreground[order]).to(ranked.dtype)).sum()


def jaccard_gradient(foreground: Tensor) -> Tensor:
    """Discrete derivative of the Jaccard loss along ranked pixels (Berman et al. 2018, Alg. 1).

    Args:
        foreground: Whether each pixel [P], in the order of falling errors, belongs to the class; bool.

    Returns:
        The increase of 1 - |intersection| / |union| when that pixel joins the mistaken ones, [P], float64.
    """
    members = foreground.double()
    intersection = members.sum() - members.cumsum(0)
    union = members.sum() + (1 - members).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def check_target(target: Tensor, *, num_classes: int, ignore_index: int | None) -> None:
    """Checks that every target [N, H, W] is a class index or ignored.

    Raises:
        DataError: One is not; the message names its value and position.
    """
    wrong = (target < 0) | (target >= num_classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if not bool(wrong.any()):
        return
    image, row, column = wrong.nonzero()[0].tolist()
    ignore = "" if ignore_index is None else f" or the ignore_index {ignore_index}"
    raise DataError(
        f"target holds the value {int(target[image, row, column])} at [image {image}, row {row}, column {column}]; "
        f"expected a class index in 0..{num_classes - 1}{ignore}"
    )
