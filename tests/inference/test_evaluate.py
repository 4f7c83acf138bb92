from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from etnet.errors import DataError, ModelFileError
from etnet.inference.evaluate import evaluate, regions_of, write_per_image
from etnet.inference.predictor import Predictor
from etnet.metrics.clinical import clinical_measures
from etnet.metrics.report import FIELD_OF_VIEW, WHOLE_IMAGE, EvaluationReport
from etnet.metrics.surface import surface_scores
from etnet.types import Prediction, Sample
from helpers.backends import CLASS_NAMES, PixelBackend, contract, image_of, random_labels
from helpers.samples import Samples, sample


def report_of(*samples: Sample, **options) -> EvaluationReport:
    predictor = Predictor(PixelBackend(), contract())
    return evaluate(predictor, Samples(*samples), class_names=CLASS_NAMES, **options)


def test_pooled_scores_count_pixels_and_mean_scores_count_images():
    small = sample("small", [[1, 0]], [[1, 1]])
    large = sample("large", [[1, 1, 1, 1, 0, 0]], [[1, 1, 1, 1, 0, 0]])
    region = report_of(small, large).regions[WHOLE_IMAGE]
    assert region.pooled.dice[1] == pytest.approx(2 * 5 / (2 * 5 + 1))
    assert region.image_mean["classes"]["vessel"]["dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert region.pooled.accuracy == pytest.approx(7 / 8)
    assert region.image_mean["accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert region.images == 2


def test_an_image_without_a_class_does_not_enter_that_mean():
    region = report_of(sample("a", [[0, 0]], [[0, 0]]), sample("b", [[1, 0]], [[1, 1]])).regions[WHOLE_IMAGE]
    assert region.image_mean["classes"]["vessel"]["dice"] == pytest.approx(2 / 3)
    assert region.image_mean["classes"]["optic_disc"]["dice"] is None


def test_the_field_of_view_is_scored_beside_the_whole_image():
    report = report_of(sample("a", [[1, 1, 0, 0]], [[1, 0, 0, 0]], [[True, True, False, False]]))
    assert list(report.regions) == [WHOLE_IMAGE, FIELD_OF_VIEW]
    assert report.regions[WHOLE_IMAGE].pooled.accuracy == 0.75
    assert report.regions[FIELD_OF_VIEW].pooled.accuracy == 0.5


def test_only_images_with_a_field_of_view_enter_its_scores():
    report = report_of(sample("a", [[1]], [[1]]), sample("b", [[0]], [[1]], [[True]]))
    assert report.regions[FIELD_OF_VIEW].images == 1
    assert report.regions[FIELD_OF_VIEW].pooled.accuracy == 0.0
    assert report.regions[WHOLE_IMAGE].pooled.accuracy == 0.5


def test_a_data_set_without_a_field_of_view_has_one_region():
    assert list(report_of(sample("a", [[1]], [[1]])).regions) == [WHOLE_IMAGE]


def test_pixels_without_a_label_do_not_count():
    assert report_of(sample("a", [[1, 1]], [[1, 255]]), ignore_index=255).regions[WHOLE_IMAGE].pooled.pixels == 1


def test_images_of_any_size_are_scored_at_their_own_size():
    labels = random_labels(37, 21)
    scores = report_of(Sample("odd", image_of(labels), labels)).regions[WHOLE_IMAGE].pooled
    assert scores.pixels == 37 * 21
    assert scores.accuracy == 1.0


def test_weights_for_other_classes_are_refused_before_any_image_is_read():
    predictor = Predictor(PixelBackend(), contract())
    with pytest.raises(ModelFileError, match="other classes: it was trained for background, vessel, optic_disc"):
        evaluate(predictor, Samples(), class_names=("background", "lung"))


def test_an_empty_split_is_one_sentence():
    with pytest.raises(DataError, match="--split"):
        report_of()


def test_the_dictionary_is_plain_and_complete():
    content = report_of(sample("a", [[1, 0]], [[1, 1]], [[True, False]])).to_dict()
    assert content["images"] == 1
    assert content["seconds_per_image"] >= 0
    assert content["regions"]["whole_image"]["pooled"]["accuracy"] == 0.5
    assert content["regions"]["field_of_view"]["image_mean"]["accuracy"] == 1.0
    assert content["regions"]["whole_image"]["pooled"]["classes"]["optic_disc"]["dice"] is None


def test_one_row_per_image_with_empty_cells_for_undefined_scores(tmp_path):
    report = report_of(sample("a", [[1, 0]], [[1, 1]]), sample("b", [[0]], [[0]], [[True]]))
    write_per_image(report, tmp_path / "per_image.csv")
    with (tmp_path / "per_image.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert first["image"] == "a"
    assert float(first["whole_image_vessel_dice"]) == pytest.approx(2 / 3, abs=1e-6)
    assert first["field_of_view_accuracy"] == ""
    assert second["whole_image_vessel_dice"] == ""
    assert float(second["field_of_view_accuracy"]) == 1.0
    assert float(second["seconds"]) >= 0


def test_images_are_ranked_by_mean_foreground_dice_and_empty_ones_are_not():
    report = report_of(
        sample("good", [[1, 1]], [[1, 1]]),
        sample("empty", [[0, 0]], [[0, 0]]),
        sample("bad", [[1, 1]], [[0, 0]]),
        sample("half", [[1, 0]], [[1, 1]]),
    )
    assert [image.id for image in report.worst_to_best()] == ["bad", "half", "good"]


def test_the_report_agrees_with_counts_made_by_hand():
    generator = np.random.default_rng(0)
    pairs = [generator.integers(0, 3, (2, 9, 11), dtype=np.uint8) for _ in range(3)]
    report = report_of(*(Sample(str(i), image_of(pair[0]), pair[1]) for i, pair in enumerate(pairs)))
    predicted, target = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
    scores = report.regions[WHOLE_IMAGE].pooled
    for index in range(3):
        both = np.sum((predicted == index) & (target == index))
        either = np.sum((predicted == index) | (target == index))
        assert math.isclose(scores.iou[index], both / either)


FUNDUS = (("fundus", (1, 2)),)


def rectangles(*, shift: int = 0) -> np.ndarray:
    """A class 1 that surrounds a class 2, moved to the right."""
    labels = np.zeros((40, 40), np.uint8)
    labels[8:32, 6 + shift : 30 + shift] = 1
    labels[14:26, 12 + shift : 24 + shift] = 2
    return labels


def test_groups_of_classes_are_scored_like_classes():
    report = report_of(sample("a", [[1, 2, 0, 0]], [[2, 1, 1, 0]]), class_groups=FUNDUS)
    region = report.regions[WHOLE_IMAGE]
    assert region.pooled.dice[1] == 0.0
    assert region.pooled.groups["fundus"]["dice"] == pytest.approx(2 * 2 / (2 + 3))
    assert region.image_mean["groups"]["fundus"]["dice"] == pytest.approx(0.8)
    assert region.pooled.mean_dice == 0.0


def test_boundaries_of_classes_and_groups_are_scored_in_every_region():
    view = np.zeros((40, 40), bool)
    view[:, :20] = True
    labels, target = rectangles(shift=3), rectangles()
    report = report_of(sample("a", labels, target, view), class_groups=FUNDUS)
    for region, where in ((WHOLE_IMAGE, None), (FIELD_OF_VIEW, view)):
        boundary = report.regions[region].boundary
        assert list(boundary) == ["vessel", "optic_disc", "fundus"]
        expected = surface_scores(labels > 0, target > 0, where=where)
        assert boundary["fundus"].scores["hd95_px"].mean == expected.hd95
        assert boundary["fundus"].scores["surface_dice_2px"].mean == expected.surface_dice[1]


def test_missed_and_invented_structures_are_counted_and_have_no_distance():
    empty = np.zeros((40, 40), np.uint8)
    report = report_of(
        sample("found", rectangles(shift=1), rectangles()),
        sample("missed", empty, rectangles()),
        sample("invented", rectangles(), empty),
        sample("absent", empty, empty),
    )
    boundary = report.regions[WHOLE_IMAGE].boundary["vessel"]
    assert (boundary.missed, boundary.false_alarms, boundary.absent) == (1, 1, 1)
    assert (boundary.scores["hd95_px"].images, boundary.scores["hd95_px"].left_out) == (1, 3)
    agreement = boundary.scores["surface_dice_1px"]
    assert (agreement.images, agreement.left_out) == (3, 1)
    assert agreement.mean < 0.4


def test_clinical_errors_follow_from_the_names_of_the_classes():
    view = np.zeros((40, 40), bool)
    view[10:, :] = True
    labels, target = rectangles(shift=3), rectangles()
    report = report_of(sample("a", labels, target, view))
    expected = clinical_measures(labels, target, {"vessel": (1,), "optic_disc": (2,)}, field_of_view=view)
    assert report.images[0].clinical == expected
    assert set(report.clinical) == {name for name in expected if name.endswith("_error")}


def test_the_annotators_ratio_is_compared_where_a_sample_has_one():
    names = ("background", "optic_disc", "optic_cup")
    target = rectangles()
    samples = [Sample(str(ratio), image_of(target), target, reference_cdr=ratio) for ratio in (0.4, 0.7, None)]
    predictor = Predictor(PixelBackend(), replace(contract(), class_names=names))
    clinical = evaluate(predictor, Samples(*samples), class_names=names).clinical
    assert clinical["vertical_cdr_absolute_error"].mean == 0.0
    against = clinical["vertical_cdr_annotators_absolute_error"]
    assert against.mean == pytest.approx((0.1 + 0.2) / 2)
    assert (against.images, against.left_out) == (2, 1)


def test_two_classes_are_ranked_by_probability_and_three_are_not(tmp_path):
    probability = np.array([[0.9, 0.8, 0.3, 0.2]], np.float32)
    target = np.array([[1, 0, 1, 0]], np.uint8)
    predicted = Prediction((probability > 0.5).astype(np.uint8), np.stack([1 - probability, probability]), None)
    view = np.array([[True, True, True, False]])
    report = evaluate(
        Predictor(PixelBackend(2), contract(2)),
        Samples(Sample("a", image_of(target), target, view)),
        class_names=CLASS_NAMES[:2],
        predict=lambda sample: predicted,
    )
    assert report.regions[WHOLE_IMAGE].auc.pooled == 0.75
    assert report.regions[FIELD_OF_VIEW].auc.pooled == 0.5
    write_per_image(report, tmp_path / "per_image.csv")
    assert "field_of_view_auc" in (tmp_path / "per_image.csv").read_text("utf-8")
    assert report_of(sample("a", [[1]], [[1]])).regions[WHOLE_IMAGE].auc is None


def test_pixels_without_a_label_enter_no_score():
    target, labels = rectangles(), rectangles()
    labels[:, 20:] = 2
    target[:, 20:] = 255
    report = report_of(sample("a", labels, target), ignore_index=255, class_groups=FUNDUS)
    region = report.regions[WHOLE_IMAGE]
    assert region.pooled.accuracy == 1.0
    assert region.boundary["fundus"].scores["hd95_px"].mean == 0.0
    assert report.clinical["vessel_density_error"].mean == 0.0
    assert report.clinical["optic_disc_area_error"].mean == 0.0


def test_what_is_predicted_and_scored_can_be_replaced():
    target = rectangles()
    region = target > 0

    def predict(sample: Sample) -> Prediction:
        return Prediction(np.where(region, sample.mask, 1).astype(np.uint8), None, None)

    report = report_of(
        sample("a", target, target),
        predict=predict,
        regions=lambda sample: regions_of(sample) | {"region_of_interest": region},
    )
    assert list(report.regions) == [WHOLE_IMAGE, "region_of_interest"]
    assert report.regions["region_of_interest"].pooled.accuracy == 1.0
    assert report.regions[WHOLE_IMAGE].pooled.accuracy == pytest.approx(region.mean())


def test_the_ground_truth_has_a_fingerprint():
    first, same, other = (
        report_of(sample("a", predicted, target)).ground_truth_sha256
        for predicted, target in (([[0, 1]], [[1, 1]]), ([[1, 1]], [[1, 1]]), ([[1, 1]], [[1, 0]]))
    )
    assert first == same != other
    assert report_of(sample("b", [[1, 1]], [[1, 1]])).ground_truth_sha256 != first


def test_every_score_of_an_image_is_a_column(tmp_path):
    report = report_of(sample("a", rectangles(shift=2), rectangles()), class_groups=FUNDUS)
    write_per_image(report, tmp_path / "per_image.csv")
    with (tmp_path / "per_image.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    expected = surface_scores(rectangles(shift=2) > 0, rectangles() > 0)
    assert float(row["whole_image_fundus_hd95_px"]) == pytest.approx(expected.hd95, abs=1e-6)
    assert float(row["whole_image_fundus_surface_dice_3px"]) == pytest.approx(expected.surface_dice[2], abs=1e-6)
    assert float(row["whole_image_fundus_boundary_iou"]) == pytest.approx(expected.boundary_iou, abs=1e-6)
    assert float(row["whole_image_fundus_dice"]) == pytest.approx(
        report.regions[WHOLE_IMAGE].pooled.groups["fundus"]["dice"], abs=1e-6
    )
    assert float(row["vessel_density_absolute_error"]) == 0.0
