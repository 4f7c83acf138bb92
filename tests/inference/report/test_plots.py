from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from etnet.inference.report.plots import draw_histogram, histogram

CASES = {
    "two": np.array([0.1, 0.7]),
    "normal": np.random.default_rng(0).normal(5, 1, 1000),
    "negative": np.random.default_rng(1).normal(-700, 120, 300),
    "whole": np.random.default_rng(2).integers(3, 9, 500).astype(float),
    "outlier": np.append(np.random.default_rng(3).uniform(0, 1, 99), 1e6),
    "close": np.array([1e6, 1e6 + 1, 1e6 + 2]),
    "tiny": np.array([1e-7, 2e-7, 5e-7]),
    "many": np.random.default_rng(4).exponential(2, 100_000),
}


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_every_value_is_in_a_bin(values):
    bars = histogram(values)
    assert sum(bars.counts) == len(values)
    assert (np.diff(bars.edges) > 0).all()
    assert 1 <= len(bars.counts) <= 42
    for left, right, count in zip(bars.edges[:-1], bars.edges[1:], bars.counts, strict=True):
        inside = (values >= left) & ((values < right) if right < bars.edges[-1] else (values <= right))
        assert inside.sum() == count


def test_whole_numbers_have_no_empty_bins_between_them():
    bars = histogram(CASES["whole"])
    np.testing.assert_array_equal(bars.edges, np.arange(3, 9))
    # The last bin holds its right border too.
    counted = np.bincount(CASES["whole"].astype(int), minlength=9)[3:]
    assert bars.counts == [*counted[:4], counted[4] + counted[5]]


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_the_figure_is_well_formed_and_stays_inside_its_frame(values):
    figure = ET.fromstring(draw_histogram("disc_area_mm2", values))
    svg = figure.find("svg")
    assert svg is not None
    width, height = (float(side) for side in svg.attrib["viewBox"].split()[2:])
    bars = svg.findall("rect")
    assert bars
    for bar in bars:
        x, y, w, h = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + w <= width
        assert y >= 0
        assert y + h <= height
    assert all(0 <= float(text.attrib["x"]) <= width for text in svg.findall("text"))


def test_heights_of_bars_are_in_proportion_to_their_counts():
    figure = ET.fromstring(draw_histogram("size", np.array([0.0] * 2 + [5.0] * 6 + [10.0] * 4)))
    heights = [float(bar.attrib["height"]) for bar in figure.iter("rect")]
    assert np.array(heights) / heights[0] == pytest.approx([1, 3, 2], rel=0.02)


def test_the_median_line_lies_where_the_axis_says():
    figure = ET.fromstring(draw_histogram("size", np.linspace(0, 1, 101)))
    line = next(path for path in figure.iter("path") if path.get("class") == "median")
    middle = float(re.match(r"M([\d.]+)", line.attrib["d"])[1])
    named = {text.text: float(text.attrib["x"]) for text in figure.iter("text")}
    assert middle == pytest.approx((named["0.4"] + named["0.6"]) / 2, abs=0.2)


def test_axes_say_what_they_count_and_in_which_unit():
    texts = [text.text for text in ET.fromstring(draw_histogram("lung_volume_ml", CASES["normal"])).iter("text")]
    assert {"images", "ml", "0"} <= set(texts)


def test_readers_without_eyes_get_the_numbers_in_words():
    svg = ET.fromstring(draw_histogram("vertical_cup_to_disc_ratio", np.linspace(0, 1, 101))).find("svg")
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == (
        "Distribution of vertical cup-to-disc ratio: median 0.5; 90 % between 0.05 and 0.95; range 0 to 1; 101 images"
    )


def test_a_column_named_like_markup_is_text():
    figure = ET.fromstring(draw_histogram('a<b>"c"&', np.array([1.0, 2.0])))
    assert figure.find("figcaption").text == 'a<b>"c"&'


def test_each_of_few_images_has_its_own_mark_and_many_have_none():
    few, many = (draw_histogram("size", np.linspace(0, 1, number)) for number in (20, 2000))
    rug = next(path for path in ET.fromstring(few).iter("path") if path.get("class") == "rug")
    assert rug.attrib["d"].count("M") == 20
    assert "rug" not in many
