from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from etnet.data.edges import edge_map
from etnet.inference.uncertainty import boundary_uncertainty, pixels_per_network_pixel
from etnet.types import Prediction, RegionOfInterest
from helpers.backends import contract

CONTRACT = contract(2)


def square(start: int = 20, stop: int = 60, *, size: int = 80) -> np.ndarray:
    labels = np.zeros((size, size), np.uint8)
    labels[start:stop, start:stop] = 1
    return labels


def edges_of(labels: np.ndarray, *, probability: float = 1.0, width: int = 3) -> np.ndarray:
    return (edge_map(labels, width=width) * np.float64(255 * probability)).round().astype(np.uint8)


def score_of(labels: np.ndarray, edges: np.ndarray, rule=CONTRACT) -> float:
    found = boundary_uncertainty(Prediction(labels, None, edges), rule)
    assert found is not None
    return found.score


def by_definition(labels: np.ndarray, edges: np.ndarray, *, width: int) -> tuple[np.ndarray, float]:
    """The formulas of the docstring in floating point with SciPy's morphology; N(x) is OpenCV's ellipse, row by row."""
    probability = np.where(edges / 255 < 0.1, 0, edges / 255)
    radius = width // 2
    offset = np.abs(np.arange(-radius, radius + 1))
    disc = offset[None, :] <= np.rint(np.sqrt(radius**2 - offset**2))[:, None]
    band = edge_map(labels, width=width) > 0
    around = ndimage.binary_dilation(band, disc)
    confirmed = ndimage.grey_dilation(probability, footprint=disc, mode="constant")
    u = np.where(band, 1 - confirmed, np.where(around, 0, probability))
    weight = np.where(band, 1.0, np.where(around, 0, probability))
    return u, float((weight * u).sum() / weight.sum())


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_map_and_score_are_those_of_the_definition(width):
    generator = np.random.default_rng(width)
    labels = (ndimage.gaussian_filter(generator.normal(size=(90, 70)), 6) > 0).astype(np.uint8)
    edges = generator.integers(0, 256, labels.shape, dtype=np.uint8)
    found = boundary_uncertainty(Prediction(labels, None, edges), replace(CONTRACT, edge_width=width))
    expected, score = by_definition(labels, edges, width=width)
    assert found is not None
    assert found.map.dtype == np.float32
    np.testing.assert_allclose(found.map, expected, atol=1e-6)
    assert found.score == pytest.approx(score, abs=1e-9)


def test_edges_on_the_border_of_the_mask_leave_no_doubt():
    labels = square()
    found = boundary_uncertainty(Prediction(labels, None, edges_of(labels)), CONTRACT)
    assert found is not None
    assert found.score == 0
    assert not found.map.any()


def test_a_border_that_is_one_pixel_off_is_the_same_border():
    labels, moved = np.zeros((2, 60, 80), np.uint8)
    labels[:, 40:] = 1
    moved[:, 41:] = 1
    assert score_of(labels, edges_of(moved)) == 0


def test_the_further_off_the_edges_the_less_certain():
    scores = [score_of(square(), edges_of(square(20 - shift, 60 + shift))) for shift in (0, 2, 3, 4, 8)]
    assert scores == sorted(scores)
    assert scores[0] == 0
    assert scores[-1] == 1


@pytest.mark.parametrize("probability", [0.2, 0.6, 0.8])
def test_the_score_of_edges_in_place_is_what_their_probability_lacks_to_one(probability):
    assert score_of(square(), edges_of(square(), probability=probability)) == pytest.approx(1 - probability, abs=0.002)


def test_half_a_border_confirmed_gives_half_of_the_doubt_on_the_other_half():
    labels = square()
    edges = edges_of(labels)
    edges[:, 40:] = 0
    found = boundary_uncertainty(Prediction(labels, None, edges), CONTRACT)
    assert found is not None
    assert found.score == pytest.approx(0.5, abs=0.02)
    assert not found.map[:, :40].any()
    assert found.map[30, 59] == 1


def test_an_empty_mask_without_edges_is_certain_and_with_strong_edges_is_not():
    empty = np.zeros((80, 80), np.uint8)
    assert score_of(empty, np.zeros_like(empty)) == 0
    assert score_of(empty, edges_of(square())) == 1
    assert score_of(empty, edges_of(square(), probability=0.4)) == pytest.approx(0.4, abs=0.002)


def test_a_mask_without_any_edge_is_wholly_uncertain():
    assert score_of(square(), np.zeros((80, 80), np.uint8)) == 1


def test_a_mask_that_fills_the_image_has_no_border():
    assert score_of(np.ones((40, 40), np.uint8), np.zeros((40, 40), np.uint8)) == 0


def test_a_faint_trace_over_the_whole_image_counts_for_nothing():
    assert score_of(square(), np.maximum(edges_of(square()), 20)) == 0


def test_a_network_without_edges_has_no_boundary_uncertainty():
    assert boundary_uncertainty(Prediction(square(), None, None), CONTRACT) is None


def test_the_border_between_two_classes_counts_too():
    labels = square()
    labels[30:50, 30:50] = 2
    assert score_of(labels, edges_of(labels), contract(3)) == 0
    assert score_of(labels, edges_of(square()), contract(3)) > 0.2


def test_the_band_is_as_wide_in_the_image_as_the_network_learned_it():
    """A network that saw the image at a quarter of its size gives edges four times as wide."""
    labels = square(80, 240, size=320)
    wide = edges_of(labels, width=12)
    assert score_of(labels, wide, contract(2, image_size=(80, 80))) < 0.02
    assert score_of(labels, wide) > 0.3


@pytest.mark.parametrize(
    ("rule", "shape", "expected"),
    [
        (contract(), (600, 400), 1.0),
        (contract(image_size=(256, 256)), (512, 512), 2.0),
        (contract(image_size=(100, 400)), (400, 400), 2.0),
        (contract(roi=RegionOfInterest(0.25, 512)), (900, 1024), 0.5),
    ],
)
def test_the_scale_of_the_network_follows_from_the_contract(rule, shape, expected):
    assert pixels_per_network_pixel(shape, rule) == pytest.approx(expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_the_smallest_images_have_a_score(size):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, size, dtype=np.uint8)
    found = boundary_uncertainty(Prediction(labels, None, generator.integers(0, 256, size, dtype=np.uint8)), CONTRACT)
    assert found is not None
    assert found.map.shape == size
    assert 0 <= found.score <= 1
