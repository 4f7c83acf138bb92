"""A picture of what training sees: images, their augmented crops, masks and edge targets side by side."""

from __future__ import annotations

import numpy as np

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.loader import Batch, SampleStream, augment_by_recipe
from etnet.data.sheet import EDGE, FRAME, Sheet, SheetRow, class_legend, edged, fitted, framed, masked
from etnet.data.transforms import crop_outline
from etnet.errors import DataError
from etnet.types import UInt8Array

_TILE = 300
_COLUMNS = ("image and crop", "augmented", "mask", "edge target")


def training_preview(dataset: SegmentationDataset, recipe: Recipe, *, rows: int = 4) -> UInt8Array:
    """Draws the first samples of a run: exactly those that its first iterations will see.

    Args:
        dataset: Training samples.
        recipe: Augmentation, crop, classes and seed.
        rows: How many samples, at most.

    Returns:
        RGB picture [H, W, 3], uint8.

    Raises:
        DataError: The data set is empty or a file cannot be read.
    """
    if len(dataset) == 0:
        raise DataError("there is nothing to preview: the training split holds no images")
    stream = SampleStream(len(dataset), recipe.training.seed)
    colors = np.array(recipe.contract().class_colors, dtype=np.uint8)
    data = recipe.data
    drawn = [
        _row(dataset, recipe, stream=stream, position=position, colors=colors)
        for position in range(min(rows, len(dataset)))
    ]
    sheet = Sheet(
        title=f"{recipe.name}: {len(drawn)} of {len(dataset)} training samples",
        facts=f"crop {data.crop_size} x {data.crop_size}, edge width {data.edge_width} px",
        columns=_COLUMNS,
        legend=(*class_legend(data.class_names, colors), ("edge", EDGE), ("crop", FRAME)),
        tile=_TILE,
    )
    return sheet.draw(drawn)


def batch_preview(batch: Batch, recipe: Recipe, *, title: str) -> UInt8Array:
    """Draws the samples of a batch as the network was given them.

    Args:
        batch: On the CPU.
        recipe: Classes and their colours.
        title: Heading of the picture.

    Returns:
        RGB picture [H, W, 3], uint8.
    """
    data, colors = recipe.data, np.array(recipe.contract().class_colors, dtype=np.uint8)
    rows = []
    for index, name in enumerate(batch.ids):
        image = np.ascontiguousarray(batch.images[index].permute(1, 2, 0).numpy())
        mask, edge = (part[index].numpy() for part in (batch.masks, batch.edges))
        shown = (image, masked(image, mask, colors), edged(image, edge, data.ignore_index))
        rows.append(SheetRow(name, tuple(fitted(tile, _TILE) for tile in shown)))
    sheet = Sheet(
        title=title,
        facts=f"{len(rows)} samples",
        columns=_COLUMNS[1:],
        legend=(*class_legend(data.class_names, colors), ("edge", EDGE)),
        tile=_TILE,
    )
    return sheet.draw(rows)


def _row(
    dataset: SegmentationDataset, recipe: Recipe, *, stream: SampleStream, position: int, colors: UInt8Array
) -> SheetRow:
    item = stream.item(position)
    source = dataset.load(item.index)
    data = recipe.data
    sample = augment_by_recipe(source, recipe, generator=stream.generator(item))
    outline = crop_outline(
        source,
        crop_size=data.crop_size,
        augmentation=recipe.augmentation,
        ignore_index=data.ignore_index,
        image_size=data.image_size,
        roi=data.roi,
        generator=stream.generator(item),
    )
    tiles = (
        framed(source.image, outline, _TILE),
        fitted(sample.image, _TILE),
        fitted(masked(sample.image, sample.mask, colors), _TILE),
        fitted(edged(sample.image, sample.edge, data.ignore_index), _TILE),
    )
    return SheetRow(source.id, tiles)
