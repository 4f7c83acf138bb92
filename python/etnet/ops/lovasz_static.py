"""Lovasz-Softmax in plain torch whose every shape is known beforehand, so that a GPU is never waited for.

`etnet.ops.reference` takes out ignored pixels and absent classes, and stops at a wrong target: each asks the device for
a number and waits for the answer. Here they stay and count nothing. The result is the same up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        The loss, a scalar; 0 (with zero gradient) if no pixel counts, NaN if a pixel's probabilities are, or if a
        target is neither a class index nor `ignore_index`.
    """
    if logits.numel() == 0:
        return logits.flatten()[:0].float().sum()
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits if logits.dtype == torch.float64 else logits.float()
        labels = target.long()
        kept = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
        wrong = (kept & ((labels < 0) | (labels >= scores.shape[1]))).any()
        # Before the softmax, so that no gradient is NaN where an ignored pixel's scores are.
        probabilities = torch.where(kept[:, None], scores, 0).softmax(dim=1)
        loss = _mean_over_segments(
            _by_segment(probabilities, per_image=per_image),
            _by_segment(labels[:, None], per_image=per_image),
            _by_segment(kept[:, None], per_image=per_image),
            classes,
        )
        return torch.where(wrong, torch.nan, loss)


def _by_segment(values: Tensor, *, per_image: bool) -> Tensor:
    """[N, C, H, W] as [S, C, P]: P pixels in memory order of each of S images, or of the one batch."""
    rows = values.flatten(2)
    return rows if per_image else rows.movedim(1, 0).flatten(1)[None]


def _mean_over_segments(probabilities: Tensor, labels: Tensor, kept: Tensor, classes: str | Sequence[int]) -> Tensor:
    """The loss of probabilities [S, C, P], labels [S, 1, P], int64, and what counts of them [S, 1, P], bool."""
    numbers = torch.arange(probabilities.shape[1], device=labels.device)
    members = (labels == numbers[:, None]) & kept
    errors = torch.where(members, 1 - probabilities, probabilities)
    weights = _weights(errors.detach(), members, kept)
    losses = torch.where(kept, errors * weights, 0).sum(dim=2)
    counted = members.any(dim=2) if classes == "present" else torch.ones_like(losses, dtype=torch.bool)
    if not isinstance(classes, str):
        counted = counted & _listed(numbers, classes)
    means = torch.where(counted, losses, 0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    filled = kept.any(dim=2)[:, 0]
    return torch.where(filled, means, 0).sum() / filled.sum().clamp(min=1)


def _listed(numbers: Tensor, classes: Sequence[int]) -> Tensor:
    """Whether each class [C] is in the list; compared one by one, as a tensor of the list would have to be copied."""
    return torch.stack([numbers == index for index in classes]).any(dim=0)


def _weights(errors: Tensor, members: Tensor, kept: Tensor) -> Tensor:
    """Derivative of the loss of each class with respect to its errors [S, C, P]; 0 for pixels that do not count."""
    ranked_by = torch.where(kept, errors, -1)
    if errors.shape[1] == 2:
        # Both classes are wrong by the same: one order serves both.
        order = ranked_by[:, 1:].argsort(dim=2, descending=True, stable=True).expand_as(errors)
    else:
        order = ranked_by.argsort(dim=2, descending=True, stable=True)
    foreground = members.gather(2, order)
    background = kept.expand_as(members).gather(2, order) & ~foreground
    growth = _jaccard_growth(foreground, background).to(errors.dtype)
    return torch.zeros_like(growth).scatter(2, order, growth)


def _jaccard_growth(foreground: Tensor, background: Tensor) -> Tensor:
    """By how much 1 - |intersection| / |union| grows when each ranked pixel [S, C, P] joins the mistaken ones; float32.

    Written as one quotient per pixel, because in float32 the difference of two ratios near 1 would have few digits
    left, and float64 is slow on most GPUs: with I and U after the pixel, 1 / U for one of the class and I / (U (U - 1))
    for another. Counting in integers gives the same in every run.
    """
    total = foreground.sum(dim=2, keepdim=True, dtype=torch.int32)
    intersection = (total - foreground.cumsum(dim=2, dtype=torch.int32)).float()
    union = (total + background.cumsum(dim=2, dtype=torch.int32)).float()
    # A class without pixels: the first mistake takes the loss from 0 to 1, whichever pixel makes it.
    joined = torch.where(union > 1, intersection / (union * (union - 1)).clamp(min=1), 1)
    return torch.where(foreground, 1 / union.clamp(min=1), torch.where(background, joined, 0))
