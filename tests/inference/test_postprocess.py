from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from etnet.errors import UsageError
from etnet.inference.postprocess import PostprocessedPredictor, apply_rules
from etnet.inference.predictor import Predictor
from etnet.types import Contract, StructureRule
from helpers.backends import PixelBackend, contract, image_of

LUNGS = Contract(("background", "lung"), ((0, 0, 0), (52, 152, 219)), (0.0,) * 3, (1.0,) * 3)
FUNDUS = Contract(
    ("background", "optic_rim", "optic_cup"),
    ((0, 0, 0), (46, 204, 113), (52, 152, 219)),
    (0.0,) * 3,
    (1.0,) * 3,
    class_groups=(("optic_disc", (1, 2)),),
)
EIGHT = np.ones((3, 3), bool)


def drawn(text: str) -> np.ndarray:
    """Class indices as digits, with points for the background."""
    rows = text.replace(".", "0").split()
    return np.array([[int(pixel) for pixel in row] for row in rows], np.uint8)


def applied(text: str, *rules: StructureRule, to: Contract = FUNDUS) -> np.ndarray:
    return apply_rules(drawn(text), rules, to)


def lungs_and_specks() -> np.ndarray:
    """Two lungs of 2,000 and 1,500 pixels, and regions of 30 and 4."""
    labels = np.zeros((100, 120), np.uint8)
    labels[10:60, 10:50] = labels[10:60, 60:90] = labels[80:85, 20:26] = labels[90:92, 100:102] = 1
    return labels


@pytest.mark.parametrize(("kept", "area"), [(1, 2000), (2, 3500), (3, 3530), (4, 3534), (9, 3534)])
def test_the_largest_regions_stay(kept, area):
    labels = lungs_and_specks()
    found = apply_rules(labels, [StructureRule("lung", largest=kept)], LUNGS)
    assert np.count_nonzero(found) == area
    assert (found <= labels).all()


