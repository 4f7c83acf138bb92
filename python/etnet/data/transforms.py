"""Random changes of a training sample (paper Sec. 2.3): one affine warp, then one colour matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from etnet.config.data_section import AugmentationSection, RoiSection
from etnet.data.edges import edge_map
from etnet.data.resize import resize_image, resize_mask
from etnet.data.roi import require_center, window_around
from etnet.types import Sample, UInt8Array

_LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True)
class TrainingSample:
    """One augmented crop.

    Attributes:
        id: Name of the image it comes from.
        image: RGB [H, W, 3], uint8.
        mask: Class indices [H, W], uint8.
        edge: Boundary band [H, W], uint8, {0, 1} (and `ignore_index` where the mask has it).
    """

    id: str
    image: UInt8Array
    mask: UInt8Array
    edge: UInt8Array


def augment(
    sample: Sample,
    *,
    crop_size: int,
    augmentation: AugmentationSection,
    edge_width: int,
    ignore_index: int | None = None,
    image_size: tuple[int, int] | None = None,
    roi: RoiSection | None = None,
    generator: np.random.Generator,
) -> TrainingSample:
    """Mirrors, scales, rotates and crops a sample in one interpolation, then changes its colours.

    Places outside the image are filled by reflection, also where the image is smaller than the crop. The edge target is
    made after the warp, so that its width is the same at every scale.

    With a region of interest, the square around the mask's true centre, moved at random, takes the image's place; what
    lies around it is seen where scale and rotation reach beyond it.

    Args:
        sample: Image [H, W, 3], uint8, and mask [H, W], uint8, at their own size.
        crop_size: Height and width of the result.
        augmentation: Probabilities and ranges.
        edge_width: Width of the edge target in pixels of the result.
        ignore_index: Mask value of pixels without label.
        image_size: (height, width) to which the image is resized before everything else; None keeps its size.
        roi: Region of interest; None takes the whole image.
        generator: The only source of randomness.

    Returns:
        The crop, [crop_size, crop_size].

    Raises:
        DataError: There is a region of interest, and the mask has nothing to centre it on.
    """
    image, mask = sample.image, sample.mask
    if image_size is not None:
        image, mask = resize_image(image, image_size), resize_mask(mask, image_size)
    extent, placing = _extent(sample.id, mask, roi=roi, ignore_index=ignore_index, generator=generator)
    matrix = placing @ _random_affine(extent, crop_size=crop_size, augmentation=augmentation, generator=generator)
    size = (crop_size, crop_size)
    flags = cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101
    image = _bytes(cv2.warpAffine(image, matrix[:2], size, flags=flags | cv2.INTER_LINEAR, borderMode=border))
    mask = _bytes(cv2.warpAffine(mask, matrix[:2], size, flags=flags | cv2.INTER_NEAREST, borderMode=border))
    if generator.random() < augmentation.color_jitter:
        image = jitter_color(image, augmentation=augmentation, generator=generator)
    return TrainingSample(sample.id, image, mask, edge_map(mask, width=edge_width, ignore_index=ignore_index))


def crop_outline(
    sample: Sample,
    *,
    crop_size: int,
    augmentation: AugmentationSection,
    ignore_index: int | None = None,
    image_size: tuple[int, int] | None = None,
    roi: RoiSection | None = None,
    generator: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Corners (x, y) [4, 2], in pixels of the image, of the crop that `augment` takes with the same generator."""
    shape = sample.mask.shape
    # A recipe that names a region of interest names no image size.
    resized = image_size or shape
    extent, placing = (
        (resized, np.eye(3))
        if roi is None
        else _extent(sample.id, sample.mask, roi=roi, ignore_index=ignore_index, generator=generator)
    )
    matrix = placing @ _random_affine(extent, crop_size=crop_size, augmentation=augmentation, generator=generator)
    corners = np.array([[0, 0], [crop_size, 0], [crop_size, crop_size], [0, crop_size]]) - 0.5
    in_resized = corners @ matrix[:2, :2].T + matrix[:2, 2] + 0.5
    outline: npt.NDArray[np.float64] = in_resized * (shape[1] / resized[1], shape[0] / resized[0])
    return outline


