"""A network that can be computed by hand, and one tester for every backend that runs exported files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etnet.errors import EtnetError, UsageError
from etnet.inference.backends import Backend, NetworkOutputs, open_backend
from etnet.inference.model_file import ModelDescription
from etnet.inference.predictor import Predictor
from etnet.manifest import read_weights_info
from etnet.sidecar import sidecar_path
from etnet.types import Contract, RegionOfInterest, UInt8Array
from helpers.weights import small_recipe, write_confident

CLASS_NAMES = ("background", "vessel", "optic_disc")
CLASS_COLORS = ((0, 0, 0), (46, 204, 113), (231, 76, 60))


def contract(
    num_classes: int = 3,
    *,
    image_size: tuple[int, int] | None = None,
    size_multiple: int = 16,
    roi: RegionOfInterest | None = None,
) -> Contract:
    """A contract of up to three classes."""
    return Contract(
        class_names=CLASS_NAMES[:num_classes],
        class_colors=CLASS_COLORS[:num_classes],
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        size_multiple=size_multiple,
        image_size=image_size,
        roi=roi,
    )


class PixelBackend:
    """The class of a pixel is its red value (values above the last class give the last); its edge is green.

    Attributes:
        shapes: Shape of each batch that was run.
        closed: Whether it was closed.
    """

    name = "pixel arithmetic"
    concurrent_runs = 1

    def __init__(
        self,
        num_classes: int = 3,
        *,
        with_edges: bool = True,
        input_size: tuple[int, int] | None = None,
        max_batch: int | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.with_edges = with_edges
        self.input_size = input_size
        self.max_batch = max_batch
        self.shapes: list[tuple[int, ...]] = []
        self.closed = False

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        self.shapes.append(images.shape)
        labels = np.minimum(images[..., 0], self.num_classes - 1)
        one_hot = np.moveaxis(np.eye(self.num_classes, dtype=np.float32)[labels], -1, 1)
        return NetworkOutputs(
            labels,
            images[..., 1].copy() if self.with_edges else None,
            np.ascontiguousarray(one_hot) if probabilities else None,
        )

    def close(self) -> None:
        self.closed = True


def image_of(labels: UInt8Array) -> UInt8Array:
    """The RGB image that `PixelBackend` segments into these labels."""
    image = np.zeros((*labels.shape, 3), np.uint8)
    image[..., 0] = labels
    image[..., 1] = labels * 100
    return image


def random_labels(height: int, width: int, *, seed: int = 0, num_classes: int = 3) -> UInt8Array:
    """Class indices [height, width] without structure, so that any shift of a pixel shows."""
    return np.random.default_rng(seed).integers(0, num_classes, (height, width), dtype=np.uint8)


def pixel_predictor(path: Path, **options: Any) -> Predictor:
    """Stands in for `Predictor.load`: the header of the weights is real, the network is `PixelBackend`."""
    return Predictor(PixelBackend(), contract(), description=ModelDescription.of_weights(read_weights_info(path)))


def photographs(count: int, height: int, width: int, *, seed: int = 0) -> UInt8Array:
    """Smooth coloured images [count, height, width, 3], as unlike each other as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in coarse])


