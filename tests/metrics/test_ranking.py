from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from etnet.metrics.ranking import BINS, COARSE_BINS, RankingCounts, pooled_auc_of_resamples
from etnet.metrics.statistics import bootstrap_weights


def sure_network(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as networks give them: most very near to 0 or 1."""
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.13
    logits = generator.normal(np.where(truth, 3.0, -7.0), 4.0)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_of_scikit_learn_within_its_bound(seed):
    probabilities, truth = sure_network(seed)
    counts = RankingCounts.from_probabilities(probabilities, truth)
    error = abs(counts.auc - roc_auc_score(truth, probabilities))
    assert error <= counts.error_bound + 1e-12
    assert counts.error_bound < 1e-4


@settings(max_examples=60, deadline=None)
@given(
    probabilities=hnp.arrays(np.float32, st.integers(2, 40), elements=st.floats(0, 1, width=32)),
    data=st.data(),
)
def test_any_probabilities_stay_within_the_bound(probabilities, data):
    truth = data.draw(hnp.arrays(np.bool_, probabilities.shape))
    for counts in (
        RankingCounts.from_probabilities(probabilities, truth),
        RankingCounts.from_probabilities(probabilities, truth).coarse(),
    ):
        if truth.all() or not truth.any():
            assert math.isnan(counts.auc)
            assert math.isnan(counts.error_bound)
        else:
            assert abs(counts.auc - roc_auc_score(truth, probabilities)) <= counts.error_bound + 1e-12


def test_bins_rise_with_the_probability_and_tell_tiny_ones_apart():
    probabilities = np.sort(np.concatenate([10.0 ** np.arange(-40, 0), [0.5], 1 - 10.0 ** np.arange(-7, 0), [0, 1]]))
    truth = np.arange(len(probabilities)) % 2 == 0
    counts = RankingCounts.from_probabilities(probabilities.astype(np.float32), truth)
    assert len(counts.positives) == BINS
    order = np.flatnonzero(counts.positives + counts.negatives)
    assert counts.positives[order].sum() + counts.negatives[order].sum() == len(probabilities)
    assert len(order) == len(np.unique(probabilities.astype(np.float32)))
    assert counts.auc == pytest.approx(roc_auc_score(truth, probabilities))


def test_a_network_that_knows_nothing_has_one_half_and_a_perfect_one_1():
    truth = np.array([True, False, True, False])
    assert RankingCounts.from_probabilities(np.full(4, 0.3, np.float32), truth).auc == 0.5
    assert RankingCounts.from_probabilities(truth.astype(np.float32), truth).auc == 1.0
    assert RankingCounts.from_probabilities(1 - truth.astype(np.float32), truth).auc == 0.0


def test_minus_zero_is_zero():
    truth = np.array([True, False])
    assert RankingCounts.from_probabilities(np.array([-0.0, 0.0], np.float32), truth).auc == 0.5


def test_probabilities_that_resizing_took_beyond_1_are_1():
    beyond = np.array([1.0, 1.0000001, -1e-8, 0.0], np.float32)
    assert RankingCounts.from_probabilities(beyond, np.array([True, False, True, False])).auc == 0.5


def test_only_pixels_of_the_region_count():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    truth = np.array([[True, False], [True, False]])
    where = np.array([[True, True], [False, False]])
    assert RankingCounts.from_probabilities(probabilities, truth, where=where).auc == 1.0
    assert RankingCounts.from_probabilities(probabilities, truth).auc == 0.75


def test_counts_of_images_add_up_to_those_of_their_pixels():
    pairs = [sure_network(seed, 500) for seed in range(3)]
    total = sum(
        (RankingCounts.from_probabilities(*pair) for pair in pairs[1:]), RankingCounts.from_probabilities(*pairs[0])
    )
    together = RankingCounts.from_probabilities(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    np.testing.assert_array_equal(total.positives, together.positives)
    np.testing.assert_array_equal(total.negatives, together.negatives)


def test_resamples_have_the_area_of_their_pooled_pixels():
    pairs = [sure_network(seed, 400) for seed in range(4)]
    images = [RankingCounts.from_probabilities(*pair).coarse() for pair in pairs]
    assert len(images[0].positives) == COARSE_BINS
    weights = bootstrap_weights(4, resamples=20)
    got = pooled_auc_of_resamples(images, weights)
    for row, area in zip(weights, got, strict=True):
        drawn = [pairs[index] for index in np.repeat(np.arange(4), row)]
        probabilities, truth = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        assert area == pytest.approx(roc_auc_score(truth, probabilities), abs=2e-3)
        pooled = sum((images[index] for index in np.repeat(np.arange(4), row)[1:]), images[np.flatnonzero(row)[0]])
        assert area == pytest.approx(pooled.auc)


def test_a_resample_without_one_kind_of_pixel_is_undefined():
    images = [
        RankingCounts.from_probabilities(np.array([0.2, 0.7], np.float32), np.array(truth)).coarse()
        for truth in ([False, False], [True, False])
    ]
    got = pooled_auc_of_resamples(images, np.array([[2, 0], [1, 1]]))
    assert math.isnan(got[0])
    assert got[1] == pytest.approx(roc_auc_score([False, False, True, False], [0.2, 0.7, 0.2, 0.7]))


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(ValueError, match=r"not in 0\.\.1"):
        RankingCounts.from_probabilities(np.array([value], np.float32), np.array([True]))


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected the same"):
        RankingCounts.from_probabilities(np.zeros(3, np.float32), np.zeros(2, bool))
