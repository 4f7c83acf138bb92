from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.inference.report.selection import LeastCertain
from helpers.reports import row


def kept(rows, limit: int) -> list[str]:
    selection = LeastCertain(limit)
    for one in rows:
        selection.add(one)
    return [one.file for one in selection.rows()]


@pytest.mark.parametrize("limit", [0, 1, 7, 300, 1000])
def test_the_least_certain_are_those_that_sorting_everything_would_give(limit):
    rng = np.random.default_rng(limit)
    # Few different values, so that there are ties; sorting keeps their order.
    rows = [row(str(index), float(rng.integers(0, 20)) / 20) for index in range(300)]
    expected = [one.file for one in sorted(rows, key=lambda one: -one.uncertainty)][:limit]
    assert kept(rows, limit) == expected


def test_without_an_uncertainty_the_first_are_kept_in_their_order():
    assert kept((row(str(index)) for index in range(100)), 3) == ["0", "1", "2"]


def test_rows_with_an_uncertainty_come_before_those_without():
    rows = [row("unknown"), row("nan", math.nan), row("sure", 0.0), row("unsure", 0.9)]
    assert kept(rows, 3) == ["unsure", "sure", "unknown"]
