"""DRIVE: vessels in 40 retinal photographs of 565x584 pixels, 20 for training and 20 for testing (paper Sec. 3).

Official layout: `{training,test}/images/NN_*.tif`, labels of the first observer `1st_manual/NN_manual1.gif` with values
{0, 255}, field of view `mask/NN_{training,test}_mask.gif`. The download offered today has no labels for the test half.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from etnet.config.schema import DataSection
from etnet.data.dataset import PairedFiles, image_files
from etnet.data.datasets.folder import open_pairs
from etnet.data.mask_sources import MaskFile
from etnet.errors import DataError

MASK_VALUES = {0: 0, 255: 1}
_HALVES = {"train": "training", "test": "test"}


def open_drive(data: DataSection, root: Path, *, part: Literal["train", "test"]) -> PairedFiles:
    """Opens one half of DRIVE; ids are the names of the images, such as `21_training`.

    Args:
        data: What the recipe says about data; two classes, background and vessel.
        root: Folder that holds `training/` and `test/`.
        part: Which half.

    Raises:
        DataError: Folders, labels or fields of view are missing, or the recipe has not two classes.
    """
    half = root / _HALVES[part]
    if not (half / "images").is_dir():
        raise DataError(
            f"{half / 'images'}: no such folder; expected the official DRIVE layout; "
            "give the folder that holds training/ and test/"
        )
    if len(data.class_names) != 2:
        raise DataError(
            f"{root}: DRIVE has labels for two classes; expected background and vessel in data.class_names, "
            f"got {list(data.class_names)}"
        )
    images = image_files(half / "images")
    labels, views = _labels(half, part), _views(half)
    return open_pairs(
        data,
        ids=tuple(images),
        images=tuple(images.values()),
        masks=[MaskFile(_companion(path, labels, f"{_number(stem)}_manual1")) for stem, path in images.items()],
        fields_of_view=None if views is None else [_companion(images[stem], views, f"{stem}_mask") for stem in images],
        mask_values=MASK_VALUES,
    )


def _labels(half: Path, part: Literal["train", "test"]) -> dict[str, Path]:
    folder = half / "1st_manual"
    if folder.is_dir() and any(folder.iterdir()):
        return image_files(folder)
    if part == "test":
        raise DataError(
            f"{folder}: the labels of the test half are missing, and the DRIVE download offered today has none; "
            "add them, or score with --split validation, or segment test/images with `etnet infer`"
        )
    raise DataError(f"{folder}: the labels of the training half are missing; expected files such as 21_manual1.gif")


def _views(half: Path) -> dict[str, Path] | None:
    """Fields of view by stem; None in copies that come without them."""
    return image_files(half / "mask") if (half / "mask").is_dir() else None


def _number(stem: str) -> str:
    return stem.split("_", maxsplit=1)[0]


def _companion(image: Path, files: dict[str, Path], stem: str) -> Path:
    if stem not in files:
        folder = next(iter(files.values())).parent
        raise DataError(f"{image}: has no companion in {folder}; expected {stem}.gif; copy it from the DRIVE archive")
    return files[stem]
