from __future__ import annotations

import pytest
from PIL import Image

from etnet.inference.evaluate import evaluate
from etnet.inference.extremes import choose_extremes, write_extremes
from etnet.inference.predictor import Predictor
from etnet.metrics.report import ImageScores
from helpers.backends import CLASS_NAMES, PixelBackend, contract, random_labels
from helpers.samples import Samples, sample


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
    ranked = [ImageScores(str(index), {}, 0.0) for index in range(count)]
    assert " ".join(f"{label}:{image.id}" for label, image in choose_extremes(ranked)) == expected


def test_pictures_of_the_extremes_are_written(tmp_path):
    samples = [
        sample("good", random_labels(8, 8), random_labels(8, 8)),
        sample("bad", random_labels(8, 8), random_labels(8, 8, seed=1)),
    ]
    predictor = Predictor(PixelBackend(), contract())
    report = evaluate(predictor, Samples(*samples), class_names=CLASS_NAMES)
    pictures = write_extremes(report, predictor, Samples(*samples), tmp_path / "overlays")
    assert [path.name for path in pictures] == ["worst_1_bad.png", "best_1_good.png"]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
