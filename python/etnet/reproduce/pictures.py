"""Pictures as the paper's Fig. 3: image, ground truth and every method, row by row, for a few test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from etnet.config.schema import Recipe
from etnet.data.datasets import open_dataset
from etnet.data.io import read_mask_values, write_png
from etnet.data.roi import mask_center, window_around
from etnet.data.sheet import FAINT, INK, PAPER, fitted
from etnet.errors import DataError
from etnet.output import disk_faults
from etnet.reproduce.job import pictured
from etnet.reproduce.profiles import Profile
from etnet.reproduce.results import CellResult, TableResult
from etnet.reproduce.scores import image_score
from etnet.reproduce.tables import MEAN_IOU, PaperDataset
from etnet.types import Contract, Sample, UInt8Array

_TILE = 260
_GAP = 10
_MARGIN = 26
_LABELS = 176
_HEADER = 84
_CAPTION = 24
_FOOTER = 48

_REMARKS: dict[Profile, str] = {"quick": " (quick run, not a reproduction)", "small": " (small networks)"}
_DARKENED = 0.32
_OPACITY = 0.92


@dataclass(frozen=True)
class _Tile:
    """A picture and what stands below it."""

    pixels: UInt8Array
    caption: str = ""


def draw_pictures(result: TableResult) -> list[Path]:
    """Draw `pictures/<dataset>.png` for every data set with at least one scored method.

    Returns:
        The pictures.

    Raises:
        EnvironmentFault: A picture cannot be written.
        DataError: An image can no longer be read.
    """
    folder = result.plan.request.folder / "pictures"
    pictures = []
    for dataset in result.plan.request.table.datasets:
        path = folder / f"{dataset.key}.png"
        cells = [cell for cell in result.cells if cell.cell.dataset == dataset and cell.scored]
        with disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not cells:
                # An earlier call's picture would show runs that this table does not.
                path.unlink(missing_ok=True)
                continue
        write_png(path, _sheet(dataset, cells, profile=result.plan.request.profile))
        pictures.append(path)
    return pictures


def _sheet(dataset: PaperDataset, cells: Sequence[CellResult], *, profile: Profile) -> UInt8Array:
    run = cells[0].scored[0]
    recipe = run.recipe
    test = open_dataset(recipe.data, run.data.root, "test", seed=run.seed)
    samples = [test.load(test.ids.index(image_id)) for image_id in pictured(test.ids)]
    rows = [
        ("image", [_Tile(fitted(_region(sample, sample.image, recipe), _TILE)) for sample in samples]),
        ("ground truth", [_Tile(_drawn(sample, sample.mask, recipe)) for sample in samples]),
        *((cell.cell.method.title, _method_tiles(cell, samples)) for cell in cells),
    ]
    page = _page(rows, [sample.id for sample in samples])
    title = f"{dataset.title}: test images and their segmentations" + _REMARKS.get(profile, "")
    _write_frame(page, title, recipe.contract(), _facts(cells[0]))
    return np.array(page)


def _facts(cell: CellResult) -> str:
    centers = {"found": ", disc centres as found", "true": ", true disc centres"}.get(cell.centers, "")
    return f"seed {cell.scored[0].seed}{centers}"


def _method_tiles(cell: CellResult, samples: Sequence[Sample]) -> list[_Tile]:
    run = cell.scored[0]
    tiles = []
    for sample in samples:
        labels = read_mask_values(run.job.evaluation_folder / "masks" / f"{sample.id}.png").astype(np.uint8)
        if labels.shape != sample.mask.shape:
            raise DataError(f"{run.folder}: the mask of {sample.id} has another size than its image; remove the folder")
        score = image_score(run.job.scores() or {}, sample.id, MEAN_IOU)
        tiles.append(_Tile(_drawn(sample, labels, run.recipe), f"mIoU {score:.1f}"))
    return tiles


def _region(sample: Sample, plane: UInt8Array, recipe: Recipe) -> UInt8Array:
    """What is segmented of an image or mask: all of it, or the square around the true centre."""
    if recipe.data.roi is None:
        return plane
    center = mask_center(sample.mask, ignore_index=recipe.data.ignore_index)
    if center is None:
        return plane
    return plane[window_around(center, plane.shape, recipe.data.roi).visible(plane.shape)]


def _drawn(sample: Sample, labels: UInt8Array, recipe: Recipe) -> UInt8Array:
    """Classes in their colours over the darkened image."""
    image, labels = _region(sample, sample.image, recipe), _region(sample, labels, recipe)
    lookup = np.zeros((256, 3), dtype=np.uint8)
    colors = np.array(recipe.contract().class_colors, dtype=np.uint8)
    lookup[: len(colors)] = colors
    gray = np.repeat(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    share = np.where((labels > 0) & (labels < len(colors)), _OPACITY, 0.0)[..., None]
    return fitted(np.asarray(gray * _DARKENED * (1 - share) + lookup[labels] * share, dtype=np.uint8), _TILE)


def _page(rows: Sequence[tuple[str, Sequence[_Tile]]], columns: Sequence[str]) -> Image.Image:
    row_height = _TILE + _CAPTION + _GAP
    width = 2 * _MARGIN + _LABELS + len(columns) * _TILE + (len(columns) - 1) * _GAP
    page = Image.new("RGB", (width, _HEADER + len(rows) * row_height + _FOOTER), PAPER)
    pen = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    lefts = [_MARGIN + _LABELS + column * (_TILE + _GAP) for column in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        pen.text((left, _HEADER - 24), name, fill=FAINT, font=small)
    for number, (label, tiles) in enumerate(rows):
        top = _HEADER + number * row_height
        pen.multiline_text((_MARGIN, top + _TILE // 2), _broken(label), fill=INK, font=font, anchor="lm", spacing=6)
        for left, tile in zip(lefts, tiles, strict=True):
            page.paste(Image.fromarray(tile.pixels), (left, top))
            pen.text((left + _TILE, top + _TILE + 4), tile.caption, fill=FAINT, font=small, anchor="ra")
    return page


def _write_frame(page: Image.Image, title: str, contract: Contract, facts: str) -> None:
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, 18), title, fill=INK, font=ImageFont.load_default(20))
    font = ImageFont.load_default(14)
    top, left = page.height - _FOOTER + 12, float(_MARGIN + _LABELS)
    for name, color in zip(contract.class_names[1:], contract.class_colors[1:], strict=True):
        text = name.replace("_", " ")
        pen.rounded_rectangle((left, top + 2, left + 14, top + 16), radius=3, fill=color)
        pen.text((left + 21, top), text, fill=INK, font=font)
        left += 21 + pen.textlength(text, font=font) + 22
    pen.text((page.width - _MARGIN, top), facts, fill=FAINT, font=font, anchor="ra")


def _broken(label: str) -> str:
    """A method's name in lines that fit beside the tiles."""
    return label.replace(" + ", "\n+ ")
