from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.errors import CheckFailed, DataError, EnvironmentFault, ModelFileError
from etnet.inference.predictor import Predictor
from helpers.backends import PixelBackend, contract, image_of, random_labels


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_a_prediction_has_the_geometry_of_its_image(height, width):
    labels = random_labels(height, width)
    prediction = Predictor(PixelBackend(), contract()).predict(image_of(labels))
    np.testing.assert_array_equal(prediction.labels, labels)
    assert prediction.labels.dtype == np.uint8
    assert prediction.probabilities.shape == (3, height, width)
    assert prediction.edge is not None
    np.testing.assert_allclose(prediction.edge, labels * np.float32(100 / 255), rtol=1e-6)


def test_images_of_one_padded_size_share_a_run_and_keep_their_order():
    sizes = [(20, 20), (40, 20), (30, 31), (17, 32)]
    labels = [random_labels(*size, seed=seed) for seed, size in enumerate(sizes)]
    backend = PixelBackend()
    predictions = Predictor(backend, contract()).predict_batch([image_of(item) for item in labels])
    for prediction, expected in zip(predictions, labels, strict=True):
        np.testing.assert_array_equal(prediction.labels, expected)
    assert sorted(backend.shapes) == [(1, 48, 32, 3), (3, 32, 32, 3)]


def test_no_image_needs_no_run():
    backend = PixelBackend()
    assert Predictor(backend, contract()).predict_batch([]) == []
    assert backend.shapes == []


def test_a_network_without_edge_guidance_gives_no_edge():
    assert Predictor(PixelBackend(with_edges=False), contract()).predict(np.zeros((8, 8, 3), np.uint8)).edge is None


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


def test_numbers_that_are_not_finite_are_an_error_and_not_a_background():
    class Diverged(PixelBackend):
        def run(self, images):
            probabilities, edges = super().run(images)
            return np.full_like(probabilities, np.nan), edges

    with pytest.raises(CheckFailed, match="not finite"):
        Predictor(Diverged(), contract()).predict(np.zeros((8, 8, 3), np.uint8))


def test_missing_weights_are_one_sentence(tmp_path):
    with pytest.raises(ModelFileError, match="no such"):
        Predictor.from_weights(tmp_path / "gone.safetensors")


def test_missing_torch_names_the_package_to_install(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    from helpers.weights import write_header_only

    weights = write_header_only(tmp_path / "best.safetensors")
    for name in [name for name in sys.modules if name.startswith("etnet.inference.backends.torch_backend")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault, match=r"etnet\[train\]"):
        Predictor.from_weights(weights)


def test_the_inference_layer_works_where_torch_is_not_installed():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
import etnet.inference.evaluate, etnet.inference.folder, etnet.inference.overlay
import etnet.cli.infer, etnet.cli.evaluate
from helpers.backends import PixelBackend, contract
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
