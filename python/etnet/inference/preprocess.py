"""Fitting an image to the network's input and bringing results back, pixel for pixel.

The image is resized when the contract names a size, then padded at the right and bottom to the size multiple. Results
are cropped and resized back, so that they always have the geometry of the image. Leaves out: tiling of large images.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from etnet.data.resize import resize_image
from etnet.errors import DataError
from etnet.types import Contract, Float32Array, UInt8Array


@dataclass(frozen=True)
class Geometry:
    """How one image was fitted.

    Attributes:
        size: (height, width) of the image itself.
        resized: (height, width) after resizing; equal to `size` when the contract names no size.
        padded: (height, width) of the network's input; the image lies at its top left.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]


def plan(size: tuple[int, int], contract: Contract) -> Geometry:
    """The geometry in which an image of (height, width) goes through the network."""
    height, width = contract.image_size or size
    multiple = contract.size_multiple
    return Geometry(size, (height, width), (-(-height // multiple) * multiple, -(-width // multiple) * multiple))


def fit(image: UInt8Array, contract: Contract) -> tuple[UInt8Array, Geometry]:
    """Resize and pad an image for the network.

    Args:
        image: RGB image [H, W, 3], uint8.
        contract: Size rules of the weights.

    Returns:
        The network's input [H', W', 3], uint8, and the geometry that leads back.

    Raises:
        DataError: The array is no RGB image or has no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"image has shape {image.shape} and type {image.dtype}; expected [H, W, 3] uint8 RGB")
    if 0 in image.shape:
        raise DataError(f"image has shape {image.shape}; expected at least one pixel")
    geometry = plan((image.shape[0], image.shape[1]), contract)
    resized = resize_image(image, geometry.resized)
    bottom, right = (padded - inner for padded, inner in zip(geometry.padded, geometry.resized, strict=True))
    # Reflection needs as many pixels as it fills; below that only the border pixel can be repeated.
    fits = bottom < geometry.resized[0] and right < geometry.resized[1]
    border = cv2.BORDER_REFLECT_101 if fits else cv2.BORDER_REPLICATE
    padded = cv2.copyMakeBorder(np.ascontiguousarray(resized), 0, bottom, 0, right, border)
    return padded.astype(np.uint8, copy=False), geometry


def restore(maps: Float32Array, geometry: Geometry) -> Float32Array:
    """Bring maps of the network's input size back to the image's own size.

    Args:
        maps: Probabilities [C, H', W'], float32.
        geometry: What `fit` returned for this image.

    Returns:
        Probabilities [C, H, W], float32; exactly the cropped values when the image was not resized.
    """
    height, width = geometry.resized
    cropped = maps[:, :height, :width]
    if geometry.resized == geometry.size:
        return np.ascontiguousarray(cropped)
    columns, rows = geometry.size[1], geometry.size[0]
    # Averaging where results shrink, as for images: no pixel of the network's output is passed over.
    shrinks = rows * columns < height * width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    planes = [cv2.resize(plane, (columns, rows), interpolation=interpolation) for plane in cropped]
    return np.stack(planes).astype(np.float32, copy=False)


def restore_labels(labels: UInt8Array, geometry: Geometry) -> UInt8Array:
    """Cut the labels of an image that was not resized out of the network's input.

    Args:
        labels: Class indices [H', W'], uint8.
        geometry: What `fit` returned for this image; its `resized` is its `size`.

    Returns:
        Class indices [H, W], uint8.
    """
    return np.ascontiguousarray(labels[: geometry.size[0], : geometry.size[1]])
