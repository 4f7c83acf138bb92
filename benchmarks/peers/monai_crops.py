"""The data path of a training written with MONAI's dictionary transforms.

Decoded images in memory (`CacheDataset`), scaled to 0..1 once; then the changes of the recipe. `separate` uses one
transform for each change; `fused` leaves mirror aside and does scale, rotation and crop by one `RandAffined`, which is
MONAI's fastest way, with scales that differ between the axes. Both keep no record of what was done to an image
(`set_track_meta(False)`), as MONAI advises where speed matters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal

import monai
import torch
from crop_sources import ENDLESS, Crops, Form
from monai import transforms
from plain_pipeline import plain_edge
from torch.utils.data import RandomSampler
from torchvision.transforms import ColorJitter

from etnet.config.data_section import AugmentationSection
from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset

KEYS = ("image", "mask")
Style = Literal["separate", "fused"]


def monai_crops(dataset: SegmentationDataset, recipe: Recipe, form: Form, *, style: Style) -> Iterator[Crops]:
    """Batches without end in the form `float32`; see `crop_sources`."""
    if form != "float32":
        raise ValueError(f"MONAI's pipeline ends in float32, not in {form}")
    monai.data.set_track_meta(False)
    samples = map(dataset.load, range(len(dataset)))
    items = [{"image": sample.image.copy(), "mask": sample.mask.copy()} for sample in samples]
    prepared: list[Any] = [
        transforms.EnsureChannelFirstd(("image",), channel_dim=2),
        transforms.EnsureChannelFirstd(("mask",), channel_dim="no_channel"),
        transforms.ScaleIntensityRanged(("image",), 0, 255, 0, 1),
        transforms.EnsureTyped(KEYS),
    ]
    changes = [*placing(recipe, style), *colouring(recipe)]
    cached = monai.data.CacheDataset(items, transforms.Compose([*prepared, *changes]), progress=False, num_workers=1)
    sampler = RandomSampler(cached, replacement=True, num_samples=ENDLESS)
    for batch in monai.data.DataLoader(cached, batch_size=recipe.training.batch_size, sampler=sampler):
        yield batch["image"], batch["mask"], batch["edge"]


def placing(recipe: Recipe, style: Style) -> list[Any]:
    """Mirror, scale, rotation and crop."""
    augmentation, size = recipe.augmentation, recipe.data.crop_size
    angle = math.radians(augmentation.rotation)
    modes = {"mode": ("bilinear", "nearest"), "padding_mode": "reflection"}
    mirror = transforms.RandFlipd(KEYS, prob=augmentation.mirror, spatial_axis=1)
    low, high = augmentation.scale
    still = low == high == 1 and angle == 0
    if style == "fused":
        # The matrix goes from the crop to the image, so that it holds the inverse of the scale.
        affine = transforms.RandAffined(
            KEYS,
            spatial_size=(size, size),
            prob=0.0 if still else 1.0,
            rotate_range=angle,
            scale_range=[(1 / high - 1, 1 / low - 1)] * 2,
            translate_range=(size / 4, size / 4),
            **modes,
        )
        return [mirror, affine]
    return [
        mirror,
        transforms.RandZoomd(
            KEYS,
            prob=0.0 if still else 1.0,
            min_zoom=low,
            max_zoom=high,
            keep_size=False,
            mode=("bilinear", "nearest-exact"),
        ),
        transforms.RandRotated(KEYS, range_x=angle, prob=0.0 if still else 1.0, **modes),
        transforms.SpatialPadd(KEYS, (size, size), mode="reflect"),
        transforms.RandSpatialCropd(KEYS, (size, size), random_size=False),
    ]


def colouring(recipe: Recipe) -> list[Any]:
    """Colours, edge target, normalisation, types."""
    contract = recipe.contract()
    mean, std = ([value / 255 for value in values] for values in (contract.mean, contract.std))
    augmentation = recipe.augmentation
    return [
        transforms.RandTorchVisiond(
            ("image",), name="RandomApply", transforms=[jitter(augmentation)], p=augmentation.color_jitter
        ),
        transforms.NormalizeIntensityd(("image",), subtrahend=mean, divisor=std, channel_wise=True),
        transforms.SqueezeDimd(("mask",)),
        transforms.EnsureTyped(("mask",), dtype=torch.int64),
        transforms.CopyItemsd(("mask",), names=("edge",)),
        transforms.Lambdad(("edge",), functools.partial(plain_edge, width=recipe.data.edge_width)),
    ]


def jitter(augmentation: AugmentationSection) -> ColorJitter:
    """torchvision's change of colours, which MONAI takes as one of its own; it has none for RGB images."""
    return ColorJitter(
        brightness=augmentation.brightness,
        contrast=augmentation.contrast,
        saturation=augmentation.saturation,
        hue=augmentation.hue,
    )
