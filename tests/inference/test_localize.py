from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from etnet.errors import DataError, UsageError
from etnet.inference.localize import LocalizationFailed, LocalizationRule, find_center, structure_classes
from etnet.types import RegionOfInterest
from helpers.bundles import draw_disc, localizer_contract, segmenter_contract

RULE = LocalizationRule("optic_disc")
WIDE = RegionOfInterest(side=1.0, size=32)


def center_of(labels: np.ndarray, rule: LocalizationRule = RULE, **options) -> tuple[float, float]:
    return find_center((labels > 0).astype(np.uint8), localizer_contract(), rule, **options)


@settings(max_examples=50, deadline=None)
@given(row=st.floats(20, 80), column=st.floats(20, 100), radius=st.floats(6, 15))
def test_the_centre_of_a_disc_is_found_to_a_fraction_of_a_pixel(row, column, radius):
    assert center_of(draw_disc((100, 120), (row, column), radius)) == pytest.approx((row, column), abs=0.4)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_centre_is_that_of_the_largest_region_as_scipy_finds_it(seed):
    noise = np.random.default_rng(seed).random((40, 50)) < 0.1
    noise[10:25, 20:33] = True
    regions, count = ndimage.label(noise, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(noise, regions, np.arange(1, count + 1))
    expected = np.add(ndimage.center_of_mass(regions == sizes.argmax() + 1), 0.5)
    assert center_of(noise) == pytest.approx(expected)


def test_small_islands_do_not_move_the_centre():
    labels = draw_disc((100, 120), (50, 60), 12)
    alone = center_of(labels)
    labels[5:9, 5:9] = 1
    labels[80, 100:118] = 1
    assert center_of(labels) == alone


def test_a_group_of_classes_is_one_structure():
    labels = draw_disc((100, 120), (41, 70), 12)
    contract = segmenter_contract(WIDE)
    assert find_center(labels, contract, RULE) == pytest.approx((41, 70), abs=0.1)
    assert structure_classes(contract, "optic_disc") == (1, 2)
    assert structure_classes(contract, "optic_cup") == (2,)


@pytest.mark.parametrize("name", ["macula", "background", ""])
def test_a_structure_that_the_localizer_does_not_know_is_refused_with_those_it_does(name):
    with pytest.raises(UsageError, match="expected one of optic_rim, optic_cup, optic_disc"):
        structure_classes(segmenter_contract(WIDE), name)


def test_an_image_without_the_structure_fails_and_is_not_guessed():
    with pytest.raises(LocalizationFailed, match=r"the optic disc was not localized: no pixel"):
        center_of(np.zeros((50, 60), np.uint8))
    assert issubclass(LocalizationFailed, DataError)


def test_a_region_that_is_too_small_fails_with_both_figures():
    labels = np.zeros((100, 100), np.uint8)
    labels[50:54, 50:54] = 1
    with pytest.raises(LocalizationFailed, match=r"covers 0\.16% of the image, less than the 0\.20% .*--min-area"):
        center_of(labels)
    assert center_of(labels, LocalizationRule("optic_disc", 0.0016)) == (52.0, 52.0)


def test_two_regions_of_similar_size_that_lie_apart_fail_with_their_places():
    labels = draw_disc((100, 200), (50, 40), 12) + draw_disc((100, 200), (60, 150), 11)
    with pytest.raises(LocalizationFailed, match=r"two regions .*row 50, column 40 and row 60, column 150"):
        center_of(labels)


def test_a_second_region_of_less_than_half_the_area_is_passed_over():
    labels = draw_disc((100, 200), (50, 40), 12) + draw_disc((100, 200), (60, 150), 8)
    assert center_of(labels) == pytest.approx((50, 40), abs=0.2)


def test_a_disc_that_a_vessel_divides_is_no_ambiguity():
    labels = draw_disc((100, 120), (50, 60), 12)
    labels[:, 59:61] = 0
    # The larger half is taken; its centre lies within the disc.
    row, column = center_of(labels)
    assert row == pytest.approx(50, abs=0.5)
    assert abs(column - 60) < 12


def test_a_region_larger_than_the_region_of_interest_fails():
    roi = RegionOfInterest(side=0.2, size=32)
    labels = draw_disc((100, 100), (50, 50), 13)
    with pytest.raises(LocalizationFailed, match=r"it would cover 5\.\d+% of the image, more than .*\(4\.00%\)"):
        center_of(labels, roi=roi)
    assert center_of(draw_disc((100, 100), (50, 50), 10), roi=roi) == pytest.approx((50, 50), abs=0.1)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_smallest_area_that_is_no_share_is_refused(share):
    with pytest.raises(UsageError, match="smallest area"):
        LocalizationRule("optic_disc", share)