def jitter_color(image: UInt8Array, *, augmentation: AugmentationSection, generator: np.random.Generator) -> UInt8Array:
    """Random brightness, contrast, saturation and hue as one 3x4 matrix, so that rounding and clipping happen once.

    Ours: the paper names no ranges and no colour space; the hue is turned in YIQ space, which is linear, where others
    shift the angle of HSV.

    Args:
        image: RGB [H, W, 3], uint8.
        augmentation: Ranges.
        generator: The only source of randomness.

    Returns:
        RGB [H, W, 3], uint8.
    """
    ranges = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    brightness, contrast, saturation, hue = (generator.uniform(-limit, limit) for limit in ranges)
    mean = np.asarray(cv2.mean(image)[:3])
    matrix = color_matrix(mean, brightness=1 + brightness, contrast=1 + contrast, saturation=1 + saturation, hue=hue)
    return _bytes(cv2.transform(image, matrix))


def color_matrix(
    mean: npt.NDArray[np.float64], *, brightness: float, contrast: float, saturation: float, hue: float
) -> npt.NDArray[np.float64]:
    """The matrix [3, 4] that scales brightness, stretches contrast about the mean luma, mixes with grey, turns the hue.

    Args:
        mean: Mean of each channel [3] of the image, which stays fixed under a change of contrast.
        brightness: Factor; 1 changes nothing.
        contrast: Factor; 1 changes nothing.
        saturation: Factor; 0 is grey, 1 changes nothing.
        hue: Part of a full turn.

    Example:
        >>> matrix = color_matrix(np.full(3, 100.0), brightness=1.0, contrast=2.0, saturation=1.0, hue=0.0)
        >>> np.allclose(matrix @ [100.0, 100.0, 110.0, 1.0], [100.0, 100.0, 120.0])
        True
    """
    angle = 2 * math.pi * hue
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    hue_matrix = _YIQ_TO_RGB @ turn @ _RGB_TO_YIQ
    saturation_matrix = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
    linear = hue_matrix @ saturation_matrix
    grey = brightness * float(_LUMA @ mean)
    # A grey offset passes through both matrices unchanged: their rows sum to one.
    return np.hstack([contrast * brightness * linear, np.full((3, 1), (1 - contrast) * grey)])


def _extent(
    sample_id: str,
    mask: UInt8Array,
    *,
    roi: RoiSection | None,
    ignore_index: int | None,
    generator: np.random.Generator,
) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """(height, width) of what is augmented, and the matrix [3, 3] from its pixels to those of the image."""
    if roi is None:
        return mask.shape, np.eye(3)
    center = require_center(sample_id, mask, ignore_index=ignore_index)
    reach = roi.jitter * roi.side * mask.shape[1]
    row, column = (value + generator.uniform(-reach, reach) for value in center)
    window = window_around((row, column), mask.shape, roi)
    ratio = window.side / roi.size
    # A pixel's centre lies half a pixel inside of its index, on both scales.
    placing = np.array([[ratio, 0, window.left + ratio / 2 - 0.5], [0, ratio, window.top + ratio / 2 - 0.5], [0, 0, 1]])
    return (roi.size, roi.size), placing


def _random_affine(
    shape: tuple[int, ...], *, crop_size: int, augmentation: AugmentationSection, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Matrix [3, 3] from pixels of the crop to pixels of the image."""
    height, width = shape[:2]
    mirrored = generator.random() < augmentation.mirror
    scale = generator.uniform(*augmentation.scale)
    angle = math.radians(generator.uniform(-augmentation.rotation, augmentation.rotation))
    top = _random_offset(height * scale, crop_size, generator)
    left = _random_offset(width * scale, crop_size, generator)

    half = crop_size / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    # x and y are continuous: the centre of pixel 0 is at 0.5. The turn is about the centre of the crop.
    to_centre = np.array([[1, 0, 0.5 - half], [0, 1, 0.5 - half], [0, 0, 1]])
    turn = np.array([[cosine, -sine, half + left], [sine, cosine, half + top], [0, 0, 1]])
    unscale = np.diag([1 / scale, 1 / scale, 1.0])
    flip = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if mirrored else np.eye(3)
    to_index = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    matrix: npt.NDArray[np.float64] = to_index @ flip @ unscale @ turn @ to_centre
    return matrix


def _random_offset(extent: float, crop_size: int, generator: np.random.Generator) -> int:
    """Start of the crop in whole pixels, so that a crop without scale and rotation copies pixels exactly."""
    free = round(extent) - crop_size
    return int(generator.integers(min(free, 0), max(free, 0), endpoint=True))


def _bytes(array: npt.NDArray[Any]) -> UInt8Array:
    """Narrows the type that OpenCV's stubs give; copies nothing."""
    return np.asarray(array, dtype=np.uint8)
