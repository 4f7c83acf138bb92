from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from etnet.data.roi import cut, cut_mask, window_around
from etnet.inference.evaluate import evaluate
from etnet.inference.extremes import REGION_SIZE, choose_extremes, write_extremes
from etnet.inference.overlay import draw_comparison
from etnet.inference.predictor import Predictor
from etnet.metrics.report import ImageScores
from etnet.types import Prediction, RegionOfInterest, Sample
from helpers.backends import CLASS_NAMES, PixelBackend, contract, image_of, random_labels
from helpers.bundles import draw_disc, pixel_bundle
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


def test_of_a_region_of_interest_the_region_is_drawn(tmp_path):
    roi = RegionOfInterest(side=0.25, size=48)
    mask = draw_disc((400, 800), (130, 610), 30)
    samples = Samples(Sample("eye", image_of(mask), mask))
    predictor = pixel_bundle(roi)

    def predict(sample: Sample) -> Prediction:
        return predictor.predict(sample.image, probabilities=False)

    classes = predictor.contract.class_names
    report = evaluate(predictor, samples, class_names=classes, predict=predict)
    (path,) = write_extremes(report, predictor, samples, tmp_path, predict=predict)
    found = predictor.predict(samples.load(0).image)
    window = window_around(found.center, mask.shape, roi)
    truth, labels = (cut_mask(array, window, REGION_SIZE) for array in (mask, found.labels))
    expected = draw_comparison(
        cut(samples.load(0).image, window, REGION_SIZE), labels, truth, predictor.contract, title=""
    )
    with Image.open(path) as picture:
        drawn = np.asarray(picture)
    assert drawn.shape == expected.shape
    # The title above differs, the pictures do not.
    assert np.array_equal(drawn[-REGION_SIZE // 2 :], expected[-REGION_SIZE // 2 :])
