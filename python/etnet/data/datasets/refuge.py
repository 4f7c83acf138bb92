"""REFUGE: optic disc and cup in 400 + 400 retinal photographs (Orlando et al. 2020; paper Sec. 3).

The challenge hands out several archives: `Training400.zip` (folders Glaucoma and Non-Glaucoma, `g0001.jpg`,
`n0001.jpg`), `Annotation-Training400.zip` (`Disc_Cup_Masks/`), and for validation and test (`V0001.jpg`, `T0001.jpg`)
one of images and one of annotations each. The letter of a name tells its part, so that the folders may be called and
nested in any way. Masks are BMP with 0 in the cup, 128 on the rim and 255 elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.datasets.pairing import FoundPairs, files_by_id, matched_ids, part_of
from etnet.data.file_tree import list_files
from etnet.data.findings import PartMissing, Report
from etnet.data.mask_sources import DiscCupMask, MaskFile, MaskSource
from etnet.data.splits import read_split
from etnet.errors import DataError

BACKGROUND, RIM, CUP = 255, 128, 0
"""Stored values of the official masks."""

_ID = re.compile(r"[gnVT][0-9]{4}")
_MASK_SUFFIXES = (".bmp", ".png")
_ANNOTATION_FOLDERS = ("annotation", "mask", "gts", "-gt")


def find_refuge(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one part; `test` is the challenge's validation set, as in the paper, or its test set where that is missing.

    Args:
        data: What the recipe says about data; background, rim and cup, or background and disc.
        root: Folder into which the archives were unpacked.
        part: Which part; `data.split_file` may draw both from all images.
        report: Takes what is wrong.

    Raises:
        DataError: There is no image of the part, or the recipe has another number of classes.
    """
    classes = len(data.class_names)
    if classes not in (2, 3):
        raise DataError(
            f"{root}: REFUGE has an optic disc and cup; expected data.class_names of background and disc, or of "
            f"background, rim and cup, got {list(data.class_names)}"
        )
    files = [path for path in list_files(root).pictures if not _is_drawing(path.relative_to(root))]
    masks = files_by_id([path for path in files if _is_mask(path.relative_to(root))], _id, report=report)
    images = files_by_id([path for path in files if not _is_mask(path.relative_to(root))], _id, report=report)
    if data.split_file is None:
        letters = _letters(images, part)
        images = {name: path for name, path in images.items() if name.startswith(letters)}
        masks = {name: path for name, path in masks.items() if name.startswith(letters)}
    if not images:
        raise _missing(root, part)
    ids = matched_ids(
        images,
        masks,
        mask_name=lambda name: f"{name}.bmp in a folder Disc_Cup_Masks",
        remedy="unpack the archive of the annotations again",
        report=report,
    )
    if data.split_file is not None:
        ids = part_of(ids, read_split(data.split_file), part, where=root, report=report)
    return FoundPairs(
        ids=ids,
        images=tuple(images[name] for name in ids),
        masks=tuple(_source(data, masks[name]) for name in ids),
        mask_values={BACKGROUND: 0, RIM: 1, CUP: classes - 1},
    )


def _source(data: DataSection, path: Path) -> MaskSource:
    """A mask that is checked to hold a cup inside a disc; copies with other values have the recipe's mapping."""
    given = data.mask_values or {RIM: 1, CUP: 2}
    value_of = {index: value for value, index in given.items()}
    if 1 in value_of and 2 in value_of:
        return DiscCupMask(path, rim=value_of[1], cup=value_of[2])
    return MaskFile(path)


def _id(path: Path) -> str | None:
    return path.stem if _ID.fullmatch(path.stem) else None


def _is_drawing(path: Path) -> bool:
    """Whether a picture below the root shows annotations for the eye, as the archives' folder Illustration does."""
    return any("illustration" in folder.lower() for folder in path.parts[:-1])


def _is_mask(path: Path) -> bool:
    if path.suffix.lower() == ".bmp":
        return True
    annotated = any(word in folder.lower() for word in _ANNOTATION_FOLDERS for folder in path.parts[:-1])
    return annotated and path.suffix.lower() in _MASK_SUFFIXES


def _letters(ids: Iterable[str], part: Literal["train", "test"]) -> tuple[str, ...]:
    if part == "train":
        return ("g", "n")
    return ("V",) if any(name.startswith("V") for name in ids) else ("T",)


def _missing(root: Path, part: Literal["train", "test"]) -> PartMissing:
    if part == "train":
        return PartMissing(
            f"{root}: holds no training image of REFUGE; expected g0001.jpg and n0001.jpg in any folder below; "
            "unpack Training400.zip and Annotation-Training400.zip there"
        )
    return PartMissing(
        f"{root}: holds no validation image of REFUGE; expected V0001.jpg (or T0001.jpg) in any folder below; "
        "unpack the validation images and their annotations there, or choose --split validation"
    )
