"""Length of a run (paper Sec. 2.3) and what changes during it: the poly learning rate, the weights of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence


def total_iterations(*, num_images: int, epochs: int, batch_size: int) -> int:
    """Optimizer steps of a run: num_images * epochs / batch_size, rounded up (paper Sec. 2.3).

    >>> total_iterations(num_images=20, epochs=300, batch_size=16)
    375
    """
    return max(1, math.ceil(num_images * epochs / batch_size))


def poly_learning_rate(iteration: int, *, total: int, base_lr: float, power: float) -> float:
    """Learning rate of a step: base_lr * (1 - iteration / total) ** power (paper Sec. 2.3).

    Args:
        iteration: Steps already done, 0 .. total - 1.
        total: Steps of the whole run.
        base_lr: Learning rate of the first step.
        power: 0 keeps the rate constant, 1 lowers it linearly.

    >>> poly_learning_rate(0, total=10, base_lr=0.005, power=0.9)
    0.005
    """
    return base_lr * math.pow(1.0 - iteration / total, power)


def scheduled_alpha(iteration: int, *, total: int, alpha: float, points: Sequence[tuple[float, float]]) -> float:
    """Share of the regions in the loss of a step.

    Ours: the paper keeps it at 0.3 (Sec. 2.2); so does every schedule without points.

    Args:
        iteration: Steps already done, 0 .. total - 1.
        total: Steps of the whole run.
        alpha: Share of the first step.
        points: Pairs of a share of the run, ascending in 0..1 and above 0, and the alpha there. Between them, and from
            the first step to the first point, alpha moves linearly; after the last point it stays.

    >>> [scheduled_alpha(step, total=4, alpha=0.3, points=[(0.5, 0.7)]) for step in range(4)]
    [0.3, 0.5, 0.7, 0.7]
    """
    done, since, value = iteration / total, 0.0, alpha
    for share, target in points:
        if done < share:
            return value + (target - value) * (done - since) / (share - since)
        since, value = share, target
    return value
