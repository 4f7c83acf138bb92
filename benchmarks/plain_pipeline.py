"""The data path of a training as people write it with torchvision v2, for comparisons with the product's own.

The changes of a sample are those of a recipe: mirror, scale, rotation, crop, colours, edge target, normalisation. Two
things differ, because torchvision does not offer them: what a rotation uncovers is black, not reflected, and the hue is
shifted in HSV.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.types import Sample

PlainItem = tuple[Tensor, Tensor, Tensor]
"""Image [3, H, W], float32, normalised; mask and edge [H, W], int64."""


def plain_transforms(recipe: Recipe, image_size: tuple[int, int]) -> v2.Compose:
    """Random changes by a recipe's numbers, up to a normalised float image.

    Args:
        recipe: Crop size, ranges and normalisation.
        image_size: (height, width) of the images, to which the random scale refers.
    """
    augmentation, contract = recipe.augmentation, recipe.contract()
    jitter = v2.ColorJitter(
        brightness=augmentation.brightness,
        contrast=augmentation.contrast,
        saturation=augmentation.saturation,
        hue=augmentation.hue,
    )
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(augmentation.mirror),
            v2.ScaleJitter(image_size, scale_range=augmentation.scale, antialias=True),
            v2.RandomRotation(augmentation.rotation, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomCrop(recipe.data.crop_size, pad_if_needed=True, padding_mode="reflect"),
            v2.RandomApply([jitter], augmentation.color_jitter),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, scale=True),
            v2.Normalize([value / 255 for value in contract.mean], [value / 255 for value in contract.std]),
        ]
    )


def plain_edge(mask: Tensor, width: int) -> Tensor:
    """Band around the boundaries of a mask [H, W], int64: a morphological gradient by max-pooling."""
    kernel = max(3, width // 2 * 2 + 1)
    classes = mask[None, None].float()
    largest = functional.max_pool2d(classes, kernel, stride=1, padding=kernel // 2)
    smallest = -functional.max_pool2d(-classes, kernel, stride=1, padding=kernel // 2)
    return (largest != smallest)[0, 0].long()


@dataclass
class PlainDataset(Dataset[PlainItem]):
    """Items of a data set as a `torch.utils.data.Dataset` gives them in a plain script.

    Attributes:
        dataset: Where the decoded samples come from.
        recipe: What is done to them.
        keep_decoded: Whether each file is decoded once and kept; otherwise for every item, as plain scripts do.
    """

    dataset: SegmentationDataset
    recipe: Recipe
    keep_decoded: bool = False
    _kept: dict[int, Sample] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.transforms = plain_transforms(self.recipe, self.dataset.load(0).mask.shape)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> PlainItem:
        sample = self._kept.get(index) or self.dataset.load(index)
        if self.keep_decoded:
            self._kept[index] = sample
        image = tv_tensors.Image(torch.tensor(sample.image).permute(2, 0, 1))
        image, mask = self.transforms(image, tv_tensors.Mask(torch.tensor(sample.mask)))
        # Subclasses of tensors cost every later operation a detour.
        mask = mask.as_subclass(Tensor)
        return image.as_subclass(Tensor), mask, plain_edge(mask, self.recipe.data.edge_width)


def plain_loader(dataset: PlainDataset, **options: Any) -> DataLoader[PlainItem]:
    """Shuffled batches of the recipe's size; `options` go to torch's `DataLoader`."""
    return DataLoader(dataset, batch_size=dataset.recipe.training.batch_size, shuffle=True, drop_last=True, **options)
