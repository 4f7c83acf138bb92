from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.metrics.overlap import OverlapScores
from etnet.reproduce.scores import figures_of, image_score
from etnet.reproduce.tables import ACCURACY, DICE_CUP, DICE_DISC, MEAN_IOU

NAMES = ("background", "optic_rim", "optic_cup")


def scores_of(matrices: np.ndarray) -> dict[str, object]:
    return {
        "class_names": list(NAMES),
        "class_groups": {"optic_disc": ["optic_rim", "optic_cup"]},
        "images": [{"id": str(index), "matrix": matrix.tolist()} for index, matrix in enumerate(matrices)],
    }


@pytest.fixture
def matrices() -> np.ndarray:
    """Counts [seeds, images, C, C]."""
    return np.random.default_rng(0).integers(1, 500, (2, 5, 3, 3)) + 4000 * np.eye(3, dtype=np.int64)


def test_scores_are_those_of_the_metrics(matrices: np.ndarray) -> None:
    accuracy, mean_iou, cup = figures_of([scores_of(matrices[0])], [ACCURACY, MEAN_IOU, DICE_CUP])
    reference = OverlapScores.from_confusion(matrices[0].sum(axis=0), NAMES)
    assert accuracy.mean == pytest.approx(100 * reference.accuracy)
    assert mean_iou.mean == pytest.approx(100 * reference.mean_iou)
    assert cup.mean == pytest.approx(100 * reference.dice[2])
    each = [OverlapScores.from_confusion(matrix, NAMES).mean_iou for matrix in matrices[0]]
    assert mean_iou.image_mean == pytest.approx(100 * np.mean(each))
    assert image_score(scores_of(matrices[0]), "3", MEAN_IOU) == pytest.approx(100 * each[3])


def test_the_disc_is_rim_and_cup_together() -> None:
    # 10 pixels of disc found (rim and cup mixed up), 2 missed, 3 too many: 2 * 10 / (2 * 10 + 2 + 3).
    matrix = np.array([[[50, 1, 2], [1, 3, 4], [1, 2, 1]]])
    (disc,) = figures_of([scores_of(matrix)], [DICE_DISC])
    assert disc.mean == pytest.approx(100 * 20 / 25)


def test_seeds_are_averaged_and_their_spread_is_that_of_a_sample(matrices: np.ndarray) -> None:
    (figure,) = figures_of([scores_of(seed) for seed in matrices], [ACCURACY])
    each = [OverlapScores.from_confusion(seed.sum(axis=0), NAMES).accuracy for seed in matrices]
    assert figure.mean == pytest.approx(100 * np.mean(each))
    assert figure.deviation == pytest.approx(100 * np.std(each, ddof=1))
    (single,) = figures_of([scores_of(matrices[0])], [ACCURACY])
    assert single.deviation is None


def test_the_interval_is_that_of_drawing_images_again(matrices: np.ndarray) -> None:
    (figure,) = figures_of([scores_of(seed) for seed in matrices], [MEAN_IOU])
    generator = np.random.default_rng(7)
    drawn = []
    for _ in range(4000):
        choice = generator.integers(0, 5, 5)
        drawn.append(
            np.mean([OverlapScores.from_confusion(seed[choice].sum(axis=0), NAMES).mean_iou for seed in matrices])
        )
    expected = 100 * np.quantile(drawn, [0.025, 0.975])
    assert figure.interval == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_one_image_has_no_interval(matrices: np.ndarray) -> None:
    (figure,) = figures_of([scores_of(matrices[0, :1])], [ACCURACY])
    assert figure.interval is None


def test_a_structure_that_is_nowhere_is_undefined_and_not_zero() -> None:
    matrix = np.zeros((2, 3, 3), np.int64)
    matrix[:, 0, 0] = 9
    cup, mean_iou = figures_of([scores_of(matrix)], [DICE_CUP, MEAN_IOU])
    assert math.isnan(cup.mean)
    assert math.isnan(cup.image_mean)
    assert cup.interval is None
    assert mean_iou.mean == 100
