"""A contact sheet of a data set as a recipe reads it: image, mask, edge ground truth and augmented versions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.edges import edge_map
from etnet.data.loader import SampleStream, StreamItem, augment_by_recipe
from etnet.data.resize import resize_image, resize_mask
from etnet.data.roi import Window, cut, cut_mask, mask_center, window_around
from etnet.data.sheet import EDGE, FRAME, Sheet, SheetRow, class_legend, edged, fitted, framed, masked
from etnet.errors import DataError
from etnet.types import Sample, UInt8Array

VERSIONS = 3
"""Augmented versions of each image."""

_TILE = 320
_STRENGTH = 0.5


def contact_sheet(dataset: SegmentationDataset, recipe: Recipe, *, rows: int = 4, seed: int = 0) -> UInt8Array:
    """Draws some images of a data set, each with its ground truth and with what a run makes of it.

    With a region of interest, the image shows its square, and mask and edges are those of the square at the size that
    the network sees.

    Args:
        dataset: Samples.
        recipe: Augmentation, crop, region and classes.
        rows: How many images, at most.
        seed: Chooses the images and the changes: those of the first epochs of a run with this seed.

    Returns:
        RGB picture [H, W, 3], uint8.

    Raises:
        DataError: The data set is empty, or a file cannot be read.
    """
    if len(dataset) == 0:
        raise DataError("there is nothing to preview: the folder holds no training images")
    data = recipe.data
    colors = np.array(recipe.contract().class_colors, dtype=np.uint8)
    stream = SampleStream(len(dataset), seed)
    drawn = [_row(dataset, recipe, stream, stream.item(place), colors) for place in range(min(rows, len(dataset)))]
    region = ("region of interest", FRAME)
    first = "image" if data.roi is None else "image and region"
    sheet = Sheet(
        title=f"{recipe.name}: {len(drawn)} of {len(dataset)} images",
        facts=_facts(recipe),
        columns=(first, "mask", "edge ground truth", *(f"augmented, epoch {epoch + 1}" for epoch in range(VERSIONS))),
        legend=(*class_legend(data.class_names, colors), ("edge", EDGE), *(() if data.roi is None else (region,))),
        tile=_TILE,
    )
    return sheet.draw(drawn)


def _facts(recipe: Recipe) -> str:
    data, changes = recipe.data, recipe.augmentation
    low, high = changes.scale
    return (
        f"crop {data.crop_size} x {data.crop_size}, edge width {data.edge_width} px, mirror {changes.mirror:g}, "
        f"scale {low:g} to {high:g}, rotation {changes.rotation:g}\N{DEGREE SIGN}, colour {changes.color_jitter:g}"
    )


def _row(
    dataset: SegmentationDataset, recipe: Recipe, stream: SampleStream, item: StreamItem, colors: UInt8Array
) -> SheetRow:
    source, data = dataset.load(item.index), recipe.data
    image, mask, window = _seen(source, recipe)
    edge = edge_map(mask, width=data.edge_width, ignore_index=data.ignore_index)
    whole = fitted(source.image, _TILE) if window is None else framed(source.image, _corners(window), _TILE)
    tiles = [
        whole,
        fitted(masked(image, mask, colors, strength=_STRENGTH), _TILE),
        fitted(edged(image, edge, data.ignore_index), _TILE),
    ]
    for epoch in range(VERSIONS):
        generator = stream.generator(StreamItem(epoch, item.index))
        version = augment_by_recipe(source, recipe, generator=generator)
        tiles.append(fitted(masked(version.image, version.mask, colors, strength=_STRENGTH), _TILE))
    height, width = source.image.shape[:2]
    return SheetRow(f"{source.id}   {width} x {height}", tuple(tiles))


def _seen(source: Sample, recipe: Recipe) -> tuple[UInt8Array, UInt8Array, Window | None]:
    """Image and mask at the size of the network's scale, and the square that they were cut from."""
    data = recipe.data
    if data.roi is not None:
        center = mask_center(source.mask, ignore_index=data.ignore_index)
        if center is not None:
            window = window_around(center, source.mask.shape, data.roi)
            size = data.roi.size
            return cut(source.image, window, size), cut_mask(source.mask, window, size), window
    if data.image_size is not None:
        return resize_image(source.image, data.image_size), resize_mask(source.mask, data.image_size), None
    return source.image, source.mask, None


def _corners(window: Window) -> npt.NDArray[np.float64]:
    """Corners (x, y) [4, 2] of a square, in pixels of the image."""
    top, left, side = window
    return np.array([[left, top], [left + side, top], [left + side, top + side], [left, top + side]], dtype=np.float64)
