from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from skimage.measure import perimeter_crofton, regionprops
from skimage.morphology import convex_hull_image

from etnet.metrics.scale import PIXELS, Scale, millimetres
from etnet.metrics.shape import perimeter, shape_measures, solidity


def circle(radius: float, scale: Scale = PIXELS) -> np.ndarray:
    """A disc of a radius in the scale's unit, around the middle of the image."""
    height, width = (2 * math.ceil(radius / step) + 7 for step in (scale.row, scale.column))
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.hypot((rows - height / 2) * scale.row, (columns - width / 2) * scale.column) <= radius


def random_mask(seed: int) -> np.ndarray:
    """Blobs with holes, several pieces and pieces at the border."""
    generator = np.random.default_rng(seed)
    noise = generator.random(generator.integers(4, 70, 2)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 1 + seed % 3)
    return blurred >= np.median(blurred)


@pytest.mark.parametrize("seed", range(30))
def test_values_are_those_of_scikit_image_where_it_defines_the_same(seed):
    mask = random_mask(seed)
    region = regionprops(mask.astype(np.uint8))[0]
    measures = shape_measures(mask)
    assert measures["area_px"] == region.area
    assert measures["perimeter_px"] == pytest.approx(region.perimeter_crofton, rel=1e-12)
    assert measures["equivalent_diameter_px"] == pytest.approx(region.equivalent_diameter_area, rel=1e-12)
    # Its middle of the first pixel is at 0.
    assert measures["centroid_row_px"] == pytest.approx(region.centroid[0] + 0.5)
    assert measures["centroid_column_px"] == pytest.approx(region.centroid[1] + 0.5)
    top, left, bottom, right = region.bbox
    box = [measures[f"box_{name}_px"] for name in ("top", "left", "height", "width")]
    assert box == [top, left, bottom - top, right - left]


@pytest.mark.parametrize("seed", range(30))
def test_solidity_counts_the_pixels_in_the_convex_hull_of_the_middles(seed):
    mask = random_mask(seed)
    hull = convex_hull_image(mask, offset_coordinates=False)
    assert solidity(mask) == pytest.approx(mask.sum() / hull.sum(), rel=1e-12)


def test_a_rectangle_has_the_values_of_the_formulas():
    mask = np.zeros((20, 30), bool)
    mask[3:11, 5:21] = True
    measures = shape_measures(mask)
    assert measures == {
        "area_px": 128,
        # 2 crossings on each of 8 rows, 16 columns and 2 x 23 diagonals, whose lines are 1/sqrt(2) apart.
        "perimeter_px": pytest.approx(math.pi / 8 * (2 * 8 + 2 * 16 + 4 * 23 / math.sqrt(2))),
        "equivalent_diameter_px": pytest.approx(2 * math.sqrt(128 / math.pi)),
        "solidity": 1.0,
        "centroid_row_px": 7.0,
        "centroid_column_px": 13.0,
        "box_top_px": 3,
        "box_left_px": 5,
        "box_height_px": 8,
        "box_width_px": 16,
    }
    assert [type(measures[name]) for name in ("area_px", "box_top_px", "box_width_px")] == [int] * 3


@pytest.mark.parametrize("radius", [10, 25.5, 80])
@pytest.mark.parametrize(
    "scale", [PIXELS, millimetres(0.5, 0.5), millimetres(1.0, 0.5), millimetres(0.4, 1.3)], ids=str
)
def test_a_circle_has_its_circumference_area_and_diameter_also_with_pixels_that_are_not_square(radius, scale):
    measures = shape_measures(circle(radius, scale), scale)
    suffix = scale.unit
    # A small circle is a coarse polygon, and four directions are few for pixels of 1 by 3.25.
    stretched = max(scale.row, scale.column) > 2 * min(scale.row, scale.column)
    tolerance = 0.04 if radius == 10 or stretched else 0.01
    assert measures[f"perimeter_{suffix}"] == pytest.approx(2 * math.pi * radius, rel=tolerance)
    assert measures[f"area_{scale.area_unit}"] == pytest.approx(math.pi * radius**2, rel=0.02)
    assert measures[f"equivalent_diameter_{suffix}"] == pytest.approx(2 * radius, rel=0.01)
    assert measures["solidity"] == 1.0


def test_twice_the_spacing_is_twice_the_length_and_four_times_the_area_and_moves_nothing():
    mask = random_mask(3)
    small, large = (shape_measures(mask, millimetres(size, size)) for size in (0.3, 0.6))
    for name, factor in {"area_mm2": 4, "perimeter_mm": 2, "equivalent_diameter_mm": 2}.items():
        assert large[name] == pytest.approx(factor * small[name])
    unchanged = [name for name in small if name.endswith("_px") or name == "solidity"]
    assert len(unchanged) == 7
    assert [large[name] for name in unchanged] == [small[name] for name in unchanged]


def test_the_borders_of_a_hole_belong_to_the_perimeter_and_the_hole_to_the_hull():
    ring = circle(30) & ~np.pad(circle(15), 15)
    assert perimeter(ring) == pytest.approx(2 * math.pi * 45, rel=0.02)
    assert solidity(ring) == pytest.approx(0.75, rel=0.02)


def test_a_structure_at_the_border_of_the_image_ends_there():
    assert perimeter(np.ones((6, 9), bool)) == perimeter(np.pad(np.ones((6, 9), bool), 5))


@pytest.mark.parametrize("pixels", [[(2, 2)], [(2, 1), (2, 2), (2, 3)], [(1, 1), (2, 2), (3, 3)], [(0, 0), (3, 4)]])
def test_points_and_lines_have_a_hull_too(pixels):
    mask = np.zeros((5, 6), bool)
    mask[tuple(np.transpose(pixels))] = True
    assert solidity(mask) == 1.0


def test_an_empty_mask_has_no_size_and_no_place():
    measures = shape_measures(np.zeros((5, 6), bool))
    assert [measures[name] for name in ("area_px", "perimeter_px", "equivalent_diameter_px")] == [0, 0, 0]
    assert all(math.isnan(value) for value in list(measures.values())[3:])
    assert list(measures) == list(shape_measures(np.ones((5, 6), bool)))


def test_the_reference_of_the_perimeter_is_the_one_with_four_directions():
    mask = random_mask(1)
    assert perimeter(mask) == pytest.approx(perimeter_crofton(mask, directions=4))