@pytest.mark.parametrize(("pixels", "area"), [(0, 3534), (4, 3534), (5, 3530), (30, 3530), (31, 3500), (2001, 0)])
def test_regions_of_at_least_the_smallest_area_stay(pixels, area):
    assert np.count_nonzero(apply_rules(lungs_and_specks(), [StructureRule("lung", min_area=pixels)], LUNGS)) == area


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 4))
def test_regions_are_those_of_scipy(seed, height, width, smallest, largest):
    labels = (np.random.default_rng(seed).random((height, width)) < 0.35).astype(np.uint8)
    regions, count = ndimage.label(labels, EIGHT)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    found = apply_rules(labels, [StructureRule("lung", min_area=smallest)], LUNGS)
    np.testing.assert_array_equal(found, np.isin(regions, 1 + np.flatnonzero(areas >= smallest)))
    found = apply_rules(labels, [StructureRule("lung", largest=largest)], LUNGS)
    kept = np.bincount(ndimage.label(found, EIGHT)[0].ravel())[1:]
    np.testing.assert_array_equal(np.sort(kept), np.sort(areas)[::-1][:largest][::-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(0.3, 0.9))
def test_holes_are_those_of_scipy(seed, height, width, share):
    labels = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    found = apply_rules(labels, [StructureRule("lung", fill_holes=True)], LUNGS)
    np.testing.assert_array_equal(found, ndimage.binary_fill_holes(labels))


def test_of_equal_regions_the_upper_then_the_left_one_stays():
    found = applied("1...1 ..... 1...1", StructureRule("optic_rim", largest=1))
    np.testing.assert_array_equal(found, drawn("1.... ..... ....."))


def test_a_ring_becomes_a_disc_of_known_area():
    labels = np.zeros((101, 101), np.uint8)
    cv2.circle(labels, (50, 50), 40, 1, -1)
    disc = labels.copy()
    cv2.circle(labels, (50, 50), 25, 0, -1)
    found = apply_rules(labels, [StructureRule("lung", fill_holes=True)], LUNGS)
    np.testing.assert_array_equal(found, disc)


def test_a_bay_that_opens_to_the_border_is_no_hole():
    open_to_the_border = "111 1.1 1.1"
    found = applied(open_to_the_border, StructureRule("lung", fill_holes=True), to=LUNGS)
    np.testing.assert_array_equal(found, drawn(open_to_the_border))


def test_the_cup_is_no_hole_of_the_rim():
    fundus = "11111 12221 12221 11111"
    np.testing.assert_array_equal(applied(fundus, StructureRule("optic_rim", fill_holes=True)), drawn(fundus))


def test_a_hole_of_a_group_becomes_the_class_that_surrounds_it():
    found = applied(
        """
        11111111
        1.111221
        111112.2
        11111221
        11111111
        """,
        StructureRule("optic_disc", fill_holes=True),
    )
    expected = """
        11111111
        11111221
        11111222
        11111221
        11111111
        """
    np.testing.assert_array_equal(found, drawn(expected))


def test_a_hole_between_two_classes_belongs_to_their_group_alone():
    fundus = "1122 1..2 1122"
    for name in ("optic_rim", "optic_cup"):
        np.testing.assert_array_equal(applied(fundus, StructureRule(name, fill_holes=True)), drawn(fundus))
    found = applied(fundus, StructureRule("optic_disc", fill_holes=True))
    assert (found > 0).all()


def test_a_stray_cup_becomes_what_lies_around_it():
    found = applied(
        """
        ..........
        .1111111..
        .1221121..
        .1221111.2
        .1111111..
        """,
        StructureRule("optic_cup", largest=1),
    )
    expected = """
        ..........
        .1111111..
        .1221111..
        .1221111..
        .1111111..
        """
    np.testing.assert_array_equal(found, drawn(expected))


def test_a_stray_disc_goes_with_its_rim_and_its_cup():
    found = applied("111.11 121.12 111.11", StructureRule("optic_disc", largest=1))
    np.testing.assert_array_equal(found, drawn("111... 121... 111..."))


def test_rules_are_applied_in_their_order_and_regions_go_before_holes():
    # An island in a hole goes, and then the hole is whole and filled.
    island = "11111 1...1 1.1.1 1...1 11111"
    found = applied(island, StructureRule("lung", largest=1, fill_holes=True), to=LUNGS)
    assert (found == 1).all()
    fundus = "222.. 2.2.1 222.."
    cup, disc = StructureRule("optic_cup", min_area=9), StructureRule("optic_disc", fill_holes=True)
    assert np.count_nonzero(applied(fundus, cup, disc) == 2) == 0
    assert np.count_nonzero(applied(fundus, disc, cup) == 2) == 9


@pytest.mark.parametrize("text", ["...", "111", "."])
@pytest.mark.parametrize(
    "rule",
    [StructureRule("lung", largest=1), StructureRule("lung", min_area=2), StructureRule("lung", fill_holes=True)],
)
def test_a_mask_of_one_class_stays_as_it_is(text, rule):
    np.testing.assert_array_equal(applied(text, rule, to=LUNGS), drawn(text))


def test_a_mask_that_is_one_region_too_small_becomes_background():
    np.testing.assert_array_equal(applied("11 11", StructureRule("lung", min_area=5), to=LUNGS), drawn(".. .."))


def test_the_given_labels_stay_as_they_are_and_a_view_will_do():
    labels = lungs_and_specks()
    before = labels.copy()
    view = labels[::-1, ::2]
    found = apply_rules(view, [StructureRule("lung", largest=1)], LUNGS)
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(found, apply_rules(view.copy(), [StructureRule("lung", largest=1)], LUNGS))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (StructureRule("liver", largest=1), "no structure 'liver'; expected one of optic_rim, optic_cup, optic_disc"),
        (StructureRule("background", largest=1), "no structure 'background'"),
        (StructureRule("optic_rim", largest=0), "at least 1"),
        (StructureRule("optic_rim", min_area=-1), "0 or more"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused_before_an_image_is_seen(rule, words):
    with pytest.raises(UsageError, match=words):
        applied("1", rule)
    network = Predictor(PixelBackend(), FUNDUS)
    with pytest.raises(UsageError, match=words):
        PostprocessedPredictor(network, [rule])


def test_a_predictor_changes_labels_alone():
    labels = drawn("1111... 1..1..1 1111...")
    network = Predictor(PixelBackend(), contract())
    plain = network.predict(image_of(labels))
    changed = PostprocessedPredictor(network, [StructureRule("vessel", largest=1, fill_holes=True)]).predict(
        image_of(labels)
    )
    np.testing.assert_array_equal(changed.labels, drawn("1111... 1111... 1111..."))
    np.testing.assert_array_equal(changed.probabilities, plain.probabilities)
    np.testing.assert_array_equal(changed.edges, plain.edges)
