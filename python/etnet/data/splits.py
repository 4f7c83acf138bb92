"""Seeded division of a list of samples into training and validation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class HoldOut(NamedTuple):
    """Positions of both parts, each ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


def hold_out(count: int, *, fraction: float, seed: int) -> HoldOut:
    """Draws a validation part without replacement.

    A fraction above zero holds out at least one sample, and one always stays for training.

    Args:
        count: Number of samples.
        fraction: Share that is held out, 0 <= fraction < 1.
        seed: The same seed gives the same parts.

    Example:
        >>> [len(part) for part in hold_out(20, fraction=0.2, seed=0)]
        [16, 4]
    """
    held = 0 if fraction == 0 else min(max(1, round(fraction * count)), max(count - 1, 0))
    order = np.random.default_rng([seed, count]).permutation(count).tolist()
    return HoldOut(train=tuple(sorted(order[held:])), validation=tuple(sorted(order[:held])))
