"""A network that can be computed by hand, so that everything around networks is tested without one."""

from __future__ import annotations

import numpy as np

from etnet.types import Contract, Float32Array, UInt8Array

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
    """The class of a pixel is its red value (values above the last class give the last); its edge is green / 255.

    Attributes:
        shapes: Shape of each batch that was run.
    """

    name = "pixel arithmetic"

    def __init__(self, num_classes: int = 3, *, with_edges: bool = True) -> None:
        self.num_classes = num_classes
        self.with_edges = with_edges
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images: UInt8Array) -> tuple[Float32Array, Float32Array | None]:
        self.shapes.append(images.shape)
        classes = np.minimum(images[..., 0], self.num_classes - 1)
        probabilities = np.moveaxis(np.eye(self.num_classes, dtype=np.float32)[classes], -1, 1)
        edges = (images[..., 1] / 255).astype(np.float32)
        return np.ascontiguousarray(probabilities), edges if self.with_edges else None


def image_of(labels: UInt8Array) -> UInt8Array:
    """The RGB image that `PixelBackend` segments into these labels."""
    image = np.zeros((*labels.shape, 3), np.uint8)
    image[..., 0] = labels
    image[..., 1] = labels * 100
    return image


def random_labels(height: int, width: int, *, seed: int = 0, num_classes: int = 3) -> UInt8Array:
    """Class indices [height, width] without structure, so that any shift of a pixel shows."""
    return np.random.default_rng(seed).integers(0, num_classes, (height, width), dtype=np.uint8)
