"""STARE: vessels in 20 retinal photographs of 700x605 pixels (Hoover et al. 2000).

Official layout: `stare-images/im0001.ppm` with the labels of A. Hoover in `labels-ah/im0001.ah.ppm`; those of the
second observer are not used. The archives hold every file compressed on its own. The set comes without a split. Ours
is a common one, the first and the last ten in the order of their numbers (`split_files/stare.json`).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.datasets.pairing import FoundPairs, files_by_id, matched_ids, part_of, require_two_classes
from etnet.data.file_tree import FileTree, list_files
from etnet.data.findings import Finding, PartMissing, Report, such_files
from etnet.data.mask_sources import UnionMask
from etnet.data.splits import builtin_split, read_split

_IMAGE = re.compile(r"im[0-9]{4}")
_MASK = re.compile(r"(im[0-9]{4})\.ah")
_COMPRESSED = re.compile(r"im[0-9]{4}(\.ah)?\.ppm\.gz")


def find_stare(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one part; ids are the names of the images, such as `im0001`.

    The larger collection of the same project has 397 images; those without labels in the package's split are left out.

    Args:
        data: What the recipe says about data; two classes, background and vessel.
        root: Folder with the files at any depth.
        part: Which part of the split.
        report: Takes what is wrong.

    Raises:
        DataError: There is no image, some are missing, or the recipe has not two classes.
    """
    require_two_classes(data, root, title="STARE", structure="vessel")
    files = list_files(root)
    _report_compressed(files, report=report)
    split = builtin_split("stare") if data.split_file is None else read_split(data.split_file)
    named = {*split.train, *split.test}
    images = files_by_id(files.pictures, lambda path: _image_id(path, named), report=report)
    masks = files_by_id(files.pictures, lambda path: _mask_id(path, named), report=report)
    if not images:
        raise PartMissing(
            f"{root}: holds no image of STARE; expected im0001.ppm in any folder below; "
            "give the folder into which stare-images.tar and labels-ah.tar were unpacked"
        )
    paired = matched_ids(
        images,
        masks,
        mask_name=lambda name: f"{name}.ah.ppm",
        remedy="unpack labels-ah.tar there",
        report=report,
    )
    ids = part_of(paired, split, part, where=root, report=report)
    return FoundPairs(
        ids=ids,
        images=tuple(images[name] for name in ids),
        masks=tuple(UnionMask((masks[name],)) for name in ids),
        mask_values={0: 0, 1: 1},
    )


def _image_id(path: Path, named: set[str]) -> str | None:
    return path.stem if path.stem in named else None


def _mask_id(path: Path, named: set[str]) -> str | None:
    match = _MASK.fullmatch(path.stem)
    return match[1] if match is not None and match[1] in named else None


def _report_compressed(files: FileTree, *, report: Report) -> None:
    pictures = set(files.pictures)
    compressed = [
        path for path in files.archives if _COMPRESSED.fullmatch(path.name) and path.with_suffix("") not in pictures
    ]
    if compressed:
        command = f"find {shlex.quote(str(files.root))} -name 'im*.ppm.gz' -exec gunzip {{}} +"
        report(
            Finding(
                "error",
                "compressed-file",
                f"{compressed[0]}: compressed ({such_files(len(compressed))}); "
                f"expected {compressed[0].with_suffix('').name}; run: {command}",
                tuple(compressed),
            )
        )
