"""Classes over a reduced image, for pictures of a few hundred pixels.

`etnet.inference.overlay` enlarges small images so that lines stay thin, which costs more time than a report of 1,000
pictures has; here the image is reduced first, and each class keeps the share of every reduced pixel that it covers.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from etnet.inference.report.content import Rgb
from etnet.inference.report.pictures import LONGEST_SIDE
from etnet.types import BoolArray, Float32Array, UInt8Array

_FILL_OPACITY = 0.3


def draw_thumbnail(
    image: UInt8Array,
    labels: UInt8Array,
    class_colors: Sequence[Rgb],
    *,
    region: tuple[slice, slice] | None = None,
) -> UInt8Array:
    """Draw the classes over their image: a translucent fill and an outline of one pixel in the colour of each class.

    Args:
        image: RGB image [H, W, 3], uint8.
        labels: Class indices [H, W], uint8; the background, 0, stays as it is.
        class_colors: An RGB colour, 0..255 each, per class.
        region: Rows and columns to draw, such as the region of interest; None draws the whole image.

    Returns:
        RGB picture [h, w, 3], uint8, at most `LONGEST_SIDE` pixels high and wide; never larger than what it shows.
    """
    if region is not None:
        image, labels = image[region], labels[region]
    height, width = labels.shape
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    canvas = np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA), np.float32)
    for index in np.unique(labels):
        if index:
            color = np.asarray(class_colors[index], np.float32)
            covered = _coverage(labels == index, size)
            weight = np.maximum(_FILL_OPACITY * covered, _outline(covered))[..., None]
            canvas += weight * (color - canvas)
    return np.rint(canvas).astype(np.uint8)


def _coverage(where: BoolArray, size: tuple[int, int]) -> Float32Array:
    """Share of each reduced pixel that a class covers [h, w], 0..1."""
    full = np.multiply(where, 255, dtype=np.uint8)
    covered: Float32Array = np.asarray(cv2.resize(full, size, interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(covered / 255, np.float32)


def _outline(covered: Float32Array) -> Float32Array:
    """The part of a class within one pixel of its border; where the picture ends, a class has no border."""
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(covered, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(1.0,))
    return np.asarray(covered - inner, np.float32)