class BackendTester:
    """Tests that hold for any backend that runs exported files.

    A subclass names the backend and says how far its numbers may be from PyTorch's.

    Attributes:
        backend: Its name in the registry.
        tolerance: Largest difference of a probability.
        share: Share of the pixels for which that holds.
    """

    backend = ""
    tolerance = 1e-4
    share = 1.0

    @pytest.fixture(params=["three_classes", "two_classes", "no_edges", "high_resolution"])
    def models(self, request, exported_models) -> tuple[Path, Path]:
        """Weights and the file exported from them; see `export_kind`."""
        return exported_models(request.param)

    @pytest.fixture
    def running(self, models: tuple[Path, Path]) -> Iterator[Backend]:
        backend = open_backend(models[1], backend=self.backend, threads=1).backend
        yield backend
        backend.close()

    @pytest.mark.parametrize("count", [1, 3])
    def test_the_outputs_are_those_of_pytorch(self, models, running, count):
        images = photographs(count, 48, 64)
        expected = open_backend(models[0], backend="torch", device="cpu").backend.run(images)
        outputs = running.run(images)
        difference = np.abs(outputs.probabilities - expected.probabilities)
        assert np.mean(difference <= self.tolerance) >= self.share, difference.max()
        # A label may differ only where two classes are as good as equal.
        ranked = np.sort(expected.probabilities, axis=1)
        sure = ranked[:, -1] - ranked[:, -2] > 2 * self.tolerance
        assert np.mean(outputs.labels[sure] == expected.labels[sure]) >= self.share
        assert len(np.unique(expected.labels)) > 1
        assert sure.mean() > 0.8
        assert (outputs.labels.dtype, outputs.probabilities.dtype) == (np.uint8, np.float32)
        if expected.edges is None:
            assert outputs.edges is None
        else:
            assert outputs.edges.dtype == np.uint8
            steps = np.abs(outputs.edges.astype(int) - expected.edges)
            assert np.mean(steps <= 255 * self.tolerance + 1) >= self.share, steps.max()

    def test_probabilities_come_only_when_asked_for(self, running):
        images = photographs(2, 48, 64)
        full, short = running.run(images), running.run(images, probabilities=False)
        assert short.probabilities is None
        np.testing.assert_array_equal(short.labels, full.labels)

    def test_results_are_not_overwritten_by_the_next_run(self, running):
        first = running.run(photographs(1, 48, 64))
        kept = first.probabilities.copy()
        running.run(photographs(1, 48, 64, seed=1))
        np.testing.assert_array_equal(first.probabilities, kept)

    def test_images_that_are_not_contiguous_are_read_as_they_look(self, running):
        images = photographs(1, 48, 64)
        mirrored = running.run(images[:, :, ::-1])
        copied = running.run(np.ascontiguousarray(images[:, :, ::-1]))
        np.testing.assert_array_equal(mirrored.labels, copied.labels)

    def test_several_threads_get_their_own_results(self, running):
        batches = [photographs(1, 48, 64, seed=seed) for seed in range(6)]
        expected = [running.run(batch).labels for batch in batches]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda batch: running.run(batch).labels, batches))
        for labels, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(labels, wanted)

    def test_the_description_is_that_of_the_weights(self, models):
        opened = open_backend(models[1], backend=self.backend, threads=1)
        info = read_weights_info(models[0])
        assert opened.description.contract == info.contract
        assert opened.description.source.weights_sha256 == info.sha256
        assert opened.backend.name.startswith(self.backend)
        opened.backend.close()

    def test_a_size_that_does_not_fit_is_one_sentence(self, running):
        with pytest.raises(EtnetError, match=r"40x64 pixels .*48x64"):
            running.run(photographs(1, 40, 64))

    @pytest.mark.parametrize(
        "images", [np.zeros((48, 64, 3), np.uint8), np.zeros((1, 48, 64, 3)), np.zeros((1, 3, 48, 64), np.uint8)]
    )
    def test_a_batch_of_another_kind_is_refused(self, running, images):
        with pytest.raises(EtnetError, match=r"\[N, H, W, 3\]"):
            running.run(images)

    def test_a_closed_backend_says_so_and_can_be_closed_again(self, models):
        backend = open_backend(models[1], backend=self.backend, threads=1).backend
        backend.close()
        backend.close()
        with pytest.raises(UsageError, match="closed"):
            backend.run(photographs(1, 48, 64))


def export_kind(kind: str, folder: Path) -> tuple[Path, Path]:
    """Weights and the file exported from them: three classes of free size, or two classes for 48x64 pixels.

    `no_edges` is without edge guidance, `high_resolution` with the option of the network that the paper lacks.
    """
    recipe = small_recipe() if kind == "three_classes" else small_recipe(class_names=["background", "vessel"])
    changes = {
        "no_edges": {"use_egm": False},
        "high_resolution": {"high_resolution": True},
    }
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=changes.get(kind, {}))})
    weights = write_confident(folder / "best.safetensors", recipe)
    return weights, exported(weights, folder / "model.onnx", size=None if kind == "three_classes" else (48, 64))


def copy_model(model: Path, folder: Path) -> Path:
    """Copy an exported file and its sidecar."""
    for path in (model, sidecar_path(model)):
        shutil.copy(path, folder)
    return folder / model.name


def exported(weights: Path, output: Path, **options: Any) -> Path:
    """Export weights without a comparison."""
    from etnet.export.onnx import export_onnx

    export_onnx(weights, output, **options)
    return output
