"""A picture of what training sees: images, their augmented crops, masks and edge targets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.loader import SampleStream, augment_by_recipe
from etnet.data.transforms import TrainingSample, crop_outline
from etnet.errors import DataError
from etnet.types import UInt8Array

Rgb = tuple[int, int, int]

_TILE = 300
_GAP = 12
_MARGIN = 24
_HEADER = 88
_CAPTION = 26
_FOOTER = 52

_PAPER: Rgb = (250, 250, 248)
_INK: Rgb = (38, 42, 48)
_FAINT: Rgb = (128, 134, 142)
_FRAME: Rgb = (255, 214, 10)
_EDGE: Rgb = (255, 176, 32)
_IGNORED: Rgb = (120, 120, 120)
_COLUMNS = ("image and crop", "augmented", "mask", "edge target")


class _Row(NamedTuple):
    """Four tiles [_TILE, _TILE, 3] and the name of their sample."""

    id: str
    tiles: tuple[UInt8Array, ...]


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
    drawn = [
        _row(dataset, recipe, stream=stream, position=position, colors=colors)
        for position in range(min(rows, len(dataset)))
    ]
    return _sheet(drawn, recipe, count=len(dataset), colors=colors)


def _row(
    dataset: SegmentationDataset, recipe: Recipe, *, stream: SampleStream, position: int, colors: UInt8Array
) -> _Row:
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
        _framed(source.image, outline),
        _fitted(sample.image),
        _fitted(_masked(sample, colors)),
        _fitted(_edged(sample, data.ignore_index)),
    )
    return _Row(source.id, tiles)


def _fitted(image: UInt8Array) -> UInt8Array:
    """Scales an image into a tile and centres it."""
    height, width = image.shape[:2]
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    tile = np.full((_TILE, _TILE, 3), _PAPER, dtype=np.uint8)
    top, left = (_TILE - size[1]) // 2, (_TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile


def _framed(image: UInt8Array, outline: npt.NDArray[np.float64]) -> UInt8Array:
    """The image, darkened outside the crop, with the crop's outline; `outline` [4, 2] is in pixels of the image."""
    scale = _TILE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    corners = np.rint((outline * scale - 0.5) * 16).astype(np.int32)[None]
    inside = np.zeros(small.shape[:2], np.uint8)
    cv2.fillPoly(inside, corners, 255, cv2.LINE_AA, 4)
    framed = (small * (np.maximum(inside, 120)[..., None] / 255)).astype(np.uint8)
    cv2.polylines(framed, corners, isClosed=True, color=_FRAME, thickness=1, lineType=cv2.LINE_AA, shift=4)
    return _fitted(framed)


def _masked(sample: TrainingSample, colors: UInt8Array) -> UInt8Array:
    """The crop with classes laid over it; the background stays as it is."""
    lookup = np.full((256, 3), _IGNORED, dtype=np.uint8)
    lookup[: len(colors)] = colors
    share = np.where(sample.mask > 0, 0.62, 0.0)[..., None]
    return np.asarray(sample.image * (1 - share) + lookup[sample.mask] * share, dtype=np.uint8)


def _edged(sample: TrainingSample, ignore_index: int | None) -> UInt8Array:
    """The edge target over a dark grey version of the crop."""
    grey = cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((grey * 0.38).astype(np.uint8)[..., None], 3, axis=2)
    picture[sample.edge == 1] = _EDGE
    if ignore_index is not None:
        picture[sample.edge == ignore_index] = _IGNORED
    return picture


def _sheet(rows: Sequence[_Row], recipe: Recipe, *, count: int, colors: UInt8Array) -> UInt8Array:
    row_height = _TILE + _CAPTION + _GAP
    width = 2 * _MARGIN + len(_COLUMNS) * _TILE + (len(_COLUMNS) - 1) * _GAP
    page = Image.new("RGB", (width, _HEADER + len(rows) * row_height + _FOOTER), _PAPER)
    draw = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(20), ImageFont.load_default(14)
    data = recipe.data
    draw.text((_MARGIN, 18), f"{recipe.name}: {len(rows)} of {count} training samples", fill=_INK, font=large)
    facts = f"crop {data.crop_size} x {data.crop_size}, edge width {data.edge_width} px"
    draw.text((width - _MARGIN, 24), facts, fill=_FAINT, font=small, anchor="ra")
    for column, title in enumerate(_COLUMNS):
        draw.text((_MARGIN + column * (_TILE + _GAP), _HEADER - 26), title, fill=_FAINT, font=small)
    for number, row in enumerate(rows):
        top = _HEADER + number * row_height
        for column, tile in enumerate(row.tiles):
            page.paste(Image.fromarray(tile), (_MARGIN + column * (_TILE + _GAP), top))
        draw.text((_MARGIN, top + _TILE + 5), row.id, fill=_INK, font=small)
    _legend(draw, page.height - _FOOTER + 14, data.class_names, colors, font=small)
    return np.array(page)


def _legend(
    draw: ImageDraw.ImageDraw,
    top: int,
    names: Sequence[str],
    colors: UInt8Array,
    *,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    entries: list[tuple[str, Rgb]] = [
        (name, (int(color[0]), int(color[1]), int(color[2]))) for name, color in zip(names, colors, strict=True)
    ]
    left = float(_MARGIN)
    for name, color in [*entries[1:], ("edge", _EDGE), ("crop", _FRAME)]:
        draw.rounded_rectangle((left, top + 2, left + 14, top + 16), radius=3, fill=color)
        draw.text((left + 21, top), name, fill=_INK, font=font)
        left += 21 + draw.textlength(name, font=font) + 22
