"""Length of a run and the poly learning rate (paper Sec. 2.3)."""

from __future__ import annotations

import math


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
