"""CHASE_DB1: vessels in 28 retinal photographs of 999x960 pixels, both eyes of 14 children (Fraz et al. 2012).

Official layout: `Image_01L.jpg` with the first observer's `Image_01L_1stHO.png`; the second observer's is not used.
The set comes without a split. Ours is the one of most articles, children 01-10 and 11-14
(`split_files/chase_db1.json`); it keeps both eyes of a child together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.datasets.pairing import FoundPairs, files_by_id, matched_ids, part_of, require_two_classes
from etnet.data.file_tree import list_files
from etnet.data.findings import PartMissing, Report
from etnet.data.mask_sources import UnionMask
from etnet.data.splits import builtin_split, read_split

_IMAGE = re.compile(r"Image_[0-9]{2}[LR]")
_MASK = re.compile(r"(Image_[0-9]{2}[LR])_1stHO")


def find_chase_db1(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one part; ids are the names of the images, such as `Image_01L`.

    Args:
        data: What the recipe says about data; two classes, background and vessel.
        root: Folder with the files at any depth.
        part: Which part of the split.
        report: Takes what is wrong.

    Raises:
        DataError: There is no image, some are missing, or the recipe has not two classes.
    """
    require_two_classes(data, root, title="CHASE_DB1", structure="vessel")
    pictures = list_files(root).pictures
    images = files_by_id(pictures, _image_id, report=report)
    masks = files_by_id(pictures, _mask_id, report=report)
    if not images:
        raise PartMissing(
            f"{root}: holds no image of CHASE_DB1; expected Image_01L.jpg in any folder below; "
            "give the folder into which the archive was unpacked"
        )
    paired = matched_ids(
        images,
        masks,
        mask_name=lambda name: f"{name}_1stHO.png",
        remedy="unpack the archive again",
        report=report,
    )
    split = builtin_split("chase_db1") if data.split_file is None else read_split(data.split_file)
    ids = part_of(paired, split, part, where=root, report=report)
    return FoundPairs(
        ids=ids,
        images=tuple(images[name] for name in ids),
        masks=tuple(UnionMask((masks[name],)) for name in ids),
        mask_values={0: 0, 1: 1},
        patients=tuple(f"child {name[6:8]}" for name in ids),
    )


def _image_id(path: Path) -> str | None:
    return path.stem if _IMAGE.fullmatch(path.stem) else None


def _mask_id(path: Path) -> str | None:
    match = _MASK.fullmatch(path.stem)
    return None if match is None else match[1]
