from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from etnet.metrics.statistics import (
    RESAMPLES,
    bootstrap_weights,
    means_of_resamples,
    paired_difference,
    percentile_interval,
)


def interval_of(values: np.ndarray) -> tuple[float, float]:
    images = int(np.sum(~np.isnan(values)))
    return percentile_interval(means_of_resamples(values, bootstrap_weights(len(values))), images=images)


def test_resamples_draw_as_many_images_as_there_are_each_with_equal_chance():
    weights = bootstrap_weights(7)
    assert weights.shape == (RESAMPLES, 7)
    assert np.all(weights.sum(axis=1) == 7)
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.1)


def test_the_same_seed_draws_the_same():
    np.testing.assert_array_equal(bootstrap_weights(5), bootstrap_weights(5))
    assert not np.array_equal(bootstrap_weights(5), bootstrap_weights(5, seed=1))


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=25)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_allclose(interval_of(values), expected, atol=0.05 * width)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    intervals = [interval_of(generator.normal(size=30)) for _ in range(300)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    # The percentile interval of 30 normal values is a little too narrow.
    assert 0.89 <= covered <= 0.98


def test_undefined_values_do_not_enter_a_mean():
    values = np.array([1.0, math.nan, 3.0])
    got = means_of_resamples(values, np.array([[1, 1, 1], [2, 1, 0], [0, 3, 0]]))
    np.testing.assert_array_equal(got, [2.0, 1.0, math.nan])


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]])
def test_fewer_than_two_images_have_no_interval(values):
    values = np.array(values, float)
    resampled = means_of_resamples(values, np.ones((3, len(values)), np.int64))
    assert all(math.isnan(end) for end in percentile_interval(resampled, images=int(np.sum(~np.isnan(values)))))


def test_equal_values_have_an_interval_of_no_width():
    assert interval_of(np.full(5, 0.25)) == pytest.approx((0.25, 0.25))


def test_a_difference_is_that_of_pairs():
    generator = np.random.default_rng(0)
    a = generator.normal(0.8, 0.1, 40)
    b = a + generator.normal(0.02, 0.02, 40)
    got = paired_difference(a, b)
    assert got.pairs == 40
    assert got.mean_a == pytest.approx(a.mean())
    assert got.difference == pytest.approx((b - a).mean())
    assert got.interval[0] < got.difference < got.interval[1]
    assert got.interval[1] - got.interval[0] < 0.02
    # Unpaired, the spread between images would hide it.
    assert got.p_value < 0.001 < stats.ttest_ind(a, b).pvalue


def test_the_test_agrees_with_the_t_test_where_that_applies():
    generator = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.3, 0.6):
        a, noise = generator.normal(size=(2, 50))
        b = a + shift + noise
        assert paired_difference(a, b).p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)


def test_few_pairs_are_tested_exactly():
    # Of the 2^4 sign patterns, only all plus and all minus have a mean as extreme.
    a, b = np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4])
    assert paired_difference(a, b).p_value == pytest.approx(2 / 16)


def test_equal_models_do_not_differ():
    a = np.linspace(0, 1, 10)
    got = paired_difference(a, a)
    assert (got.difference, got.interval, got.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_images_where_either_is_undefined_are_left_out():
    got = paired_difference(np.array([1.0, math.nan, 3.0, 4.0]), np.array([2.0, 5.0, math.nan, 6.0]))
    assert (got.pairs, got.mean_a, got.mean_b, got.difference) == (2, 2.5, 4.0, 1.5)


@pytest.mark.parametrize(("a", "pairs"), [([math.nan, math.nan], 0), ([0.5, math.nan], 1)])
def test_fewer_than_two_pairs_have_neither_interval_nor_p_value(a, pairs):
    got = paired_difference(np.array(a), np.array([0.6, 0.7]))
    assert got.pairs == pairs
    assert math.isnan(got.p_value)
    assert math.isnan(got.interval[0])
    assert math.isnan(got.difference) == (pairs == 0)


def test_scores_and_intervals_need_no_scipy_and_the_test_says_how_to_get_it():
    program = (
        "import sys; sys.modules['scipy'] = sys.modules['torch'] = None\n"
        "import numpy as np, etnet.metrics.report, etnet.metrics.surface, etnet.metrics.clinical\n"
        "from etnet.errors import EnvironmentFault\n"
        "from etnet.metrics.statistics import paired_difference\n"
        "try:\n"
        "    paired_difference(np.zeros(3), np.ones(3))\n"
        "except EnvironmentFault as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'etnet[train]'" in result.stdout
