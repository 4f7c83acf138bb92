"""Plain torch twins of the native operators, written from the formulas: test oracle, and fallback where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from etnet.errors import DataError

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
    bins: int | None = None,
) -> Tensor:
    """Lovasz-Softmax loss (paper eq. 1; Berman et al. 2018, Alg. 1), differentiable by autograd.

    Args:
        logits: Class scores [N, C, H, W], floating point; float64 is kept, everything else computed in float32.
        target: Class indices [N, H, W], integer.
        classes: `"present"` averages over the classes that occur in a segment, `"all"` over all, a list over its own.
        per_image: Whether each image is a segment of its own; otherwise the whole batch is one.
        ignore_index: Target value of pixels that are left out.
        bins: Rounds the errors to the nearest of so many numbers in 0..1, as the method "histogram" does; None: exact.

    Returns:
        The loss, a scalar; 0 (with zero gradient) if no pixel counts, NaN if a pixel's probabilities are.

    Raises:
        DataError: A target is neither a class index nor `ignore_index`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits if logits.dtype == torch.float64 else logits.float()
        segments = _segments(scores, target, per_image=per_image, ignore_index=ignore_index)
        losses = []
        for segment in segments:
            ranking = _rank(segment.scores.softmax(dim=1), segment.labels, classes, bins)
            losses.append((ranking.errors * ranking.weights).sum(dim=1).mean())
        # The sum of no elements: a zero that is still connected to the logits.
        return torch.stack(losses).mean() if losses else scores.flatten()[:0].sum()


