from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.inference.report.figures import Figures, finite, summarize
from helpers.reports import row


def figures(*rows) -> Figures:
    collected = Figures()
    for one in rows:
        collected.add(one)
    return collected


def test_values_come_back_in_order_without_missing_ones():
    collected = figures(
        row("a", ratio=0.5), row("b", ratio=None), row("c", ratio=math.nan), row("d"), row("e", ratio=1 / 3)
    )
    np.testing.assert_array_equal(collected.values("ratio"), [0.5, 1 / 3])
    assert collected.images == 5


def test_a_column_that_is_never_a_number_is_no_column():
    assert figures(row("a", ratio=None, place="left")).columns() == []
    assert figures(row("a")).values("ratio").shape == (0,)


def test_uncertainty_stands_before_the_measurements():
    collected = figures(row("a", 0.5, cup_area_px=3.0, vertical_cup_to_disc_ratio=0.5), row("b", None))
    assert collected.columns() == ["uncertainty", "vertical_cup_to_disc_ratio", "cup_area_px"]
    np.testing.assert_array_equal(collected.values("uncertainty"), [0.5])


def test_only_columns_that_vary_are_plotted_and_the_others_are_said_once():
    collected = figures(row("a", size=7.0, area=1.5), row("b", size=7.0, area=2.5))
    assert collected.varying() == ["area"]
    assert collected.constant() == {"size": 7.0}


def test_a_difference_of_rounding_is_none():
    assert figures(row("a", size=1e6), row("b", size=1e6 + 1e-8)).varying() == []


def test_yes_and_no_are_counted_and_words_too():
    collected = figures(
        row("a", cup_outside_disc=1, cut_off_by="image"),
        row("b", cup_outside_disc=0, cut_off_by=""),
        row("c", cup_outside_disc=1, cut_off_by="region"),
        row("d", cup_outside_disc=0, cut_off_by="region"),
    )
    assert collected.counted() == [("cup_outside_disc", "", 2), ("cut_off_by", "region", 2), ("cut_off_by", "image", 1)]
    assert collected.varying() == []
    assert collected.constant() == {}


def test_an_empty_mask_everywhere_is_a_number_and_not_a_no():
    collected = figures(row("a", vessel_area_px=0), row("b", vessel_area_px=0))
    assert collected.constant() == {"vessel_area_px": 0.0}
    assert collected.counted() == []


def test_a_column_of_names_is_not_counted():
    assert figures(*(row(str(index), operator=f"person {index}") for index in range(40))).counted() == []


def test_a_flag_counts_once_per_image():
    collected = figures(row("a", None, "blurred", "blurred", "too_dark"), row("b", None, "blurred"), row("c"))
    assert collected.flags == {"blurred": 2, "too_dark": 1}
    assert collected.flagged == 2


@pytest.mark.parametrize(("cell", "number"), [(3, 3.0), (True, 1.0), ("3", None), (None, None), (math.inf, None)])
def test_cells_that_are_no_finite_number_have_none(cell, number):
    assert finite(cell) == number


def test_the_summary_of_a_uniform_ramp_is_known():
    summary = summarize(np.linspace(0, 100, 101))
    assert (summary.low, summary.fifth, summary.median, summary.ninety_fifth, summary.high) == (0, 5, 50, 95, 100)
    assert summary.count == 101
