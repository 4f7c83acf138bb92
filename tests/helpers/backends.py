"""A network that can be computed by hand, so that everything around networks is tested without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from etnet.inference.backends import NetworkOutputs
from etnet.inference.model_file import ModelDescription
from etnet.inference.predictor import Predictor
from etnet.manifest import read_weights_info
from etnet.types import Contract, UInt8Array

CLASS_NAMES = ("background", "vessel", "optic_disc")
CLASS_COLORS = ((0, 0, 0), (46, 204, 113), (231, 76, 60))


def contract(num_classes: int = 3, *, image_size: tuple[int, int] | None = None, size_multiple: int = 16) -> Contract:
    """A contract of up to three classes."""
    return Contract(
        class_names=CLASS_NAMES[:num_classes],
        class_colors=CLASS_COLORS[:num_classes],
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        size_multiple=size_multiple,
        image_size=image_size,
    )


class PixelBackend:
    """The class of a pixel is its red value (values above the last class give the last); its edge is green.

    Attributes:
        shapes: Shape of each batch that was run.
        closed: Whether it was closed.
    """

    name = "pixel arithmetic"

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
