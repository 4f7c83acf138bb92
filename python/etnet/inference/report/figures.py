"""Values of many images in little memory: eight bytes each, by column, and what is counted instead of plotted."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etnet.inference.report.columns import UNCERTAINTY, by_importance, is_telling, title_and_unit
from etnet.inference.report.content import ReportRow

Values = npt.NDArray[np.float64]

_MOST_WORDS = 20
"""Columns of words with more different values than this are names of something, which nobody counts."""


def finite(value: object) -> float | None:
    """The number that a cell holds; None for words, an empty cell, NaN and infinity."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


@dataclass(frozen=True)
class Summary:
    """Order statistics of a column; quantiles are interpolated linearly between images."""

    count: int
    low: float
    fifth: float
    median: float
    ninety_fifth: float
    high: float


def summarize(values: Values) -> Summary:
    """Summary of at least one value [N]."""
    low, fifth, median, ninety_fifth, high = (float(q) for q in np.quantile(values, (0.0, 0.05, 0.5, 0.95, 1.0)))
    return Summary(len(values), low, fifth, median, ninety_fifth, high)


class Figures:
    """All rows of a run, column by column, without their names.

    100,000 rows with 50 columns take 40 MB.
    """

    def __init__(self) -> None:
        self.images = 0
        self.flags: Counter[str] = Counter()
        self.flagged = 0
        self._numbers: dict[str, array[float]] = {}
        self._words: dict[str, Counter[str]] = {}

    def add(self, row: ReportRow) -> None:
        """Take in one image."""
        self.images += 1
        self.flags.update(set(row.flags))
        self.flagged += bool(row.flags)
        uncertainty = finite(row.uncertainty)
        if uncertainty is not None:
            self._column(UNCERTAINTY).append(uncertainty)
        self._add_measurements(row.measurements)

    def _add_measurements(self, measurements: Mapping[str, float | str | None]) -> None:
        for column, value in measurements.items():
            if isinstance(value, str):
                self._count_word(column, value)
                continue
            number = finite(value)
            if number is not None and column != UNCERTAINTY:
                self._column(column).append(number)

    def _column(self, name: str) -> array[float]:
        return self._numbers.setdefault(name, array("d"))

    def _count_word(self, column: str, word: str) -> None:
        words = self._words.setdefault(column, Counter())
        if word and (word in words or len(words) <= _MOST_WORDS):
            words[word] += 1

    def values(self, column: str) -> Values:
        """The numbers of a column [N], float64, in the order of the images that have one."""
        return np.frombuffer(self._numbers.get(column, array("d")), dtype=np.float64)

    def columns(self) -> list[str]:
        """All numeric columns, most telling first, uncertainty before them."""
        measured = by_importance(name for name in self._numbers if name != UNCERTAINTY)
        return [UNCERTAINTY, *measured] if UNCERTAINTY in self._numbers else measured

    def varying(self) -> list[str]:
        """Numeric columns whose values differ and are more than yes or no."""
        return [name for name in self.columns() if _varies(self.values(name)) and not self._is_yes_or_no(name)]

    def constant(self) -> dict[str, float]:
        """Numeric columns with one value in every image, and that value; yes and no are in `counted`."""
        values = {name: self.values(name) for name in self.columns() if not self._is_yes_or_no(name)}
        return {name: float(column[0]) for name, column in values.items() if not _varies(column)}

    def counted(self) -> list[tuple[str, str, int]]:
        """(column, value, images) of columns that hold yes or no, of which yes is counted, or words."""
        truths = [(name, "", int(self.values(name).sum())) for name in self.columns() if self._is_yes_or_no(name)]
        words = [
            (name, word, count)
            for name, counts in self._words.items()
            if len(counts) <= _MOST_WORDS
            for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        return truths + words

    def _is_yes_or_no(self, name: str) -> bool:
        # A measurement that the masks of a run happen to leave at 0 or 1 is a number all the same.
        is_number = name == UNCERTAINTY or is_telling(name) or title_and_unit(name)[1]
        return not is_number and bool(np.isin(self.values(name), (0.0, 1.0)).all())


def _varies(values: Values) -> bool:
    """Whether values [N] differ by more than rounding, so that an axis between them has distinct ticks."""
    return bool(np.ptp(values) > 1e-9 * np.abs(values).max())
