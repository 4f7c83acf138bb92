from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.errors import DataError, ModelFileError
from etnet.inference.evaluate import (
    FIELD_OF_VIEW,
    WHOLE_IMAGE,
    EvaluationReport,
    ImageCounts,
    choose_extremes,
    evaluate,
    write_extremes,
    write_per_image,
)
from etnet.inference.predictor import Predictor
from etnet.types import Sample
from helpers.backends import CLASS_NAMES, PixelBackend, contract, image_of, random_labels


class Samples:
    """A data set in memory."""

    def __init__(self, *samples: Sample) -> None:
        self._samples = samples

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sample.id for sample in self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> Sample:
        return self._samples[index]

    def image_path(self, index: int) -> Path:
        return Path(self.ids[index])


def sample(name: str, predicted, target, field_of_view=None) -> Sample:
    predicted, target = np.array(predicted, np.uint8), np.array(target, np.uint8)
    inside = None if field_of_view is None else np.array(field_of_view, np.bool_)
    return Sample(name, image_of(predicted), target, inside)


def report_of(*samples: Sample, ignore_index: int | None = None) -> EvaluationReport:
    predictor = Predictor(PixelBackend(), contract())
    return evaluate(predictor, Samples(*samples), class_names=CLASS_NAMES, ignore_index=ignore_index)


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


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ""),
        (1, "worst_1:0"),
        (2, "worst_1:0 best_1:1"),
        (3, "worst_1:0 worst_2:1 best_1:2"),
        (8, "worst_1:0 worst_2:1 worst_3:2 best_1:7 best_2:6 best_3:5"),
    ],
)
def test_the_extremes_never_show_an_image_twice(count, expected):
    ranked = [ImageCounts(str(index), {}, 0.0) for index in range(count)]
    assert " ".join(f"{label}:{image.id}" for label, image in choose_extremes(ranked)) == expected


def test_pictures_of_the_extremes_are_written(tmp_path):
    samples = [
        sample("good", random_labels(8, 8), random_labels(8, 8)),
        sample("bad", random_labels(8, 8), random_labels(8, 8, seed=1)),
    ]
    predictor = Predictor(PixelBackend(), contract())
    report = report_of(*samples)
    pictures = write_extremes(report, predictor, Samples(*samples), tmp_path / "overlays")
    assert [path.name for path in pictures] == ["worst_1_bad.png", "best_1_good.png"]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.mode == "RGB"


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
