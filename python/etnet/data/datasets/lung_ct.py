"""Lungs in 267 slices of chest CT: the Kaggle set "Finding and Measuring Lungs in CT Data" (paper Sec. 3, "LUNA").

Official layout: `2d_images/ID_0000_Z_0142.tif` with signed Hounsfield units, which the recipe's
`data.intensity_window` maps to grey values, and `2d_masks/` of the same names with values {0, 255}. `ID` numbers the
scan and `Z` the slice.

The paper trains on 214 and tests on 53 slices and does not say which. Ours: scans are ordered by a hash of their
number, which depends on nothing else, and those that fill a share of 53/267 are tested; a scan is never on both sides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.datasets.pairing import FoundPairs, files_by_id, matched_ids, part_of, require_two_classes
from etnet.data.file_tree import list_files
from etnet.data.findings import PartMissing, Report
from etnet.data.mask_sources import MaskFile
from etnet.data.splits import SplitFile, read_split

TEST_IMAGES, ALL_IMAGES = 53, 267

_NAME = re.compile(r"(ID_[0-9]{4})_Z_[0-9]{4}")
_IMAGES, _MASKS = "2d_images", "2d_masks"
_SEED = "lung_ct 0"


def find_lung_ct(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one part; ids are the names of the slices, such as `ID_0000_Z_0142`.

    Args:
        data: What the recipe says about data; two classes, background and lung.
        root: Folder with `2d_images` and `2d_masks` at any depth.
        part: Which part of the split.
        report: Takes what is wrong.

    Raises:
        DataError: There is no image, or the recipe has not two classes.
    """
    require_two_classes(data, root, title="The set of lung CT", structure="lung")
    pictures = list_files(root).pictures
    images = files_by_id([path for path in pictures if path.parent.name == _IMAGES], _id, report=report)
    masks = files_by_id([path for path in pictures if path.parent.name == _MASKS], _id, report=report)
    if not images:
        raise PartMissing(
            f"{root}: holds no slice of lung CT; expected {_IMAGES}/ID_0000_Z_0142.tif in any folder below; "
            "give the folder into which archive.zip (or 2d_images.zip and 2d_masks.zip) was unpacked"
        )
    paired = matched_ids(
        images,
        masks,
        mask_name=lambda name: f"{_MASKS}/{name}.tif",
        remedy="unpack 2d_masks.zip there",
        report=report,
    )
    split = scan_split(paired) if data.split_file is None else read_split(data.split_file)
    ids = part_of(paired, split, part, where=root, report=report)
    return FoundPairs(
        ids=ids,
        images=tuple(images[name] for name in ids),
        masks=tuple(MaskFile(masks[name]) for name in ids),
        mask_values={0: 0, 255: 1},
        patients=tuple(_scan(name) for name in ids),
    )


def scan_split(ids: Sequence[str]) -> SplitFile:
    """The split of these slices: 53 of all 267, the same share of fewer, whole scans.

    >>> split = scan_split([f"ID_{number:04d}_Z_0100" for number in range(267)])
    >>> len(split.train), len(split.test)
    (214, 53)
    """
    wanted = round(len(ids) * TEST_IMAGES / ALL_IMAGES)
    test: list[str] = []
    for scan in sorted({_scan(name) for name in ids}, key=_order):
        slices = [name for name in ids if _scan(name) == scan]
        if len(test) + len(slices) <= wanted:
            test += slices
    return SplitFile("the split of lung_ct", tuple(name for name in ids if name not in test), tuple(test))


def _order(scan: str) -> bytes:
    return hashlib.sha256(f"{_SEED} {scan}".encode()).digest()


def _scan(name: str) -> str:
    return name[:7]


def _id(path: Path) -> str | None:
    return path.stem if _NAME.fullmatch(path.stem) else None
