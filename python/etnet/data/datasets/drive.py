"""DRIVE: vessels in 40 retinal photographs of 565x584 pixels, 20 for training and 20 for testing (paper Sec. 3).

Official layout: `{training,test}/images/NN_*.tif`, labels of the first observer `1st_manual/NN_manual1.gif` with values
{0, 255}, field of view `mask/NN_{training,test}_mask.gif`. The download offered today has no labels for the test half.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.dataset import image_files
from etnet.data.datasets.pairing import FoundPairs, require_two_classes
from etnet.data.file_names import how_to_rename, original_stem
from etnet.data.findings import Finding, PartMissing, Report, counted_of
from etnet.data.mask_sources import MaskFile
from etnet.errors import DataError

MASK_VALUES = {0: 0, 255: 1}
_HALVES = {"train": "training", "test": "test"}


def find_drive(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one half of DRIVE; ids are the names of the images, such as `21_training`.

    Args:
        data: What the recipe says about data; two classes, background and vessel.
        root: Folder that holds `training/` and `test/`.
        part: Which half.
        report: Takes what is wrong.

    Raises:
        DataError: Folders or labels are missing, or the recipe has not two classes.
    """
    half = root / _HALVES[part]
    if not (half / "images").is_dir():
        raise DataError(
            f"{half / 'images'}: no such folder; expected the official DRIVE layout; "
            "give the folder that holds training/ and test/"
        )
    require_two_classes(data, root, title="DRIVE", structure="vessel")
    images = image_files(half / "images")
    labels, views = _labels(half, part), _views(half)
    names = {stem: f"{_number(stem)}_manual1" for stem in images}
    ids = _complete(images, labels, names, report=report)
    if views is not None:
        ids = _complete(
            {stem: images[stem] for stem in ids}, views, {stem: f"{stem}_mask" for stem in ids}, report=report
        )
    return FoundPairs(
        ids=ids,
        images=tuple(images[stem] for stem in ids),
        masks=tuple(MaskFile(labels[names[stem]]) for stem in ids),
        fields_of_view=None if views is None else tuple(views[f"{stem}_mask"] for stem in ids),
        mask_values=MASK_VALUES,
    )


def _labels(half: Path, part: Literal["train", "test"]) -> dict[str, Path]:
    folder = half / "1st_manual"
    if folder.is_dir() and any(folder.iterdir()):
        return image_files(folder)
    if part == "test":
        raise PartMissing(
            f"{folder}: the labels of the test half are missing, and the DRIVE download offered today has none; "
            "add them, or score with --split validation, or segment test/images with `etnet infer`"
        )
    raise DataError(f"{folder}: the labels of the training half are missing; expected files such as 21_manual1.gif")


def _views(half: Path) -> dict[str, Path] | None:
    """Fields of view by stem; None in copies that come without them."""
    return image_files(half / "mask") if (half / "mask").is_dir() else None


def _number(stem: str) -> str:
    return stem.split("_", maxsplit=1)[0]


def _complete(
    images: Mapping[str, Path], files: Mapping[str, Path], names: Mapping[str, str], *, report: Report
) -> tuple[str, ...]:
    """Images that have a companion of their name among `files`; the others are reported."""
    alone = [stem for stem in images if names[stem] not in files]
    if alone:
        folder = next(iter(files.values())).parent
        renamed = next((path for stem, path in files.items() if original_stem(stem) == names[alone[0]]), None)
        remedy = "copy it from the DRIVE archive" if renamed is None else how_to_rename(renamed)
        report(
            Finding(
                "error",
                "image-without-mask",
                f"{images[alone[0]]}: has no companion in {folder} ({counted_of(alone, len(images))} images); expected "
                f"{names[alone[0]]}.gif; {remedy}",
                tuple(images[stem] for stem in alone),
            )
        )
    return tuple(stem for stem in images if names[stem] in files)
