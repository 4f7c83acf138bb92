from __future__ import annotations

import numpy as np
import pytest

from etnet.errors import CheckFailed
from etnet.inference.backends import NOT_FINITE, NetworkOutputs
from etnet.inference.compare import ComparisonImage, compare_predictors
from etnet.inference.predictor import Predictor
from helpers.backends import PixelBackend, contract, image_of, random_labels


class Changed(PixelBackend):
    """Pixel arithmetic with a mistake: other labels and edges where `where` says."""

    name = "changed arithmetic"

    def __init__(self, where: np.ndarray, *, label: int = 0, edge_error: int = 0, **options) -> None:
        super().__init__(**options)
        self.where, self.label, self.edge_error = where, label, edge_error

    def run(self, images, *, probabilities=True) -> NetworkOutputs:
        outputs = super().run(images, probabilities=probabilities)
        labels, edges = outputs.labels.copy(), outputs.edges.copy()
        height, width = self.where.shape
        labels[:, :height, :width][:, self.where] = self.label
        edges[:, :height, :width][:, self.where] += self.edge_error
        return outputs._replace(labels=labels, edges=edges)


def compare(candidate: PixelBackend, *images: ComparisonImage, **options):
    return compare_predictors(
        Predictor(PixelBackend(), contract()), Predictor(candidate, contract()), images, **options
    )


def image(labels: np.ndarray, mask: np.ndarray | None = None) -> ComparisonImage:
    return ComparisonImage("x", image_of(labels), mask)


def test_equal_predictors_differ_nowhere():
    images = [image(random_labels(20, 30, seed=seed), random_labels(20, 30, seed=seed + 5)) for seed in range(3)]
    result = compare(PixelBackend(), *images)
    assert (result.images, result.pixels) == (3, 3 * 20 * 30)
    assert (result.differing_labels, result.dice_drop, result.largest_edge_difference) == (0.0, 0.0, 0)
    assert result.agreement == {"background": 1.0, "vessel": 1.0, "optic_disc": 1.0}
    assert result.reference_dice == result.candidate_dice


def test_shares_are_of_the_pixels_of_all_images():
    where = np.zeros((10, 10), np.bool_)
    where[0, :5] = True
    labels = np.ones((10, 10), np.uint8)
    result = compare(Changed(where, edge_error=3), image(labels), image(labels))
    assert result.differing_labels == pytest.approx(0.05)
    assert result.largest_edge_difference == 3
    assert result.mean_edge_difference == pytest.approx(3 * 0.05)
    # By hand: 95 pixels of class 1 in common, 100 and 95 found.
    assert result.agreement == {"background": 0.0, "vessel": pytest.approx(190 / 195), "optic_disc": None}
    assert result.dice_drop == pytest.approx(1 - 190 / 195)


def test_with_ground_truth_the_drop_is_that_of_the_scores():
    truth = np.ones((10, 10), np.uint8)
    truth[5:] = 0
    where = np.zeros((10, 10), np.bool_)
    where[5:] = True
    everywhere = np.ones((10, 10), np.uint8)
    # The reference finds class 1 everywhere, the candidate only where it is.
    result = compare(Changed(where), image(everywhere, truth))
    assert result.reference_dice == pytest.approx(2 * 50 / 150)
    assert result.candidate_dice == 1.0
    assert result.dice_drop == pytest.approx(100 / 150 - 1)
    assert result.differing_labels == 0.5


def test_pixels_without_a_label_do_not_count_against_the_truth():
    truth = np.full((8, 8), 255, np.uint8)
    truth[0] = 1
    where = np.zeros((8, 8), np.bool_)
    where[4:] = True
    result = compare(Changed(where), image(np.ones((8, 8), np.uint8), truth), ignore_index=255)
    assert (result.reference_dice, result.candidate_dice, result.dice_drop) == (1.0, 1.0, 0.0)


def test_images_without_any_foreground_lose_nothing():
    empty = np.zeros((8, 8), np.uint8)
    for mask in (None, empty):
        assert compare(PixelBackend(), image(empty, mask)).dice_drop == 0.0
    found = np.ones((8, 8), np.bool_)
    assert compare(Changed(found, label=1), image(empty, empty)).dice_drop == 1.0


def test_networks_without_edges_have_no_edge_difference():
    without = Predictor(PixelBackend(with_edges=False), contract())
    result = compare_predictors(without, without, [image(random_labels(8, 8))])
    assert result.largest_edge_difference is None
    assert result.mean_edge_difference is None


def test_a_network_that_gives_no_numbers_is_not_compared():
    everywhere = np.ones((8, 8), np.bool_)
    with pytest.raises(CheckFailed, match="not finite"):
        compare(Changed(everywhere, label=NOT_FINITE), image(random_labels(8, 8)))


def test_every_image_is_reported_when_it_is_done():
    seen: list[str] = []
    compare(PixelBackend(), image(random_labels(8, 8)), image(random_labels(8, 8)), progress=seen.append)
    assert seen == ["x", "x"]


def test_the_figures_are_plain_values():
    figures = compare(PixelBackend(), image(random_labels(8, 8))).to_dict()
    assert figures["reference"] == figures["candidate"] == "pixel arithmetic"
    assert figures["dice_drop"] == 0.0
    assert figures["reference_dice"] is None
