from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etnet.data.splits import hold_out


@given(count=st.integers(0, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**63 - 1))
def test_parts_are_disjoint_ascending_and_complete(count, fraction, seed):
    train, validation = hold_out(count, fraction=fraction, seed=seed)
    assert sorted(train + validation) == list(range(count))
    assert list(train) == sorted(train)
    assert list(validation) == sorted(validation)


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(20, 0.2, 4), (20, 0.0, 0), (3, 0.01, 1), (3, 0.99, 2), (1, 0.5, 0), (0, 0.5, 0)]
)
def test_at_least_one_is_held_out_and_one_stays_for_training(count, fraction, held):
    assert len(hold_out(count, fraction=fraction, seed=0).validation) == held


def test_the_seed_decides():
    assert hold_out(30, fraction=0.3, seed=1) == hold_out(30, fraction=0.3, seed=1)
    assert len({hold_out(30, fraction=0.3, seed=seed).validation for seed in range(10)}) > 5
