"""Networks computed by hand that see a neighbourhood, or where in their input a pixel lies."""

from __future__ import annotations

import cv2
import numpy as np

from etnet.inference.backends import NetworkOutputs
from etnet.types import Float32Array, UInt8Array
from helpers.backends import PixelBackend

BLOCK = 16


def outputs_of(foreground: Float32Array, edges: UInt8Array, *, probabilities: bool) -> NetworkOutputs:
    """The outputs of a network of two classes from the probability of the second [N, H, W]."""
    maps = np.stack([1 - foreground, foreground], axis=1)
    return NetworkOutputs(maps.argmax(1).astype(np.uint8), edges, maps if probabilities else None)


class NeighbourhoodBackend(PixelBackend):
    """Probability and edge of a pixel are means of its neighbourhood and of its block of a grid of 16 pixels.

    Like a convolution with an output stride of 16: what it says depends on where the grid lies, and near the border of
    its input on what lies beyond, of which it knows nothing.

    Attributes:
        radius: How far a pixel sees to each side, beyond its block.
    """

    name = "neighbourhood arithmetic"

    def __init__(self, radius: int, *, input_size: tuple[int, int] | None = None, with_edges: bool = True) -> None:
        super().__init__(2, input_size=input_size, with_edges=with_edges)
        self.radius = radius

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        self.shapes.append(images.shape)
        found = np.stack([self._foreground(image) for image in images])
        outputs = outputs_of(found, np.rint(255 * found).astype(np.uint8), probabilities=probabilities)
        return outputs if self.with_edges else outputs._replace(edges=None)

    def _foreground(self, image: UInt8Array) -> Float32Array:
        grey = image[..., 0].astype(np.float32) / 255
        side = 2 * self.radius + 1
        mean = cv2.boxFilter(grey, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
        height, width = grey.shape
        blocks = grey.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3))
        return ((mean + blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)) / 2).astype(np.float32)


class PlaceBackend(PixelBackend):
    """Half of what it says of a pixel is its red value, half is where in the network's input it lies."""

    name = "place arithmetic"

    def __init__(self) -> None:
        super().__init__(2)

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        self.shapes.append(images.shape)
        height, width = images.shape[1:3]
        place = np.add.outer(np.linspace(0, 0.7, height), np.linspace(0, 0.3, width))
        found = (images[..., 0] / 510 + place / 2).astype(np.float32)
        return outputs_of(found, np.rint(255 * found).astype(np.uint8), probabilities=probabilities)
