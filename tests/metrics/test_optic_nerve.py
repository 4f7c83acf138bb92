from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.metrics.optic_nerve import optic_nerve_measures, rim_widths
from etnet.metrics.scale import PIXELS, Scale, millimetres

SHAPE = (240, 280)


def ellipse(
    center: tuple[float, float], half_axes: tuple[float, float], scale: Scale = PIXELS, shape: tuple[int, int] = SHAPE
) -> np.ndarray:
    """Pixels whose middle lies in an upright ellipse; centre and half axes are (row, column) in the scale's unit."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    row, column = rows * scale.row - center[0], columns * scale.column - center[1]
    return (row / half_axes[0]) ** 2 + (column / half_axes[1]) ** 2 <= 1


def measured(disc: np.ndarray, cup: np.ndarray, **rules) -> dict[str, float]:
    return optic_nerve_measures(disc & ~cup, cup, **rules)


def test_ellipses_have_the_ratios_of_their_axes():
    disc, cup = ellipse((120, 140), (100, 80)), ellipse((120, 140), (60, 20))
    measures = measured(disc, cup)
    assert measures["optic_disc_vertical_diameter_px"] == 200
    assert measures["optic_disc_horizontal_diameter_px"] == 160
    assert measures["optic_cup_vertical_diameter_px"] == 120
    assert measures["optic_cup_horizontal_diameter_px"] == 40
    assert measures["vertical_cup_to_disc_ratio"] == 0.6
    assert measures["horizontal_cup_to_disc_ratio"] == 0.25
    assert measures["cup_to_disc_area_ratio"] == pytest.approx(0.6 * 0.25, rel=0.01)
    assert (measures["no_cup"], measures["cup_outside_disc"]) == (0, 0)


@pytest.mark.parametrize("scale", [PIXELS, millimetres(0.01, 0.01), millimetres(0.02, 0.01)], ids=str)
def test_concentric_circles_have_one_rim_width_also_with_pixels_that_are_not_square(scale):
    unit = 0.01 if scale.unit == "mm" else 1.0
    center = (120 * scale.row, 140 * scale.column)
    disc, cup = (ellipse(center, (radius * unit, radius * unit), scale) for radius in (100, 40))
    for width in rim_widths(disc, cup, scale).values():
        assert width == pytest.approx(60 * unit, rel=0.01)
    assert measured(disc, cup, scale=scale)[f"optic_disc_vertical_diameter_{scale.unit}"] == pytest.approx(
        200 * unit, rel=0.01
    )
    assert measured(disc, cup, scale=scale)["vertical_cup_to_disc_ratio"] == pytest.approx(0.4, rel=0.02)


def expected_width(radius: float, cup_radius: float, shift: float, toward: float) -> float:
    """Mean rim width of a quadrant around the direction `toward` when the cup's centre is `shift` to the right."""
    angles = np.deg2rad(toward + np.linspace(-45, 45, 20001))
    to_cup = shift * np.cos(angles) + np.sqrt(cup_radius**2 - (shift * np.sin(angles)) ** 2)
    return float(radius - to_cup.mean())


@pytest.mark.parametrize("eye", ["left", "right", None])
def test_a_cup_that_is_shifted_leaves_the_rim_of_the_formula_and_the_eye_tells_which_side_the_nose_is(eye):
    disc, cup = ellipse((120, 140), (100, 100)), ellipse((120, 165), (50, 50))
    widths = rim_widths(disc, cup, eye=eye)
    right, down, left = (expected_width(100, 50, 25, toward) for toward in (0, 90, 180))
    sides = {
        "right": {"nasal": right, "temporal": left},
        "left": {"nasal": left, "temporal": right},
        None: {"image_left": left, "image_right": right},
    }[eye]
    assert widths == pytest.approx({"inferior": down, "superior": down, **sides}, rel=0.01)
    assert list(widths) == ["inferior", "superior", *sides]


def test_inferior_is_down_and_superior_up():
    disc = ellipse((120, 140), (100, 100))
    low, high = (rim_widths(disc, ellipse((row, 140), (50, 50))) for row in (140, 100))
    thick, thin = (expected_width(100, 50, 20, toward) for toward in (180, 0))
    assert (low["superior"], low["inferior"]) == pytest.approx((thick, thin), rel=0.01)
    assert (high["superior"], high["inferior"]) == pytest.approx((thin, thick), rel=0.01)


def test_a_disc_at_the_border_of_the_image_is_measured_as_far_as_it_is_seen():
    disc, cup = (ellipse((5, 140), (half, half)) for half in (60, 30))
    measures = measured(disc, cup)
    assert measures["optic_disc_vertical_diameter_px"] == 65
    assert all(math.isfinite(value) for value in measures.values())


def test_where_the_disc_lies_and_how_large_the_image_is_does_not_matter():
    disc, cup = ellipse((120, 140), (60, 50)), ellipse((125, 150), (20, 25))
    moved = [np.pad(mask, ((300, 40), (20, 500))) for mask in (disc, cup)]
    assert measured(*moved) == pytest.approx(measured(disc, cup))


def test_a_disc_without_a_cup_is_all_rim_and_says_so():
    disc = ellipse((120, 140), (100, 100))
    measures = measured(disc, np.zeros(SHAPE, bool))
    assert (measures["no_cup"], measures["cup_outside_disc"]) == (1, 0)
    ratios = ("vertical_cup_to_disc_ratio", "horizontal_cup_to_disc_ratio", "cup_to_disc_area_ratio")
    assert [measures[name] for name in ratios] == [0, 0, 0]
    assert measures["rim_width_superior_px"] == pytest.approx(100, rel=0.01)


def test_without_disc_and_cup_ratios_and_widths_are_not_defined():
    nothing = np.zeros((9, 9), bool)
    measures = optic_nerve_measures(nothing, nothing)
    undefined = [name for name, value in measures.items() if math.isnan(value)]
    assert undefined == [name for name in measures if "ratio" in name or "rim" in name]
    assert len(undefined) == 7
    assert {value for value in measures.values() if not math.isnan(value)} == {0}


def test_a_cup_that_touches_no_rim_lies_outside_the_disc():
    disc, cup = ellipse((120, 90), (60, 60)), ellipse((120, 90), (30, 30))
    stray = ellipse((120, 220), (20, 20))
    assert measured(disc, cup | stray)["cup_outside_disc"] == 1
    assert measured(np.zeros(SHAPE, bool), stray)["cup_outside_disc"] == 1
    # A cup that reaches the border of the disc has rim beside it.
    assert measured(disc, ellipse((120, 70), (40, 40)) & disc)["cup_outside_disc"] == 0


@pytest.mark.parametrize(("stray", "flag"), [(5, 0), (11, 1)])
def test_one_hundredth_of_the_cup_may_stray(stray, flag):
    rim, cup = np.zeros((2, 60, 120), bool)
    rim[5:40, 5:45] = True
    cup[10:35, 10:50] = True
    rim &= ~cup
    cup[55, 60 : 60 + stray] = True
    assert optic_nerve_measures(rim, cup)["cup_outside_disc"] == flag
