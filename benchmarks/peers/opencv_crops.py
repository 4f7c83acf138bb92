"""A training's data path as a good engineer writes it with OpenCV, without any library of augmentations.

One call after another: mirror, resize, rotation straight into the crop (reflected where it reaches beyond the image),
brightness and contrast by one table, saturation and hue by tables in HSV, the edge target as a morphological gradient.
The normalisation is a table of float32 as well, in one pass over the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch
from crop_sources import Crops, Form

from etnet.config.data_section import AugmentationSection
from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.types import Float32Array, UInt8Array


def opencv_crops(dataset: SegmentationDataset, recipe: Recipe, form: Form) -> Iterator[Crops]:
    """Batches without end; see `crop_sources`."""
    generator = np.random.default_rng(0)
    samples = [dataset.load(index) for index in range(len(dataset))]
    table = normalising_table(recipe)
    while True:
        drawn = generator.integers(len(samples), size=recipe.training.batch_size)
        crops = [changed(samples[index].image, samples[index].mask, recipe, generator) for index in drawn]
        images, masks, edges = (np.stack(part) for part in zip(*crops, strict=True))
        if form == "bytes":
            yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks), torch.from_numpy(edges)
        else:
            floats = np.stack([cv2.LUT(image, table) for image in images])
            targets = torch.from_numpy(masks).long(), torch.from_numpy(edges).long()
            yield torch.from_numpy(floats).permute(0, 3, 1, 2), *targets


def changed(
    image: UInt8Array, mask: UInt8Array, recipe: Recipe, generator: np.random.Generator
) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """A crop [H, W, 3] with its mask and edge target [H, W]."""
    augmentation, size = recipe.augmentation, recipe.data.crop_size
    if generator.random() < augmentation.mirror:
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    scale = generator.uniform(*augmentation.scale)
    if scale != 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        mask = cv2.resize(mask, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
    matrix = rotation_into_crop(image.shape[:2], size, augmentation.rotation, generator)
    border, extent = cv2.BORDER_REFLECT_101, (size, size)
    image = cv2.warpAffine(image, matrix, extent, flags=cv2.INTER_LINEAR, borderMode=border)
    mask = cv2.warpAffine(mask, matrix, extent, flags=cv2.INTER_NEAREST, borderMode=border)
    if generator.random() < augmentation.color_jitter:
        image = jittered(image, augmentation, generator)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (recipe.data.edge_width,) * 2)
    edge = (cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, kernel) > 0).astype(np.uint8)
    return image, mask, edge


def rotation_into_crop(
    shape: tuple[int, ...], size: int, degrees: float, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The matrix [2, 3] that turns an image about the centre of a random crop, and moves that crop to the origin."""
    top, left = (int(generator.integers(min(free, 0), max(free, 0), endpoint=True)) for free in np.array(shape) - size)
    centre = (left + (size - 1) / 2, top + (size - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, generator.uniform(-degrees, degrees), 1.0)
    matrix[:, 2] -= (left, top)
    return np.asarray(matrix, np.float64)


def jittered(image: UInt8Array, augmentation: AugmentationSection, generator: np.random.Generator) -> UInt8Array:
    """Other brightness and contrast by a table, other saturation and hue by tables in HSV [H, W, 3]."""
    brightness, contrast, saturation = (
        1 + generator.uniform(-limit, limit)
        for limit in (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    )
    turn = round(180 * generator.uniform(-augmentation.hue, augmentation.hue))
    values = np.arange(256)
    grey = brightness * cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    table = np.clip(contrast * brightness * values + (1 - contrast) * grey, 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(cv2.LUT(image, table), cv2.COLOR_RGB2HSV)
    tables = np.stack([(values + turn) % 180, np.clip(saturation * values, 0, 255), values], axis=-1)
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables[None].astype(np.uint8)), cv2.COLOR_HSV2RGB), np.uint8)


def normalising_table(recipe: Recipe) -> Float32Array:
    """What each byte of each channel becomes [1, 256, 3], float32."""
    contract = recipe.contract()
    mean, std = np.array(contract.mean), np.array(contract.std)
    return np.asarray(((np.arange(256)[:, None] - mean) / std)[None], np.float32)
