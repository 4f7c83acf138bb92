from __future__ import annotations

import numpy as np
import pytest

from etnet.inference.backends import NOT_FINITE, NetworkOutputs
from etnet.inference.flips import FlipAveragingBackend
from etnet.inference.predictor import Predictor
from helpers.backends import PixelBackend, contract, image_of, random_labels
from helpers.tiles import PlaceBackend


def pictures(count: int = 2, height: int = 16, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_a_network_that_sees_single_pixels_gives_the_same_with_flips():
    labels = random_labels(30, 41)
    plain = Predictor(PixelBackend(), contract()).predict(image_of(labels))
    flipped = Predictor(FlipAveragingBackend(PixelBackend()), contract()).predict(image_of(labels))
    np.testing.assert_array_equal(flipped.labels, plain.labels)
    np.testing.assert_array_equal(flipped.edges, plain.edges)
    np.testing.assert_allclose(flipped.probabilities, plain.probabilities, atol=1e-6)


def test_the_mean_is_over_the_image_and_its_three_mirror_images():
    images, network = pictures(), PlaceBackend()
    terms = []
    for axes in ([], [1], [2], [1, 2]):
        outputs = network.run(np.flip(images, axes))
        terms.append((np.flip(outputs.probabilities, [axis + 1 for axis in axes]), np.flip(outputs.edges, axes)))
    found = FlipAveragingBackend(network).run(images)
    expected = np.mean([term[0] for term in terms], axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.argmax(1))
    np.testing.assert_array_equal(found.edges, np.rint(np.mean([term[1] for term in terms], axis=0)))
    # Otherwise one flip would do as well as four.
    assert np.abs(terms[0][0] - expected).max() > 0.1
    assert (found.labels.dtype, found.edges.dtype, found.probabilities.dtype) == (np.uint8, np.uint8, np.float32)


def test_mirrored_images_have_mirrored_results():
    images, backend = pictures(), FlipAveragingBackend(PlaceBackend())
    found, mirrored = backend.run(images), backend.run(np.ascontiguousarray(images[:, :, ::-1]))
    np.testing.assert_allclose(mirrored.probabilities[..., ::-1], found.probabilities, atol=1e-6)


def test_without_probabilities_the_labels_are_the_same():
    backend, images = FlipAveragingBackend(PlaceBackend()), pictures()
    short = backend.run(images, probabilities=False)
    assert short.probabilities is None
    np.testing.assert_array_equal(short.labels, backend.run(images).labels)


def test_a_pixel_that_is_not_finite_in_one_flip_stays_so():
    class BrokenOnce(PixelBackend):
        """Gives no number for the top left pixel of the second batch, which is mirrored."""

        def run(self, images, *, probabilities=True) -> NetworkOutputs:
            outputs = super().run(images, probabilities=probabilities)
            if len(self.shapes) == 2:
                outputs.labels[:, 0, 0] = NOT_FINITE
            return outputs

    labels = FlipAveragingBackend(BrokenOnce()).run(np.zeros((1, 4, 6, 3), np.uint8)).labels
    assert labels[0, 0, 5] == NOT_FINITE
    assert np.count_nonzero(labels == NOT_FINITE) == 1


def test_what_the_backend_takes_and_holds_is_passed_on():
    inner = PixelBackend(input_size=(32, 48), max_batch=3, with_edges=False)
    backend = FlipAveragingBackend(inner)
    assert (backend.input_size, backend.max_batch) == ((32, 48), 3)
    assert backend.name == "pixel arithmetic, mean of 4 flips"
    assert backend.run(np.zeros((1, 32, 48, 3), np.uint8)).edges is None
    backend.close()
    assert inner.closed


@pytest.mark.parametrize("kind", ["three_classes"])
def test_a_real_network_averages_on_every_runtime(kind, exported_models):
    from etnet.inference.backends import open_backend

    weights, onnx = exported_models(kind)
    images = pictures(1, 48, 64)
    found = [
        FlipAveragingBackend(open_backend(path, backend=name, device="cpu").backend).run(images)
        for path, name in ((weights, "torch"), (onnx, "onnxruntime"))
    ]
    np.testing.assert_allclose(found[0].probabilities, found[1].probabilities, atol=1e-4)
