from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import thin as reference_thin

from etnet.data.synthetic import draw_fundus
from etnet.metrics.scale import PIXELS, Scale, millimetres
from etnet.metrics.skeleton import CenterLine, thin, trace


def drawn(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def vessels(seed: int) -> np.ndarray:
    return draw_fundus(size=160, generator=np.random.default_rng(seed)).mask == 1


def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((60, 80)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 1 + seed % 3) > 0.5


def line_length(points: np.ndarray, scale: Scale = PIXELS) -> float:
    return CenterLine(np.rint(points).astype(np.int64)).length(scale)


@pytest.mark.parametrize("mask", [*map(vessels, range(3)), *map(blobs, range(12))])
def test_centre_lines_are_those_of_scikit_image(mask):
    np.testing.assert_array_equal(thin(mask), reference_thin(mask))


@pytest.mark.parametrize("mask", [*map(vessels, range(3)), *map(blobs, range(12))])
def test_thinning_neither_joins_nor_breaks_nor_loses_a_piece(mask):
    skeleton = thin(mask)
    square = np.ones((3, 3))
    assert not (skeleton & ~mask).any()
    assert ndimage.label(skeleton, square)[1] == ndimage.label(mask, square)[1]
    assert ndimage.label(~np.pad(skeleton, 1))[1] == ndimage.label(~np.pad(mask, 1))[1]


def test_a_bar_becomes_the_line_in_its_middle():
    bar = np.zeros((20, 60), bool)
    bar[8:13, 5:55] = True
    rows, columns = np.nonzero(thin(bar))
    assert set(rows) == {10}
    assert columns.min() - 5 == pytest.approx(54 - columns.max(), abs=1)


def test_an_empty_and_a_full_mask_are_thinned():
    assert not thin(np.zeros((4, 5), bool)).any()
    assert thin(np.ones((9, 9), bool)).sum() == 1
    assert trace(thin(np.zeros((4, 5), bool))).lines == ()


@pytest.mark.parametrize(
    ("skeleton", "lines", "branch_points"),
    [
        (drawn("#####"), 1, 0),
        (drawn("#...", ".#..", "..#.", "...#"), 1, 0),
        # A staircase has no branch: its diagonal neighbours are linked around the corner.
        (drawn("##...", ".##..", "..##."), 1, 0),
        (drawn("#####", "..#..", "..#.."), 3, 1),
        (drawn("..#..", "..#..", "#####", "..#..", "..#.."), 4, 1),
        (drawn("#...#", ".#.#.", "..#..", ".#.#.", "#...#"), 4, 1),
        (drawn("#...#", ".#.#.", "..#..", "..#..", "..#.."), 3, 1),
        # Two branch points that touch are one place; the short line between them is one of the five.
        (drawn("..#....", "..#....", "#######", "...#...", "...#..."), 5, 1),
        (drawn("..#....", "..#....", "#######", ".....#.", ".....#."), 5, 2),
        # A ring, with and without a tail.
        (drawn(".###.", "#...#", "#...#", ".###."), 1, 0),
        (drawn(".###....", "#...####", "#...#...", ".###...."), 2, 1),
        (drawn("#..", "...", "..#"), 0, 0),
    ],
)
def test_lines_run_from_branch_point_to_branch_point(skeleton, lines, branch_points):
    graph = trace(skeleton)
    assert (len(graph.lines), graph.branch_points) == (lines, branch_points)
    covered = {tuple(point) for line in graph.lines for point in line.points}
    assert covered == ({tuple(point) for point in np.argwhere(skeleton)} if lines else set())


def test_every_link_of_a_vessel_tree_is_on_exactly_one_line():
    skeleton = thin(vessels(1))
    steps = [
        frozenset((tuple(one), tuple(other)))
        for line in trace(skeleton).lines
        for one, other in zip(line.points[:-1].tolist(), line.points[1:].tolist(), strict=True)
    ]
    assert len(set(steps)) == len(steps)
    upright = np.count_nonzero(skeleton[1:] & skeleton[:-1]) + np.count_nonzero(skeleton[:, 1:] & skeleton[:, :-1])
    squares = [skeleton[:-1, :-1], skeleton[:-1, 1:], skeleton[1:, :-1], skeleton[1:, 1:]]
    a, b, c, d = squares
    diagonal = np.count_nonzero(a & d & ~b & ~c) + np.count_nonzero(b & c & ~a & ~d)
    assert len(steps) == upright + diagonal


@pytest.mark.parametrize("angle", range(0, 91, 5))
def test_a_straight_line_is_as_long_at_any_angle(angle):
    distances = np.arange(200)
    # One pixel per column up to 45 degrees, then one per row, as thinning leaves it.
    stride = 1 / max(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    points = np.outer(distances * stride, (math.sin(math.radians(angle)), math.cos(math.radians(angle))))
    assert line_length(points) == pytest.approx(199 * stride, rel=0.01)


@pytest.mark.parametrize("scale", [PIXELS, millimetres(0.5, 0.5), millimetres(1.0, 0.5)], ids=str)
def test_a_circle_drawn_and_thinned_has_its_circumference(scale):
    height, width = (round(2 * 40 / step) + 21 for step in (scale.row, scale.column))
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot((rows - height // 2) * scale.row, (columns - width // 2) * scale.column)
    (ring,) = trace(thin(abs(distance - 40) < 2)).lines
    assert ring.is_closed
    assert ring.length(scale) == pytest.approx(2 * math.pi * 40, rel=0.02)
    assert ring.chord(scale) == 0


def test_a_small_ring_is_not_measured_as_a_line_there_and_back():
    (ring,) = trace(drawn(".#.", "#.#", ".#.")).lines
    assert ring.length(PIXELS) == pytest.approx(4 * math.sqrt(2), rel=0.2)


def test_lengths_are_in_the_unit_of_the_scale():
    line = np.stack([np.zeros(101), np.arange(101)], axis=1)
    assert line_length(line) == 100
    assert line_length(line, millimetres(7, 0.25)) == 25
    assert line_length(line[:, ::-1], millimetres(7, 0.25)) == 700