def lovasz_softmax_with_gradient(
    logits: Tensor,
    target: Tensor,
    *,
    classes: str | Sequence[int] = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
    bins: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of `lovasz_softmax` and its gradient in closed form, without autograd.

    An operator's implementation runs below autograd, where `torch.autograd.grad` does not work.

    Args:
        logits: Class scores [N, C, H, W], float32 or float64.
        target: Class indices [N, H, W], integer.
        classes: As for `lovasz_softmax`.
        per_image: As for `lovasz_softmax`.
        ignore_index: As for `lovasz_softmax`.
        bins: As for `lovasz_softmax`.

    Returns:
        The loss, a scalar, and its gradient [N, C, H, W], contiguous; both of the type of the logits.

    Raises:
        DataError: A target is neither a class index nor `ignore_index`.
    """
    segments = _segments(logits, target, per_image=per_image, ignore_index=ignore_index)
    loss = logits.new_zeros(())
    rows = logits.new_zeros(logits.shape[0], logits.shape[2], logits.shape[3], logits.shape[1])
    for segment in segments:
        probabilities = segment.scores.softmax(dim=1)
        ranking = _rank(probabilities, segment.labels, classes, bins)
        share = 1 / (len(segments) * len(ranking.errors))
        loss = loss + share * (ranking.errors * ranking.weights).sum()
        slope = torch.zeros_like(probabilities)
        slope[:, ranking.classes] = share * torch.where(ranking.members, -ranking.weights, ranking.weights).T
        # Chain rule through softmax: dL/dz_c = p_c (d_c - sum_k p_k d_k).
        mean_slope = (probabilities * slope).sum(dim=1, keepdim=True)
        rows[segment.images][segment.kept] = probabilities * (slope - mean_slope)
    return loss, rows.movedim(-1, 1).contiguous()


class _Segment(NamedTuple):
    images: slice
    kept: Tensor  # pixels of these images that count [n, H, W], bool
    scores: Tensor  # class scores [P, C] of those pixels, in memory order
    labels: Tensor  # their class indices [P], int64


class _Ranking(NamedTuple):
    classes: Tensor  # classes that count [K], int64
    members: Tensor  # whether a pixel belongs to the class [K, P], bool
    errors: Tensor  # m_i of paper eq. 1 [K, P]
    weights: Tensor  # derivative of the loss with respect to the error [K, P], a constant for autograd


def _segments(
    scores: Tensor,
    target: Tensor,
    *,
    per_image: bool,
    ignore_index: int | None,
) -> list[_Segment]:
    """The images, or the whole batch, without ignored pixels; those of which no pixel is left are dropped."""
    check_target(target, num_classes=scores.shape[1], ignore_index=ignore_index)
    labels = target.long()
    kept = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    count = scores.shape[0]
    pieces = [slice(n, n + 1) for n in range(count)] if per_image else [slice(0, count)]
    return [
        _Segment(images, kept[images], scores[images].movedim(1, -1)[kept[images]], labels[images][kept[images]])
        for images in pieces
        if bool(kept[images].any())
    ]


def _rank(probabilities: Tensor, labels: Tensor, classes: str | Sequence[int], bins: int | None) -> _Ranking:
    """Errors and weights of pixels [P, C]; equal errors keep their order."""
    if classes == "present":
        counted = labels.unique()
    else:
        listed = range(probabilities.shape[1]) if isinstance(classes, str) else classes
        counted = torch.tensor(list(listed), device=labels.device)
    members = labels == counted[:, None]
    chosen = probabilities.T[counted]
    errors = torch.where(members, 1 - chosen, chosen)
    if bins is not None and not bool(errors.isnan().any()):
        index = (errors.detach() * (bins - 1) + 0.5).long()
        # The rounding is a constant for autograd: the derivative with respect to an error passes through it.
        errors = errors + (index.to(errors.dtype) / (bins - 1) - errors).detach()
        return _Ranking(counted, members, errors, bin_weights(members, index, bins=bins).to(errors.dtype))
    order = errors.detach().argsort(dim=1, descending=True, stable=True)
    growth = jaccard_gradient(members.gather(1, order)).to(errors.dtype)
    return _Ranking(counted, members, errors, torch.zeros_like(growth).scatter(1, order, growth))


def bin_weights(foreground: Tensor, index: Tensor, *, bins: int) -> Tensor:
    """Derivative of the loss with respect to errors that are rounded to bins.

    Pixels of one bin are tied; the weight is the mean over two orders, "foreground first" and "background first".

    Args:
        foreground: Whether each pixel [K, P] belongs to the class of its row; bool.
        index: Bin of its error [K, P], 0..bins-1, int64.
        bins: Number of bins.

    Returns:
        The weight of each pixel, [K, P], float64.
    """
    weights = []
    for first in (foreground, ~foreground):
        # Rank by falling bin, then by kind; pixels of one bin and kind share the sum of their weights.
        group = (bins - 1 - index) * 2 + (~first).long()
        ranked = group.argsort(dim=1, stable=True)
        growth = torch.zeros(index.shape, dtype=torch.float64, device=index.device)
        growth.scatter_(1, ranked, jaccard_gradient(foreground.gather(1, ranked)))
        room = torch.zeros(len(index), 2 * bins, dtype=torch.float64, device=index.device)
        share = room.scatter_add(1, group, growth) / room.scatter_add(1, group, torch.ones_like(growth)).clamp(min=1)
        weights.append(share.gather(1, group))
    return (weights[0] + weights[1]) / 2


def jaccard_gradient(foreground: Tensor) -> Tensor:
    """Discrete derivative of the Jaccard loss along ranked pixels (Berman et al. 2018, Alg. 1).

    Args:
        foreground: Whether each pixel [..., P], in the order of falling errors, belongs to the class; bool.

    Returns:
        The increase of 1 - |intersection| / |union| when that pixel joins the mistaken ones, [..., P], float64.
    """
    members = foreground.double()
    total = members.sum(dim=-1, keepdim=True)
    intersection = total - members.cumsum(dim=-1)
    union = total + (1 - members).cumsum(dim=-1)
    jaccard = 1 - intersection / union
    return torch.diff(jaccard, dim=-1, prepend=torch.zeros_like(total))


def check_target(target: Tensor, *, num_classes: int, ignore_index: int | None) -> None:
    """Checks that every target [N, H, W] is a class index or ignored.

    Raises:
        DataError: One is not; the message names its value and position.
    """
    values = target.long()  # compared as int64, so that no ignore_index wraps around in uint8
    wrong = (values < 0) | (values >= num_classes)
    if ignore_index is not None:
        wrong &= values != ignore_index
    if not bool(wrong.any()):
        return
    image, row, column = wrong.nonzero()[0].tolist()
    ignore = "" if ignore_index is None else f" or the ignore_index {ignore_index}"
    raise DataError(
        f"target holds the value {int(target[image, row, column])} at [image {image}, row {row}, column {column}]; "
        f"expected a class index in 0..{num_classes - 1}{ignore}"
    )


def weighted_block(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Weighs the channels of a map by its global context (paper Fig. 2b), differentiable by autograd.

    Args:
        x: Map [N, C, H, W], floating point; float64 is kept, everything else computed in float32.
        w1: Matrix [R, C] of the first 1x1 convolution, floating point.
        b1: Its bias [R].
        w2: Matrix [C, R] of the second one.
        b2: Its bias [C].

    Returns:
        x * sigmoid(w2 relu(w1 mean(x) + b1) + b2), [N, C, H, W], of the type of `x`.
    """
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return weighted_block(x, w1, b1, w2, b2)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    w1, b1, w2, b2 = (parameter.to(wide) for parameter in (w1, b1, w2, b2))
    features = x.to(wide)
    hidden = torch.relu(functional.linear(features.mean(dim=(2, 3)), w1, b1))
    scale = torch.sigmoid(functional.linear(hidden, w2, b2))
    return (features * scale[:, :, None, None]).to(x.dtype)


def weighted_block_with_state(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
    """The result of `weighted_block`, and mean, hidden units and scale of every image for the backward pass.

    Args:
        x: As for `weighted_block`, not empty.
        w1: As for `weighted_block`.
        b1: As for `weighted_block`.
        w2: As for `weighted_block`.
        b2: As for `weighted_block`.

    Returns:
        The weighed map [N, C, H, W] and the state [N, C + R + C], float32.
    """
    mean = x.mean(dim=(2, 3), dtype=torch.float32)
    hidden = torch.relu(mean @ w1.float().T + b1.float())
    scale = torch.sigmoid(hidden @ w2.float().T + b2.float())
    return (x.float() * scale[:, :, None, None]).to(x.dtype), torch.cat((mean, hidden, scale), dim=1)


def weighted_block_backward(
    gradient: Tensor, x: Tensor, state: Tensor, w1: Tensor, w2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `weighted_block` in closed form, without autograd.

    Args:
        gradient: Gradient with respect to the weighed map [N, C, H, W].
        x: As for `weighted_block`.
        state: What `weighted_block_with_state` returned.
        w1: As for `weighted_block`.
        w2: As for `weighted_block`.

    Returns:
        Gradients with respect to `x`, of its type, and to `w1`, `b1`, `w2`, `b2`, float32.
    """
    mean, hidden, scale = state.split((x.shape[1], w1.shape[0], x.shape[1]), dim=1)
    outer = (gradient.float() * x.float()).sum(dim=(2, 3)) * scale * (1 - scale)
    inner = torch.where(hidden <= 0, 0, outer @ w2.float())
    shift = inner @ w1.float() / (x.shape[2] * x.shape[3])
    gradient_x = gradient.float() * scale[:, :, None, None] + shift[:, :, None, None]
    return gradient_x.to(x.dtype), inner.T @ mean, inner.sum(dim=0), outer.T @ hidden, outer.sum(dim=0)
