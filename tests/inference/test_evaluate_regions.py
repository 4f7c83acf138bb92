from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from etnet.errors import DataError, ModelFileError, UsageError
from etnet.inference.evaluate import evaluate
from etnet.inference.evaluate_regions import (
    LocalizedImage,
    background,
    evaluate_regions,
    prediction_of,
)
from etnet.inference.localize import LocalizationRule
from etnet.inference.predictor import Predictor
from etnet.inference.two_stage import TwoStagePredictor
from etnet.types import RegionOfInterest, Sample
from helpers.backends import PixelBackend, contract, image_of
from helpers.bundles import draw_disc, localizer_contract, pixel_bundle, segmenter_contract
from helpers.samples import Samples

ROI = RegionOfInterest(side=0.4, size=48)
NAMES = ("background", "optic_rim", "optic_cup")
GROUPS = (("optic_disc", (1, 2)),)


def seen(name: str, mask: np.ndarray, *, labels: np.ndarray | None = None) -> Sample:
    """A sample in whose image the networks see `labels`; by default the truth."""
    return Sample(name, image_of(mask if labels is None else labels), mask)


@pytest.fixture
def eyes() -> Samples:
    """One that is found as it is, one that is found 3 pixels beside, and one in which nothing is found."""
    here, there = draw_disc((100, 120), (50, 60), 12), draw_disc((100, 120), (44, 48), 10)
    return Samples(
        seen("right", here),
        seen("beside", there, labels=np.roll(there, 3, axis=1)),
        seen("missed", here, labels=here * 0),
    )


def scored(dataset: Samples, predictor=None, **options):
    return evaluate_regions(predictor or pixel_bundle(ROI), dataset, class_names=NAMES, class_groups=GROUPS, **options)


def test_the_localization_error_is_a_distance_in_diameters_of_the_disc(eyes):
    localization = scored(eyes).localization
    right, beside, missed = localization.images
    assert right.error == 0
    assert beside.error == pytest.approx(3)
    # The circle with the area of the drawn disc, whose radius is 10.
    assert beside.diameter == pytest.approx(20, rel=0.02)
    assert beside.error_in_diameters == pytest.approx(0.15, rel=0.02)
    assert math.isnan(missed.error)
    assert "no pixel" in missed.reason
    content = localization.to_dict()
    assert (content["images"], content["found"]) == (3, 2)
    assert content["error_px"] == pytest.approx({"mean": 1.5, "median": 1.5, "max": 3})
    assert content["error_in_disc_diameters"]["max"] == beside.error_in_diameters
    assert [row["image"] for row in content["failed"]] == ["missed"]


def test_an_image_in_which_nothing_is_found_is_scored_as_background(eyes):
    found = scored(eyes).found_centers.images[2]
    mask = eyes.load(2).mask
    expected = confusion_matrix(mask.ravel(), np.zeros(mask.size), labels=[0, 1, 2])
    np.testing.assert_array_equal(found.matrices["whole_image"], expected)


def test_both_kinds_of_centre_are_scored_on_the_same_pixels(eyes):
    evaluation = scored(eyes)
    for found, true in zip(evaluation.found_centers.images, evaluation.true_centers.images, strict=True):
        for region in ("whole_image", "region_of_interest"):
            np.testing.assert_array_equal(found.matrices[region].sum(1), true.matrices[region].sum(1))
    assert evaluation.true_centers.images[0].matrices["region_of_interest"].sum() == 48 * 48


def test_the_mean_iou_of_the_region_is_that_of_scikit_learn_over_its_pixels(eyes):
    scores = scored(Samples(eyes.load(1))).report.regions["region_of_interest"].pooled
    mask = eyes.load(1).mask
    # The square of 48 pixels around (44, 48).
    truth = mask[20:68, 24:72].ravel()
    labels = np.roll(mask, 3, axis=1)[20:68, 24:72].ravel()
    assert scores.mean_iou == pytest.approx(jaccard_score(truth, labels, average="macro", labels=[0, 1, 2]))


def test_a_network_alone_is_scored_around_true_centres_and_says_so(eyes):
    alone = Predictor(PixelBackend(3), segmenter_contract(ROI))
    evaluation = scored(eyes, alone)
    assert evaluation.found_centers is None
    assert evaluation.report is evaluation.true_centers
    content = evaluation.to_dict()
    assert content["centers"] == "true"
    assert "localization" not in content
    assert content["regions"].keys() == {"whole_image", "region_of_interest"}


