from __future__ import annotations

import json
import math

import numpy as np
import pytest

from etnet.metrics.overlap import OverlapScores, confusion_matrix
from etnet.metrics.ranking import RankingCounts
from etnet.metrics.report import WHOLE_IMAGE, EvaluationReport, ImageScores
from etnet.metrics.statistics import bootstrap_weights
from etnet.metrics.surface import surface_scores_of

NAMES = ("background", "rim", "cup")
GROUPS = (("disc", (1, 2)),)
STRUCTURES = {"rim": (1,), "cup": (2,), "disc": (1, 2)}


def image(seed: int, *, classes: int = 3) -> ImageScores:
    labels, target = np.random.default_rng(seed).integers(0, classes, (2, 9, 13 + seed), dtype=np.uint8)
    return ImageScores(
        id=str(seed),
        matrices={WHOLE_IMAGE: confusion_matrix(labels, target, num_classes=3)},
        seconds=0.5,
        surface={WHOLE_IMAGE: surface_scores_of(labels, target, STRUCTURES)},
        clinical={"density_true": 0.5, "density_error": seed / 10 if seed else math.nan},
    )


def report(*images: ImageScores) -> EvaluationReport:
    return EvaluationReport(NAMES, images, GROUPS)


def leaves(content: dict, path: tuple[str, ...] = ()):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def at(content: dict, path: tuple[str, ...]):
    for key in path:
        content = content[key]
    return content


def test_the_interval_of_a_pooled_score_is_that_of_summed_matrices():
    images = [image(seed) for seed in range(6)]
    region = report(*images).regions[WHOLE_IMAGE]
    resampled = []
    for row in bootstrap_weights(6):
        total = sum(count * image.matrices[WHOLE_IMAGE] for count, image in zip(row, images, strict=True))
        resampled.append(OverlapScores.from_confusion(total, NAMES, GROUPS).to_dict())
    checked = 0
    for path, interval in leaves(region.pooled_interval):
        expected = np.quantile([at(scores, path) for scores in resampled], [0.025, 0.975])
        np.testing.assert_allclose(interval, expected, err_msg=str(path))
        checked += 1
    assert checked == 3 + 4 * 4


def test_the_mean_over_images_and_its_interval_leave_out_undefined_scores():
    images = [image(0), image(1), image(2, classes=2)]
    region = report(*images).regions[WHOLE_IMAGE]
    each = [OverlapScores.from_confusion(image.matrices[WHOLE_IMAGE], NAMES, GROUPS).to_dict() for image in images]
    for path, mean in leaves(region.image_mean):
        values = [at(scores, path) for scores in each]
        assert mean == pytest.approx(np.mean([value for value in values if value is not None])), path
        low, high = at(region.image_mean_interval, path)
        assert low <= mean <= high
    assert at(each[2], ("classes", "cup", "dice")) is None


def test_intervals_have_the_layout_of_their_scores():
    region = report(image(0), image(1)).regions[WHOLE_IMAGE]
    paths = [path for path, _ in leaves(region.image_mean)]
    assert paths == [path for path, _ in leaves(region.image_mean_interval)]
    assert paths == [path for path, _ in leaves(region.pooled_interval)]
    assert sorted([*paths, ("pixels",)]) == sorted(path for path, _ in leaves(region.pooled.to_dict()))


def test_one_image_has_scores_and_no_intervals():
    content = report(image(1)).to_dict()
    region = content["regions"][WHOLE_IMAGE]
    assert all(interval is None for _, interval in leaves(region["pooled_interval"]))
    assert all(interval is None for _, interval in leaves(region["image_mean_interval"]))
    assert region["boundary"]["disc"]["hd95_px"]["interval"] is None
    assert region["boundary"]["disc"]["hd95_px"]["mean"] is not None


def test_clinical_errors_are_summarised_and_values_are_not():
    clinical = report(image(0), image(1), image(3)).clinical
    assert list(clinical) == ["density_error"]
    summary = clinical["density_error"]
    assert (summary.mean, summary.images, summary.left_out) == (pytest.approx(0.2), 2, 1)
    assert summary.interval == pytest.approx((0.1, 0.3))


def test_the_dictionary_is_strict_json_and_keeps_the_place_of_the_scores():
    content = json.loads(json.dumps(report(image(0), image(1)).to_dict(), allow_nan=False))
    assert content["images"] == 2
    assert content["seconds_per_image"] == 0.5
    assert 0 < content["regions"]["whole_image"]["pooled"]["mean_foreground_dice"] < 1
    assert content["interval"]["level"] == 0.95


def test_the_same_report_gives_the_same_intervals_again():
    assert report(image(0), image(1)).to_dict() == report(image(0), image(1)).to_dict()


@pytest.mark.parametrize(("low", "high", "is_known"), [(0.0, 1.0, True), (0.454, 0.468, False)])
def test_the_interval_of_an_area_holds_it_or_is_undefined(low: float, high: float, is_known: bool) -> None:
    """Early in training all probabilities are nearly one, which the coarse bins of the bootstrap cannot tell apart."""
    random, images, pooled = np.random.default_rng(0), [], None
    for number in range(4):
        truth = random.random((40, 40)) < 0.5
        values = np.clip(0.3 * truth + random.random((40, 40)), 0, 1)
        counts = RankingCounts.from_probabilities((low + (high - low) * values).astype(np.float32), truth)
        pooled = counts if pooled is None else pooled + counts
        matrix = confusion_matrix(truth.astype(np.uint8), truth.astype(np.uint8), num_classes=2)
        ranking = {WHOLE_IMAGE: counts.coarse()}
        images.append(
            ImageScores(str(number), {WHOLE_IMAGE: matrix}, 0.1, auc={WHOLE_IMAGE: counts.auc}, ranking=ranking)
        )
    report = EvaluationReport(("background", "vessel"), tuple(images), ranking={WHOLE_IMAGE: pooled})
    found = report.regions[WHOLE_IMAGE].auc
    assert found.pooled == pytest.approx(0.745, abs=0.02)
    if is_known:
        assert found.pooled_interval[0] < found.pooled < found.pooled_interval[1]
    else:
        assert np.isnan(found.pooled_interval).all()
    assert (found.to_dict()["pooled_interval"] is not None) == is_known
