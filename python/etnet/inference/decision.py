"""From class probabilities to labels: the most probable class, or a threshold where there are two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from etnet.errors import UsageError
from etnet.types import BoolArray, Float32Array, UInt8Array


class Decision(Protocol):
    """A rule that gives every pixel its class."""

    @property
    def is_most_probable(self) -> bool:
        """Whether the rule takes the most probable class, which backends compute themselves."""

    def labels(self, probabilities: Float32Array) -> UInt8Array:
        """Class indices [...], uint8, of class probabilities [C, ...], float32."""


@dataclass(frozen=True)
class MostProbable:
    """The most probable class; of equal ones the first."""

    @property
    def is_most_probable(self) -> bool:
        """True."""
        return True

    def labels(self, probabilities: Float32Array) -> UInt8Array:
        """Class indices [...], uint8, of class probabilities [C, ...], float32."""
        if len(probabilities) == 2:
            # As argmax, several times faster.
            above: BoolArray = probabilities[1] > probabilities[0]
            return above.view(np.uint8)
        labels: UInt8Array = np.argmax(probabilities, axis=0).astype(np.uint8)
        return labels


@dataclass(frozen=True)
class Threshold:
    """The second of two classes from a probability on.

    Attributes:
        value: That probability, between 0 and 1; less than 0.5 finds more.

    Example:
        >>> Threshold(0.3).labels(np.array([[0.8, 0.7, 0.2], [0.2, 0.3, 0.8]], np.float32))
        array([0, 1, 1], dtype=uint8)
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < 1:
            raise UsageError(f"the threshold is {self.value:g}; expected a probability between 0 and 1")

    @property
    def is_most_probable(self) -> bool:
        """False."""
        return False

    def labels(self, probabilities: Float32Array) -> UInt8Array:
        """Class indices [...], uint8, of class probabilities [2, ...], float32."""
        # In the probabilities' own precision, or 0.3 as float32 would lie above 0.3.
        found: BoolArray = probabilities[1] >= np.float32(self.value)
        return found.view(np.uint8)


def decision_for(threshold: float | None, num_classes: int) -> Decision:
    """The decision for a threshold; None takes the most probable class.

    Raises:
        UsageError: There are not two classes, or the threshold is no probability between 0 and 1.
    """
    if threshold is None:
        return MostProbable()
    if num_classes != 2:
        raise UsageError(
            f"a threshold divides two classes, but this network knows {num_classes}; leave the threshold out"
        )
    return Threshold(threshold)
