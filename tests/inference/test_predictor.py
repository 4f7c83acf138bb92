from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.data.roi import window_around
from etnet.errors import CheckFailed, DataError, EnvironmentFault, ModelFileError, UsageError
from etnet.inference.backends import NOT_FINITE
from etnet.inference.predictor import Predictor
from etnet.types import RegionOfInterest
from helpers.backends import PixelBackend, contract, image_of, random_labels


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_a_prediction_has_the_geometry_of_its_image(height, width):
    labels = random_labels(height, width)
    prediction = Predictor(PixelBackend(), contract()).predict(image_of(labels))
    np.testing.assert_array_equal(prediction.labels, labels)
    assert prediction.labels.dtype == np.uint8
    assert prediction.probabilities.shape == (3, height, width)
    np.testing.assert_array_equal(prediction.edges, labels * 100)
    assert prediction.edges is not None
    assert prediction.edges.dtype == np.uint8


def test_images_of_one_padded_size_share_a_run_and_keep_their_order():
    sizes = [(20, 20), (40, 20), (30, 31), (17, 32)]
    labels = [random_labels(*size, seed=seed) for seed, size in enumerate(sizes)]
    backend = PixelBackend()
    predictions = Predictor(backend, contract()).predict_batch([image_of(item) for item in labels])
    for prediction, expected in zip(predictions, labels, strict=True):
        np.testing.assert_array_equal(prediction.labels, expected)
    assert sorted(backend.shapes) == [(1, 48, 32, 3), (3, 32, 32, 3)]


@pytest.mark.parametrize(("max_batch", "runs"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (None, [5])])
def test_a_backend_never_gets_more_images_than_it_takes(max_batch, runs):
    labels = [random_labels(16, 20, seed=seed) for seed in range(5)]
    backend = PixelBackend(max_batch=max_batch)
    predictions = Predictor(backend, contract()).predict_batch([image_of(item) for item in labels])
    assert [shape[0] for shape in backend.shapes] == runs
    for prediction, expected in zip(predictions, labels, strict=True):
        np.testing.assert_array_equal(prediction.labels, expected)


