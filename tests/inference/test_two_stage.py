from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.data.roi import mask_center, window_around
from etnet.errors import DataError, ModelFileError
from etnet.inference.bundle import write_bundle
from etnet.inference.localize import LocalizationFailed, LocalizationRule
from etnet.inference.predictor import ImagePredictor, Predictor
from etnet.inference.two_stage import TwoStagePredictor, open_predictor
from etnet.types import RegionOfInterest
from helpers.backends import PixelBackend, contract, image_of, pixel_predictor
from helpers.bundles import (
    draw_disc,
    localizer_contract,
    pixel_bundle,
    segmenter_contract,
    write_stage_headers,
)

ROI = RegionOfInterest(side=0.4, size=48)
"""Of images 120 pixels wide: a square of 48 pixels, so that nothing is resized."""


@settings(max_examples=40, deadline=None)
@given(row=st.floats(0, 100), column=st.floats(0, 120), radius=st.floats(8, 15))
def test_the_disc_is_segmented_where_the_first_network_finds_it(row, column, radius):
    labels = draw_disc((100, 120), (row, column), radius)
    prediction = pixel_bundle(ROI).predict(image_of(labels))
    np.testing.assert_array_equal(prediction.labels, labels)
    np.testing.assert_array_equal(prediction.probabilities.argmax(0), labels)
    assert prediction.center == mask_center(labels)


def test_what_lies_outside_the_region_is_background():
    labels = draw_disc((100, 120), (50, 30), 12)
    labels[48:52, 110:114] = 2
    prediction = pixel_bundle(ROI).predict(image_of(labels), probabilities=False)
    assert prediction.probabilities is None
    np.testing.assert_array_equal(prediction.labels, draw_disc((100, 120), (50, 30), 12))


def test_a_given_centre_is_taken_and_the_first_network_does_not_run():
    predictor = pixel_bundle(ROI)
    labels = draw_disc((100, 120), (50, 30), 12)
    prediction = predictor.predict(image_of(labels), center=(52.0, 33.0))
    assert prediction.center == (52.0, 33.0)
    assert predictor.localizer.backend.shapes == []
    np.testing.assert_array_equal(prediction.labels, labels)


def test_a_batch_finds_only_the_centres_that_are_not_given():
    predictor = pixel_bundle(ROI)
    labels = [draw_disc((100, 120), (50, 30), 12), draw_disc((100, 120), (40, 80), 10)]
    images = [image_of(item) for item in labels]
    predictions = predictor.predict_batch(images, centers=[None, (40.0, 80.0)])
    assert predictor.localizer.backend.shapes == [(1, 112, 128, 3)]
    assert predictor.segmenter.backend.shapes == [(2, 48, 48, 3)]
    for prediction, wanted in zip(predictions, labels, strict=True):
        np.testing.assert_array_equal(prediction.labels, wanted)


def test_an_image_without_a_disc_fails_before_it_is_segmented():
    predictor = pixel_bundle(ROI)
    with pytest.raises(LocalizationFailed, match="no pixel"):
        predictor.predict(np.zeros((100, 120, 3), np.uint8))
    assert predictor.segmenter.backend.shapes == []
    with pytest.raises(DataError, match="expected"):
        predictor.predict(np.zeros((4, 4), np.uint8))


def test_a_disc_that_does_not_fit_the_region_of_the_second_network_fails():
    with pytest.raises(LocalizationFailed, match="region of interest"):
        pixel_bundle(RegionOfInterest(side=0.1, size=16)).predict(image_of(draw_disc((100, 120), (50, 60), 15)))


def test_it_looks_like_a_predictor():
    predictor: ImagePredictor = pixel_bundle(ROI)
    assert predictor.contract.class_names == ("background", "optic_rim", "optic_cup")
    assert not predictor.needs_center
    assert predictor.runs_on == "pixel arithmetic"
    labels = draw_disc((100, 120), (50, 30), 12)
    with predictor.timing() as seconds:
        predictor.predict(image_of(labels))
    assert {"localize", "pre", "compute", "post"} <= seconds.keys()
    assert all(value > 0 for value in seconds.values())
    before = dict(seconds)
    predictor.predict(image_of(labels))
    assert seconds == before


def test_two_runtimes_are_both_named():
    class Other(PixelBackend):
        name = "other arithmetic"

    predictor = pixel_bundle(ROI)
    predictor.segmenter.backend = Other()
    assert predictor.runs_on == "pixel arithmetic (localizer) and other arithmetic (segmenter)"


def test_leaving_it_closes_both_networks():
    with pixel_bundle(ROI) as predictor:
        pass
    assert predictor.localizer.backend.closed
    assert predictor.segmenter.backend.closed


def test_a_second_network_that_cannot_be_opened_closes_the_first(tmp_path, monkeypatch):
    opened = []

    def load(path, **options):
        if opened:
            raise ModelFileError("damaged")
        opened.append(Predictor(PixelBackend(), contract()))
        return opened[0]

    localizer, segmenter = write_stage_headers(tmp_path)
    write_bundle(localizer, segmenter, tmp_path / "bundle", rule=LocalizationRule("optic_disc"))
    monkeypatch.setattr(Predictor, "load", load)
    with pytest.raises(ModelFileError, match="damaged"):
        TwoStagePredictor.load(tmp_path / "bundle")
    assert opened[0].backend.closed


def test_a_path_is_opened_as_what_it_is(tmp_path, monkeypatch):
    localizer, segmenter = write_stage_headers(tmp_path)
    write_bundle(localizer, segmenter, tmp_path / "bundle", rule=LocalizationRule("optic_disc"))
    monkeypatch.setattr(Predictor, "load", pixel_predictor)
    assert isinstance(open_predictor(tmp_path / "bundle"), TwoStagePredictor)
    assert isinstance(open_predictor(str(tmp_path / "localizer")), Predictor)


def test_a_bundle_where_one_network_is_expected_is_one_sentence(tmp_path):
    localizer, segmenter = write_stage_headers(tmp_path)
    write_bundle(localizer, segmenter, tmp_path / "bundle", rule=LocalizationRule("optic_disc"))
    with pytest.raises(ModelFileError, match=r"bundle of two networks.*etnet\.open_predictor"):
        Predictor.load(tmp_path / "bundle")


def test_the_window_of_a_prediction_follows_from_its_centre():
    labels = draw_disc((100, 120), (50, 30), 12)
    prediction = pixel_bundle(ROI).predict(image_of(labels))
    window = window_around(prediction.center, labels.shape, ROI)
    assert window.side == 48
    assert window.inside(labels.shape)[labels > 0].all()


def test_a_bundle_of_onnx_files_works_where_torch_is_not_installed(tmp_path):
    from helpers.onnx_graphs import write_small_onnx

    roi = RegionOfInterest(side=0.4, size=32)
    localizer = write_small_onnx(tmp_path / "a.onnx", size=None, trained_as=localizer_contract())
    segmenter = write_small_onnx(tmp_path / "b.onnx", size=(32, 32), num_classes=3, trained_as=segmenter_contract(roi))
    write_bundle(localizer, segmenter, tmp_path / "bundle", rule=LocalizationRule("optic_disc"))
    program = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from etnet import open_predictor
from etnet.inference.localize import LocalizationFailed
image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
with open_predictor({str(tmp_path / "bundle")!r}, threads=1) as predictor:
    print(predictor.runs_on, predictor.predict(image, center=(30.0, 40.0)).labels.shape)
    try:
        print(len(predictor.locate(image)))
    except LocalizationFailed:
        print(2)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["onnxruntime cpu (60, 80)", "2"]
