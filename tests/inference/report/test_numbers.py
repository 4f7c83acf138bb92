from __future__ import annotations

import numpy as np
import pytest

from etnet.inference.report.numbers import round_step, shown, ticks


@pytest.mark.parametrize("value", [*np.random.default_rng(0).uniform(-2000, 2000, 50), 1e-3, 999.96, 123456.7])
def test_a_printed_number_is_within_four_digits_of_the_value(value):
    assert float(shown(value).replace(",", "")) == pytest.approx(value, rel=5.1e-4)


@pytest.mark.parametrize("exponent", range(-8, 9, 2))
@pytest.mark.parametrize("mantissa", [1.0, 1.3, 2.0, 4.9, 9.99])
def test_a_step_is_round_and_gives_no_more_parts_than_asked_for(exponent, mantissa):
    span = mantissa * 10.0**exponent
    for parts in (3, 5, 10, 40):
        step = round_step(span, parts)
        assert span / step <= parts * (1 + 1e-6)
        assert span / step > parts / 2.6, "no coarser than it must be"
        assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 4.0), (1e6, 1e6 + 3), (0.0123, 0.0124)])
def test_ticks_lie_inside_and_apart(low, high):
    marks = ticks(low, high, 5)
    assert 2 <= len(marks) <= 6
    assert min(marks) >= low - 1e-9
    assert max(marks) <= high + 1e-9
    assert len(set(marks)) == len(marks)
