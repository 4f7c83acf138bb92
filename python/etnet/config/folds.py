"""Folds of cross-validation as a recipe names them: `data.fold: 2/5` is the second of five."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator


@dataclass(frozen=True)
class Fold:
    """One of the parts into which cross-validation cuts the training images: number 1..count.

    >>> Fold.parse("2/5")
    Fold(number=2, count=5)
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Fold:
        """The fold written as `number/count`.

        Raises:
            ValueError: The text is not of that form, or there is no such fold.
        """
        found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
        fold = cls(int(found[1]), int(found[2])) if found else None
        if fold is None or not (fold.count >= 2 and 1 <= fold.number <= fold.count):
            raise ValueError("expected k/n with n of at least 2 and k in 1..n, for instance 1/5")
        return fold

    @property
    def share(self) -> float:
        """How much of the training images the fold holds out, but for rounding to whole images or patients."""
        return 1 / self.count

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


FoldText = Annotated[str, AfterValidator(lambda text: str(Fold.parse(text)))]
"""A recipe's value for a fold."""


def with_share_of_fold(values: Any) -> Any:
    """A data section's unchecked values, with the fraction that its fold holds out where they name none.

    So that whoever asks the fraction whether images are held out is answered for a fold too.
    """
    if not isinstance(values, dict) or "validation_fraction" in values:
        return values
    try:
        return {**values, "validation_fraction": Fold.parse(values["fold"]).share}
    except (KeyError, TypeError, ValueError):
        # No fold, or one that the check of its own key refuses with a sentence.
        return values


def require_share_of_fold(fold: str | None, fraction: float) -> None:
    """Refuse a fraction of held-out images that a fold contradicts.

    Raises:
        ValueError: The fold holds out another fraction.
    """
    if fold is not None and not math.isclose(fraction, Fold.parse(fold).share):
        raise ValueError(
            f"fold {fold} holds out {Fold.parse(fold).share:.3g} of the training images, but validation_fraction is "
            f"{fraction:g}; leave one of the two away (etnet train --fold {fold} sets both)"
        )
