from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.metrics.scale import PIXELS, millimetres
from etnet.metrics.skeleton import CenterLine, thin, trace
from etnet.metrics.vessels import SHORTEST_SEGMENT, box_counting_dimension, tortuosity, vessel_measures


def near(shape: tuple[int, int], points: np.ndarray, width: float = 5) -> np.ndarray:
    """Pixels within half a width of a dense line of (row, column) points."""
    mask = np.zeros(shape, bool)
    reach = np.arange(-math.ceil(width / 2), math.ceil(width / 2) + 1)
    rows, columns = np.meshgrid(reach, reach, indexing="ij")
    inside = np.hypot(rows, columns) <= width / 2
    for row, column in np.rint(points).astype(int):
        mask[row + rows[inside], column + columns[inside]] = True
    return mask


def straight(start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    return np.linspace(start, end, 1000)


def arc(radius: float, angle: float, center: tuple[float, float]) -> np.ndarray:
    turned = np.linspace(0, angle, 2000)
    return np.stack([center[0] - radius * np.sin(turned), center[1] + radius * np.cos(turned)], axis=1)


def sierpinski_carpet(level: int) -> np.ndarray:
    carpet = np.ones((1, 1), bool)
    for _ in range(level):
        carpet = np.kron(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool), carpet)
    return carpet


def sierpinski_triangle(level: int) -> np.ndarray:
    """Pascal's triangle modulo 2: row and column without a common bit."""
    numbers = np.arange(2**level)
    return (numbers[:, None] & numbers) == 0


def test_the_triangle_of_sierpinski_has_the_dimension_log_3_over_log_2():
    assert box_counting_dimension(sierpinski_triangle(8)) == pytest.approx(math.log(3) / math.log(2), rel=1e-9)


def test_the_carpet_of_sierpinski_has_about_the_dimension_log_8_over_log_3():
    # Boxes of powers of two do not fit a pattern of thirds.
    assert box_counting_dimension(sierpinski_carpet(5)) == pytest.approx(math.log(8) / math.log(3), abs=0.05)


@pytest.mark.parametrize("side", [32, 64, 256])
def test_a_line_has_dimension_one_and_a_square_two_wherever_they_lie(side):
    for row, column in ((0, 0), (3, 5)):
        mask = np.zeros((300, 300), bool)
        mask[row : row + side, column : column + side] = True
        assert box_counting_dimension(mask) == pytest.approx(2)
        assert box_counting_dimension(mask & np.eye(300, k=column - row, dtype=bool)) == pytest.approx(1)
        mask[row + 1 :] = False
        assert box_counting_dimension(mask) == pytest.approx(1)
        assert box_counting_dimension(mask.T) == pytest.approx(1)


def test_too_small_a_structure_has_no_dimension():
    mask = np.zeros((50, 50), bool)
    assert math.isnan(box_counting_dimension(mask))
    mask[:31, :31] = True
    assert math.isnan(box_counting_dimension(mask))
    mask[:32, :31] = True
    assert box_counting_dimension(mask) > 1.5


@pytest.mark.parametrize("end", [(20, 180), (100, 180), (180, 180), (180, 60), (180, 20)])
def test_straight_vessels_have_tortuosity_one_at_any_angle(end):
    graph = trace(thin(near((200, 200), straight((20, 20), end))))
    assert tortuosity(graph.lines) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("angle", [math.pi / 2, math.pi, 3 * math.pi / 2])
def test_an_arc_of_a_circle_has_the_tortuosity_of_the_formula(angle):
    graph = trace(thin(near((200, 200), arc(70, angle, (100, 100)))))
    # The ends of a vessel are rounded by thinning, which shortens arc and chord.
    assert tortuosity(graph.lines) == pytest.approx(angle / (2 * math.sin(angle / 2)), rel=0.03)


def test_tortuosity_is_the_mean_over_pieces_weighted_by_their_length():
    flat = CenterLine(np.stack([np.zeros(101, int), np.arange(101)], axis=1))
    corner = CenterLine(np.concatenate([flat.points[:41], flat.points[:41, ::-1] + (0, 40)])[:81])
    ratio = corner.length(PIXELS) / corner.chord(PIXELS)
    assert ratio == pytest.approx(math.sqrt(2), rel=0.02)
    weights = (100, corner.length(PIXELS))
    expected = (100 + weights[1] * ratio) / sum(weights)
    assert tortuosity([flat, corner]) == pytest.approx(expected)


def test_short_pieces_and_rings_have_no_tortuosity():
    points = np.stack([np.zeros(SHORTEST_SEGMENT, int), np.arange(SHORTEST_SEGMENT)], axis=1)
    assert tortuosity([CenterLine(points)]) == 1
    assert math.isnan(tortuosity([CenterLine(points[1:])]))
    assert math.isnan(tortuosity([CenterLine(np.concatenate([points, points[::-1]]))]))


@pytest.mark.parametrize("scale", [PIXELS, millimetres(0.02, 0.02)], ids=str)
def test_a_tree_of_three_straight_vessels_has_the_values_of_its_drawing(scale):
    shape = (240, 240)
    center = (120.0, 120.0)
    ends = ((20.0, 120.0), (200.0, 40.0), (200.0, 200.0))
    mask = np.any([near(shape, straight(center, end)) for end in ends], axis=0)
    measures = vessel_measures(mask, scale=scale)
    length = sum(math.dist(center, end) for end in ends)
    assert list(measures) == [
        "vessel_density_in_image",
        f"vessel_skeleton_length_{scale.unit}",
        "vessel_branch_points",
        "vessel_fractal_dimension",
        "vessel_tortuosity",
    ]
    assert measures["vessel_density_in_image"] == mask.mean()
    assert measures[f"vessel_skeleton_length_{scale.unit}"] == pytest.approx(length * scale.row, rel=0.02)
    assert measures["vessel_branch_points"] == 1
    assert measures["vessel_tortuosity"] == pytest.approx(1, abs=0.01)
    assert measures["vessel_fractal_dimension"] == pytest.approx(1, abs=0.1)


def test_vessels_outside_the_field_of_view_do_not_count():
    mask = near((200, 200), straight((30, 30), (30, 170))) | near((200, 200), straight((150, 30), (150, 170)))
    upper = np.zeros((200, 200), bool)
    upper[:100] = True
    inside = vessel_measures(mask, field_of_view=upper)
    assert inside["vessel_density_in_field_of_view"] == mask[:100].mean()
    assert inside["vessel_skeleton_length_px"] == pytest.approx(140, rel=0.02)
    assert vessel_measures(mask)["vessel_skeleton_length_px"] == pytest.approx(280, rel=0.02)


def test_an_image_without_vessels_has_no_length_and_nothing_that_needs_one():
    measures = vessel_measures(np.zeros((40, 50), bool), field_of_view=np.zeros((40, 50), bool))
    values = list(measures.values())
    assert values[1:3] == [0, 0]
    assert all(map(math.isnan, [values[0], *values[3:]]))
    assert vessel_measures(np.zeros((40, 50), bool))["vessel_density_in_image"] == 0


def test_a_skeleton_of_noise_is_not_followed(monkeypatch):
    noise = np.random.default_rng(0).random((60, 60)) > 0.5
    monkeypatch.setattr("etnet.metrics.vessels.MOST_TRACED", np.count_nonzero(thin(noise)) - 1)
    measures = vessel_measures(noise)
    undefined = [name for name, value in measures.items() if math.isnan(value)]
    assert undefined == ["vessel_skeleton_length_px", "vessel_branch_points", "vessel_tortuosity"]
