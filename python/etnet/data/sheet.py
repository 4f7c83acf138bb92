"""Sheets of small pictures in rows and columns: how a sample's image, mask, edges and crop are drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from etnet.types import UInt8Array

Rgb = tuple[int, int, int]

PAPER: Rgb = (250, 250, 248)
INK: Rgb = (38, 42, 48)
FAINT: Rgb = (128, 134, 142)
FRAME: Rgb = (255, 214, 10)
EDGE: Rgb = (255, 176, 32)
IGNORED: Rgb = (120, 120, 120)

_GAP = 12
_MARGIN = 24
_HEADER = 88
_CAPTION = 26
_FOOTER = 52
_OUTSIDE = 120
_EDGE_BACKGROUND = 0.38


@dataclass(frozen=True)
class SheetRow:
    """Tiles [tile, tile, 3], one per column, and the line below them."""

    caption: str
    tiles: tuple[UInt8Array, ...]


@dataclass(frozen=True)
class Sheet:
    """What stands around the tiles.

    Attributes:
        title: Large, top left.
        facts: Small, top right.
        columns: Heading of each column.
        legend: Names and colours below the rows.
        tile: Height and width of a tile in pixels.
    """

    title: str
    facts: str
    columns: tuple[str, ...]
    legend: tuple[tuple[str, Rgb], ...]
    tile: int = 300

    def draw(self, rows: Sequence[SheetRow]) -> UInt8Array:
        """The finished picture [H, W, 3], uint8, RGB."""
        step = self.tile + _GAP
        height = _HEADER + len(rows) * (step + _CAPTION) + _FOOTER
        page = Image.new("RGB", (2 * _MARGIN + len(self.columns) * step - _GAP, height), PAPER)
        draw = ImageDraw.Draw(page)
        large, small = ImageFont.load_default(20), ImageFont.load_default(14)
        draw.text((_MARGIN, 18), self.title, fill=INK, font=large)
        draw.text((page.width - _MARGIN, 24), self.facts, fill=FAINT, font=small, anchor="ra")
        for column, heading in enumerate(self.columns):
            draw.text((_MARGIN + column * step, _HEADER - 26), heading, fill=FAINT, font=small)
        for number, row in enumerate(rows):
            top = _HEADER + number * (step + _CAPTION)
            for column, tile in enumerate(row.tiles):
                page.paste(Image.fromarray(tile), (_MARGIN + column * step, top))
            draw.text((_MARGIN, top + self.tile + 5), row.caption, fill=INK, font=small)
        self._draw_legend(draw, page.height - _FOOTER + 14, font=small)
        return np.array(page)

    def _draw_legend(
        self, draw: ImageDraw.ImageDraw, top: int, *, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    ) -> None:
        left = float(_MARGIN)
        for name, color in self.legend:
            draw.rounded_rectangle((left, top + 2, left + 14, top + 16), radius=3, fill=color)
            draw.text((left + 21, top), name, fill=INK, font=font)
            left += 21 + draw.textlength(name, font=font) + 22


def class_legend(names: Sequence[str], colors: UInt8Array) -> tuple[tuple[str, Rgb], ...]:
    """Entries of all classes but the background."""
    return tuple(
        (name, (int(color[0]), int(color[1]), int(color[2])))
        for name, color in list(zip(names, colors, strict=True))[1:]
    )


def fitted(image: UInt8Array, tile: int) -> UInt8Array:
    """Scales an image into a square tile and centres it."""
    small = _shrunk(image, tile)
    height, width = small.shape[:2]
    square = np.full((tile, tile, 3), PAPER, dtype=np.uint8)
    top, left = (tile - height) // 2, (tile - width) // 2
    square[top : top + height, left : left + width] = small
    return square


def framed(image: UInt8Array, outline: npt.NDArray[np.float64], tile: int) -> UInt8Array:
    """The image, darkened outside an outline, with the outline drawn; `outline` [4, 2] is in pixels of the image."""
    small = _shrunk(image, tile)
    corners = np.rint((outline * (tile / max(image.shape[:2])) - 0.5) * 16).astype(np.int32)[None]
    inside = np.zeros(small.shape[:2], np.uint8)
    cv2.fillPoly(inside, corners, 255, cv2.LINE_AA, 4)
    picture = (small * (np.maximum(inside, _OUTSIDE)[..., None] / 255)).astype(np.uint8)
    cv2.polylines(picture, corners, isClosed=True, color=FRAME, thickness=1, lineType=cv2.LINE_AA, shift=4)
    return fitted(picture, tile)


def masked(image: UInt8Array, mask: UInt8Array, colors: UInt8Array, *, strength: float = 0.62) -> UInt8Array:
    """The image [H, W, 3] with the classes of a mask [H, W] laid over it; the background stays as it is."""
    lookup = np.full((256, 3), IGNORED, dtype=np.uint8)
    lookup[: len(colors)] = colors
    share = np.where(mask > 0, strength, 0.0)[..., None]
    return np.asarray(image * (1 - share) + lookup[mask] * share, dtype=np.uint8)


def edged(image: UInt8Array, edge: UInt8Array, ignore_index: int | None) -> UInt8Array:
    """An edge target [H, W] over a dark grey version of its image [H, W, 3]."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((grey * _EDGE_BACKGROUND).astype(np.uint8)[..., None], 3, axis=2)
    picture[edge == 1] = EDGE
    if ignore_index is not None:
        picture[edge == ignore_index] = IGNORED
    return picture


def _shrunk(image: UInt8Array, tile: int) -> UInt8Array:
    """The image scaled so that its longer side fills a tile."""
    scale = tile / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)
