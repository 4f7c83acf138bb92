"""Fitting an image to the network's input and bringing results back, pixel for pixel.

The image is resized when the contract names a size, then padded at the right and bottom to the size multiple. Where the
contract names a region of interest, only the square around a centre goes that way (paper Sec. 3: "first localize the
disc centers"). Results are cropped, resized back and pasted, so that they always have the geometry of the image. Images
that are too large for this go through in parts, see `tiling`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from etnet.data.resize import resize_image
from etnet.data.roi import Window, cut, paste, window_around
from etnet.errors import DataError, UsageError
from etnet.types import Contract, Float32Array, UInt8Array

Center = tuple[float, float]
"""(row, column) of a place in an image, in pixels; the middle of the first pixel is (0.5, 0.5)."""


@dataclass(frozen=True)
class Geometry:
    """How one image was fitted.

    Attributes:
        size: (height, width) of the image itself.
        resized: (height, width) after resizing; equal to `source` when the contract names no size.
        padded: (height, width) of the network's input; the image lies at its top left.
        window: The square that was cut out of the image; None where the whole image was taken.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]
    window: Window | None = None

    @property
    def source(self) -> tuple[int, int]:
        """(height, width) of what was resized: the window, or the whole image."""
        return self.size if self.window is None else (self.window.side, self.window.side)


def plan(size: tuple[int, int], contract: Contract, *, center: Center | None = None) -> Geometry:
    """The geometry in which an image of (height, width) goes through the network.

    Args:
        size: (height, width) of the image.
        contract: Size rules of the weights.
        center: (row, column) of the structure to segment; needed where the contract has a region of interest, and only
            there.

    Raises:
        UsageError: The centre is missing, or there is no use for it.
        DataError: The centre lies outside the image.
    """
    window = _window(size, contract, center)
    if window is None or contract.roi is None:
        height, width = contract.image_size or size
    else:
        height = width = contract.roi.size
    multiple = contract.size_multiple
    padded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    return Geometry(size, (height, width), padded, window)


def _window(size: tuple[int, int], contract: Contract, center: Center | None) -> Window | None:
    roi = contract.roi
    if roi is None:
        if center is not None:
            raise UsageError("a centre was given, but this network segments whole images; leave the centre out")
        return None
    if center is None:
        raise UsageError(
            f"this network segments a square of {roi.side:g} of the image's width around a centre, and none was given; "
            "join it with a network that finds the centre: etnet bundle LOCALIZER SEGMENTER --output DIR"
        )
    row, column = center
    # The negation also refuses a centre that is no number.
    if not (0 <= row <= size[0] and 0 <= column <= size[1]):
        raise DataError(
            f"the centre (row {row:g}, column {column:g}) lies outside the image of {size[0]}x{size[1]} pixels "
            "(height x width); expected a place inside it"
        )
    return window_around((row, column), size, roi)


def region_contract(contract: Contract) -> Contract:
    """The contract for images that already are the region of interest: they are taken whole and resized to its size.

    The training range goes: it was measured on whole images. A contract without a region of interest is returned as it
    is.
    """
    if contract.roi is None:
        return contract
    return replace(contract, roi=None, image_size=(contract.roi.size, contract.roi.size), training_range=None)


def require_image(image: UInt8Array) -> None:
    """Refuse an array that is no RGB image.

    Raises:
        DataError: It is not [H, W, 3], uint8, or has no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"image has shape {image.shape} and type {image.dtype}; expected [H, W, 3] uint8 RGB")
    if 0 in image.shape:
        raise DataError(f"image has shape {image.shape}; expected at least one pixel")


def fit(image: UInt8Array, contract: Contract, *, center: Center | None = None) -> tuple[UInt8Array, Geometry]:
    """Cut out the region of interest, resize and pad an image for the network.

    Args:
        image: RGB image [H, W, 3], uint8.
        contract: Size rules of the weights.
        center: (row, column) of the region of interest; see `plan`.

    Returns:
        The network's input [H', W', 3], uint8, and the geometry that leads back.

    Raises:
        DataError: The array is no RGB image or has no pixels, or the centre lies outside it.
        UsageError: The centre is missing, or there is no use for it.
    """
    require_image(image)
    geometry = plan((image.shape[0], image.shape[1]), contract, center=center)
    if geometry.window is None:
        resized = resize_image(image, geometry.resized)
    else:
        resized = cut(image, geometry.window, geometry.resized[0])
    bottom, right = (padded - inner for padded, inner in zip(geometry.padded, geometry.resized, strict=True))
    # Reflection needs as many pixels as it fills; below that only the border pixel can be repeated.
    fits = bottom < geometry.resized[0] and right < geometry.resized[1]
    border = cv2.BORDER_REFLECT_101 if fits else cv2.BORDER_REPLICATE
    padded = cv2.copyMakeBorder(np.ascontiguousarray(resized), 0, bottom, 0, right, border)
    return padded.astype(np.uint8, copy=False), geometry


def restore(maps: Float32Array, geometry: Geometry) -> Float32Array:
    """Bring maps of the network's input size back to the resolution of the image.

    Args:
        maps: Probabilities [C, H', W'], float32.
        geometry: What `fit` returned for this image.

    Returns:
        Probabilities [C, h, w], float32, (h, w) = `geometry.source`: of the whole image, or of the window, which
        `paste` brings into the image. Exactly the cropped values where nothing was resized.
    """
    height, width = geometry.resized
    cropped = maps[:, :height, :width]
    if geometry.resized == geometry.source:
        return np.ascontiguousarray(cropped)
    rows, columns = geometry.source
    # Averaging where results shrink, as for images: no pixel of the network's output is passed over.
    shrinks = rows * columns < height * width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    planes = [cv2.resize(plane, (columns, rows), interpolation=interpolation) for plane in cropped]
    return np.stack(planes).astype(np.float32, copy=False)


def restore_labels(labels: UInt8Array, geometry: Geometry) -> UInt8Array:
    """Cut labels that were not resized out of the network's input.

    Args:
        labels: Class indices [H', W'], uint8.
        geometry: What `fit` returned for this image; its `resized` is its `source`.

    Returns:
        Class indices [h, w], uint8, (h, w) = `geometry.source`.
    """
    height, width = geometry.source
    return np.ascontiguousarray(labels[:height, :width])


def paste_plane(plane: UInt8Array, geometry: Geometry) -> UInt8Array:
    """Bring labels or an edge map of the window into the image; outside it they are 0, in labels the background.

    Args:
        plane: Map [h, w] at the resolution of the image, (h, w) = `geometry.source`.
        geometry: What `fit` returned for this image.

    Returns:
        The map [H, W] of the whole image; where there is no window, `plane` itself.
    """
    return plane if geometry.window is None else paste(plane[None], geometry.window, geometry.size)[0]


def paste_probabilities(maps: Float32Array, geometry: Geometry) -> Float32Array:
    """Bring class probabilities of the window into the image; outside it class 0, the background, is certain.

    Args:
        maps: Probabilities [C, h, w], float32, (h, w) = `geometry.source`.
        geometry: What `fit` returned for this image.

    Returns:
        Probabilities [C, H, W], float32; where there is no window, `maps` itself.
    """
    if geometry.window is None:
        return maps
    whole = paste(maps, geometry.window, geometry.size)
    whole[0, ~geometry.window.inside(geometry.size)] = 1.0
    return whole