@pytest.mark.parametrize("size", [(50, 40), (49, 64), (17, 17)])
def test_an_image_that_a_fixed_size_does_not_fit_names_the_export_that_would(size):
    backend = PixelBackend(input_size=(48, 64))
    predictor = Predictor(backend, contract())
    assert predictor.predict(image_of(random_labels(40, 50))).labels.shape == (40, 50)
    padded = "x".join(str(-(-side // 16) * 16) for side in size)
    with pytest.raises(DataError, match=rf"only 48x64; .* etnet export RUN --size {padded} "):
        predictor.predict(image_of(random_labels(*size)))


@pytest.mark.parametrize("image_size", [None, (32, 32)])
def test_without_probabilities_everything_else_is_the_same(image_size):
    predictor = Predictor(PixelBackend(), contract(image_size=image_size))
    image = image_of(random_labels(21, 30))
    full, short = predictor.predict(image), predictor.predict(image, probabilities=False)
    assert short.probabilities is None
    np.testing.assert_array_equal(short.labels, full.labels)
    np.testing.assert_array_equal(short.edges, full.edges)


def test_leaving_a_predictor_closes_its_backend():
    backend = PixelBackend()
    with Predictor(backend, contract()):
        assert not backend.closed
    assert backend.closed


def test_no_image_needs_no_run():
    backend = PixelBackend()
    assert Predictor(backend, contract()).predict_batch([]) == []
    assert backend.shapes == []


def test_a_network_without_edge_guidance_gives_no_edge():
    assert Predictor(PixelBackend(with_edges=False), contract()).predict(np.zeros((8, 8, 3), np.uint8)).edges is None


def test_labels_are_the_most_probable_class_at_the_size_of_the_image():
    rule = contract(image_size=(16, 16))
    labels = np.zeros((32, 32), np.uint8)
    labels[:, 16:] = 2
    prediction = Predictor(PixelBackend(), rule).predict(image_of(labels))
    np.testing.assert_array_equal(prediction.labels, prediction.probabilities.argmax(0))
    np.testing.assert_array_equal(prediction.labels[:, :14], 0)
    np.testing.assert_array_equal(prediction.labels[:, 18:], 2)


def test_an_array_that_is_no_image_is_refused():
    with pytest.raises(DataError, match="expected"):
        Predictor(PixelBackend(), contract()).predict(np.zeros((4, 4), np.uint8))


def test_a_network_for_another_number_of_classes_is_refused():
    with pytest.raises(ModelFileError, match="3 classes"):
        Predictor(PixelBackend(num_classes=2), contract(3)).predict(np.zeros((8, 8, 3), np.uint8))


def test_a_class_beyond_the_contract_is_refused():
    with pytest.raises(ModelFileError, match="class 2, but its contract has 2 classes"):
        Predictor(PixelBackend(num_classes=3), contract(2)).predict(
            np.full((8, 8, 3), 2, np.uint8), probabilities=False
        )


def test_numbers_that_are_not_finite_are_an_error_and_not_a_background():
    class Diverged(PixelBackend):
        def run(self, images, *, probabilities=True):
            outputs = super().run(images, probabilities=probabilities)
            return outputs._replace(labels=np.full_like(outputs.labels, NOT_FINITE))

    with pytest.raises(CheckFailed, match="not finite"):
        Predictor(Diverged(), contract()).predict(np.zeros((8, 8, 3), np.uint8))


def test_missing_weights_are_one_sentence(tmp_path):
    with pytest.raises(ModelFileError, match="no such"):
        Predictor.load(tmp_path / "gone.safetensors")


def test_missing_torch_names_the_package_to_install(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    from helpers.weights import write_header_only

    weights = write_header_only(tmp_path / "best.safetensors")
    for name in [name for name in sys.modules if name.startswith("etnet.inference.backends.torch_backend")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault, match=r"etnet\[train\]"):
        Predictor.load(weights)


def test_the_inference_layer_works_where_torch_is_not_installed():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
import etnet.inference.evaluate, etnet.inference.folder, etnet.inference.overlay
import etnet.cli.infer, etnet.cli.evaluate
from helpers.backends import PixelBackend, contract
from etnet.inference.backends import NOT_FINITE
from etnet.inference.predictor import Predictor
print(Predictor(PixelBackend(), contract()).predict(np.ones((5, 7, 3), np.uint8)).labels.sum())
"""
    environment_path = [path for path in sys.path if path]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {environment_path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "35"


@settings(max_examples=40, deadline=None)
@given(row=st.floats(0, 40), column=st.floats(0, 50))
def test_a_region_of_interest_is_segmented_in_the_geometry_of_the_whole_image(row, column):
    labels = random_labels(40, 50)
    rule = contract(roi=RegionOfInterest(side=0.48, size=24))
    prediction = Predictor(PixelBackend(), rule).predict(image_of(labels), center=(row, column))
    inside = window_around((row, column), labels.shape, rule.roi).inside(labels.shape)
    expected = np.where(inside, labels, 0)
    np.testing.assert_array_equal(prediction.labels, expected)
    np.testing.assert_array_equal(prediction.edges, expected * 100)
    np.testing.assert_array_equal(prediction.probabilities.argmax(0), expected)
    np.testing.assert_array_equal(prediction.probabilities.sum(0), 1)
    assert prediction.center == (row, column)
    assert (prediction.labels.dtype, prediction.edges.dtype) == (np.uint8, np.uint8)


def test_labels_of_a_resized_region_are_the_most_probable_class_at_the_size_of_the_image():
    labels = np.zeros((60, 80), np.uint8)
    labels[20:50, 30:60] = 2
    predictor = Predictor(PixelBackend(), contract(roi=RegionOfInterest(side=0.5, size=64)))
    prediction = predictor.predict(image_of(labels), center=(35.0, 45.0))
    np.testing.assert_array_equal(prediction.labels, prediction.probabilities.argmax(0))
    short = predictor.predict(image_of(labels), center=(35.0, 45.0), probabilities=False)
    np.testing.assert_array_equal(short.labels, prediction.labels)
    assert np.count_nonzero(prediction.labels == 2) == pytest.approx(900, rel=0.08)


def test_images_of_any_size_share_a_run_when_the_region_has_a_fixed_size():
    backend = PixelBackend(input_size=(32, 32))
    predictor = Predictor(backend, contract(roi=RegionOfInterest(side=0.5, size=32)))
    labels = [random_labels(40, 64), random_labels(70, 64, seed=1)]
    centers = [(20.0, 30.0), (69.0, 0.0)]
    predictions = predictor.predict_batch([image_of(item) for item in labels], centers=centers)
    assert backend.shapes == [(2, 32, 32, 3)]
    assert [item.center for item in predictions] == centers
    assert [item.labels.shape for item in predictions] == [(40, 64), (70, 64)]
    for prediction, wanted in zip(predictions, labels, strict=True):
        assert set(np.unique(prediction.labels[wanted == 0])) == {0}


def test_without_a_centre_the_command_that_finds_it_is_named():
    predictor = Predictor(PixelBackend(), contract(roi=RegionOfInterest(side=0.5, size=32)))
    assert predictor.needs_center
    with pytest.raises(UsageError, match="etnet bundle LOCALIZER SEGMENTER"):
        predictor.predict(np.zeros((8, 8, 3), np.uint8))


def test_regions_that_are_cut_already_need_no_centre():
    predictor = Predictor(PixelBackend(), contract(roi=RegionOfInterest(side=0.5, size=32)))
    regions = predictor.of_regions()
    labels = random_labels(32, 32)
    assert not regions.needs_center
    np.testing.assert_array_equal(regions.predict(image_of(labels)).labels, labels)
    assert regions.of_regions() is regions