def test_the_usual_evaluation_takes_the_true_centres_of_a_network_alone(eyes):
    alone = Predictor(PixelBackend(3), segmenter_contract(ROI))
    report = evaluate(alone, eyes, class_names=NAMES, class_groups=GROUPS)
    expected = scored(eyes, alone).true_centers
    assert report.ground_truth_sha256 == expected.ground_truth_sha256
    for ours, wanted in zip(report.images, expected.images, strict=True):
        assert ours.matrices.keys() == wanted.matrices.keys() == {"whole_image", "region_of_interest"}
        for region, matrix in wanted.matrices.items():
            np.testing.assert_array_equal(ours.matrices[region], matrix)


def test_the_content_for_json_holds_both_and_is_plain(eyes):
    content = json.loads(json.dumps(scored(eyes).to_dict(), allow_nan=False))
    assert content["centers"] == "found"
    assert content["images"] == content["true_centers"]["images"] == 3
    found, true = (part["regions"]["whole_image"]["pooled"]["groups"] for part in (content, content["true_centers"]))
    # With the true centre, too, nothing is seen in the third image, so both are as bad.
    assert found["optic_disc"]["dice"] == true["optic_disc"]["dice"] < 1


def test_a_true_centre_helps_where_a_wrong_one_was_found():
    mask = draw_disc((100, 120), (50, 30), 10)
    labels = mask.copy()
    labels[60:90, 85:115] = 1
    evaluation = scored(Samples(seen("distracted", mask, labels=labels)))
    dice = [
        report.regions["whole_image"].pooled.to_dict()["groups"]["optic_disc"]["dice"]
        for report in (evaluation.found_centers, evaluation.true_centers)
    ]
    assert dice == [0, 1]
    assert evaluation.localization.images[0].error_in_diameters > 2


def test_every_image_has_a_row_in_the_table_of_localization(eyes, tmp_path):
    scored(eyes).localization.write_csv(tmp_path / "localization.csv")
    with (tmp_path / "localization.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == ["right", "beside", "missed"]
    assert (rows[0]["true_row_px"], rows[0]["found_column_px"]) == ("50.0000", "60.0000")
    assert (rows[2]["found_row_px"], rows[2]["error_px"], rows[2]["error_in_disc_diameters"]) == ("", "", "")
    assert "no pixel" in rows[2]["reason"]


def test_a_mask_without_structure_is_named(eyes):
    blank = seen("blank", np.zeros((100, 120), np.uint8))
    with pytest.raises(DataError, match="blank: its mask holds only background"):
        scored(Samples(blank))


def test_pixels_without_a_label_do_not_move_the_true_centre():
    mask = draw_disc((100, 120), (50, 60), 12)
    marked = mask.copy()
    marked[:10] = 255
    evaluation = scored(Samples(seen("eye", marked, labels=mask)), ignore_index=255)
    (image,) = evaluation.localization.images
    assert image.true_center == pytest.approx((50, 60))
    assert image.diameter == pytest.approx(24, rel=0.02)


def test_a_network_for_whole_images_or_other_classes_is_refused(eyes):
    with pytest.raises(UsageError, match="whole images"):
        scored(eyes, Predictor(PixelBackend(2), localizer_contract()))
    with pytest.raises(ModelFileError, match="other classes"):
        evaluate_regions(pixel_bundle(ROI), eyes, class_names=("background", "vessel"))


def test_a_sample_is_drawn_as_it_was_scored(eyes):
    by_bundle = prediction_of(pixel_bundle(ROI))
    assert not by_bundle(eyes.load(2)).labels.any()
    np.testing.assert_array_equal(by_bundle(eyes.load(0)).labels, eyes.load(0).mask)
    alone = prediction_of(Predictor(PixelBackend(3), segmenter_contract(ROI)))
    assert alone(eyes.load(0)).center == pytest.approx((50, 60))


def test_a_structure_of_one_class_is_ranked_by_probability_also_where_it_was_not_found():
    disc = draw_disc((100, 120), (50, 60), 12).clip(max=1)
    segmenter = Predictor(PixelBackend(2), contract(2, roi=ROI))
    bundle = TwoStagePredictor(
        Predictor(PixelBackend(2), localizer_contract()), segmenter, LocalizationRule("optic_disc")
    )
    samples = Samples(seen("found", disc), seen("missed", disc, labels=disc * 0))
    report = evaluate_regions(bundle, samples, class_names=contract(2).class_names).report
    # Where all is certain background, no pixel ranks above another.
    assert [image.auc["whole_image"] for image in report.images] == [1.0, 0.5]


def test_certain_background_has_probabilities_only_when_asked_for():
    assert background((3, 4), contract(2), probabilities=False).probabilities is None
    maps = background((3, 4), contract(2), probabilities=True).probabilities
    assert maps.shape == (2, 3, 4)
    assert (maps[0] == 1).all()
    assert not maps[1].any()


def test_an_error_needs_a_centre():
    assert LocalizedImage("eye", (3.0, 4.0), (0.0, 0.0), 10.0).error_in_diameters == 0.5
