from __future__ import annotations

import numpy as np
import pytest

from etnet.errors import UsageError
from etnet.inference.decision import MostProbable, Threshold, decision_for


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_most_probable_class_is_that_of_argmax_also_among_equals(classes):
    # Few values, so that many pixels have several most probable classes.
    maps = np.random.default_rng(classes).integers(0, 3, (classes, 40, 50)).astype(np.float32)
    labels = MostProbable().labels(maps)
    np.testing.assert_array_equal(labels, maps.argmax(0))
    assert labels.dtype == np.uint8


def test_a_threshold_takes_every_pixel_from_its_probability_on():
    foreground = np.array([[0.1, 0.29, 0.3, 0.9]], np.float32)
    labels = Threshold(0.3).labels(np.stack([1 - foreground, foreground]))
    np.testing.assert_array_equal(labels, [[0, 0, 1, 1]])
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(value):
    with pytest.raises(UsageError, match="between 0 and 1"):
        decision_for(value, 2)


def test_a_threshold_for_three_classes_is_refused():
    with pytest.raises(UsageError, match="knows 3"):
        decision_for(0.5, 3)
