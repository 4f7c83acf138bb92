"""Statistics that tell whether an image resembles those a network was trained on.

They are measured on a reduced copy, at one scale for all images, so that a large and a small picture of the same thing
have nearly the same values, and blur counts by its share of the picture: what is lost only at full size does not show.
Fundus photographs and radiographs have a black border whose extent says nothing about the picture; it is left out of
everything but `frame`.
"""

from __future__ import annotations

from dataclasses import astuple

import cv2
import numpy as np

from etnet.data.dataset import SegmentationDataset
from etnet.data.resize import resize_image
from etnet.types import BoolArray, Float32Array, ImageStatistics, TrainingRange, UInt8Array

MEASURED_IMAGES = 128
"""Training images that are measured at most, spread evenly over the data set: a run must start soon."""

_LONG_SIDE = 320
_BLACK = 16
"""Grey below which a pixel belongs to the border; sensors and JPEG leave black a little above 0."""
_BORDER_MARGIN = 9
"""Side of the square by which the field shrinks: the step at the border is no detail of the picture."""
_SMALLEST_FIELD = 0.02
_FINE, _COARSE = 1.0, 4.0
_NO_TEXTURE = 1e-3
_FRAME_SHARE = 20


def working_copy(image: UInt8Array) -> UInt8Array:
    """The image [H, W, 3], uint8, with a longer side of at most 320 pixels; smaller images are not enlarged."""
    height, width = image.shape[:2]
    scale = _LONG_SIDE / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    return resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def grey_of(image: UInt8Array) -> UInt8Array:
    """Luma [H, W], uint8, of an RGB image [H, W, 3], uint8."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def image_statistics(image: UInt8Array) -> ImageStatistics:
    """Measure an RGB image [H, W, 3], uint8, of any size.

    Example:
        >>> grey = image_statistics(np.full((50, 60, 3), 51, np.uint8))
        >>> grey.brightness, grey.contrast, round(grey.red, 3)
        (0.2, 0.0, 0.333)
    """
    small = working_copy(image)
    return statistics_of_copy(small, grey_of(small))


def statistics_of_copy(small: UInt8Array, grey: UInt8Array) -> ImageStatistics:
    """Measure what `working_copy` returned, with its `grey_of`, for callers that need both themselves."""
    field = _field(grey)
    inside = field.view(np.uint8)
    mean, deviation = cv2.meanStdDev(grey, mask=inside)
    red, green, blue, _ = cv2.mean(small, mask=inside)
    total = red + green + blue
    # A black image has no colour; it counts as grey.
    red, blue = (red / total, blue / total) if total else (1 / 3, 1 / 3)
    return ImageStatistics(
        brightness=float(mean[0, 0]) / 255,
        contrast=float(deviation[0, 0]) / 255,
        sharpness=_sharpness(grey, inside),
        red=red,
        blue=blue,
        frame=_frame(grey),
    )


def measure_training_range(dataset: SegmentationDataset, *, limit: int = MEASURED_IMAGES) -> TrainingRange:
    """The range of the statistics over a data set's images, or over `limit` of them.

    Args:
        dataset: At least one image.
        limit: How many images are read at most, spread evenly over the data set.

    Raises:
        DataError: An image cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().astype(int))
    measured = [astuple(image_statistics(dataset.load(int(index)).image)) for index in chosen]
    columns = list(zip(*measured, strict=True))
    return TrainingRange(
        low=ImageStatistics(*(min(column) for column in columns)),
        high=ImageStatistics(*(max(column) for column in columns)),
        images=len(measured),
    )


def _field(grey: UInt8Array) -> BoolArray:
    """The picture without its black border [H, W]; all of it where next to nothing is brighter than black."""
    bright = (grey >= _BLACK).astype(np.uint8)
    field: BoolArray = np.asarray(cv2.erode(bright, np.ones((_BORDER_MARGIN, _BORDER_MARGIN), np.uint8))) > 0
    return field if field.mean() >= _SMALLEST_FIELD else np.ones_like(field)


def _sharpness(grey: UInt8Array, inside: UInt8Array) -> float:
    """Standard deviation of what a blur of 1 pixel removes, over that of what a further blur, of 4 pixels, removes."""
    plane = grey.astype(np.float32)
    soft = _blurred(plane, _FINE)
    fine, coarse = plane - soft, soft - _blurred(plane, _COARSE)
    detail, structure = (float(cv2.meanStdDev(band, mask=inside)[1][0, 0]) for band in (fine, coarse))
    return detail / max(structure, _NO_TEXTURE)


def _blurred(plane: Float32Array, sigma: float) -> Float32Array:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _frame(grey: UInt8Array) -> float:
    height, width = grey.shape
    rows, columns = max(1, height // _FRAME_SHARE), max(1, width // _FRAME_SHARE)
    frame = np.ones(grey.shape, np.uint8)
    frame[rows : height - rows, columns : width - columns] = 0
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    return (cv2.mean(grey, mask=frame)[0] - mean) / max(deviation, 1.0)
