"""Montgomery County X-rays: lungs in 138 chest X-rays (paper Sec. 3, Table 2, "MC").

Images lie in `CXR_png/`; lungs in `ManualMask/leftMask/` and `ManualMask/rightMask/`, as in the official archive, or
merged in `masks/`. The paper trains on 80 and tests on 58 images and does not say which. Ours: a seeded split in which
both parts have the same share of tuberculosis, kept in the package (`split_files/montgomery.json`); every image is of
another patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.dataset import image_files, match_names
from etnet.data.datasets.pairing import FoundPairs, part_of, require_two_classes
from etnet.data.findings import Finding, Report, counted_of
from etnet.data.mask_sources import MaskSource, UnionMask
from etnet.data.splits import builtin_split, read_split
from etnet.errors import DataError


def find_montgomery(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one part; ids are the names of the images, such as `MCUCXR_0001_0`.

    Args:
        data: What the recipe says about data; two classes, background and lung.
        root: Folder that holds `CXR_png/` and the masks.
        part: Which part of the split.
        report: Takes what is wrong.

    Raises:
        DataError: Folders are missing, or the recipe has not two classes.
    """
    if not (root / "CXR_png").is_dir():
        raise DataError(
            f"{root / 'CXR_png'}: no such folder; expected the unpacked Montgomery archive; give the folder that holds "
            "CXR_png and ManualMask (or masks)"
        )
    require_two_classes(data, root, title="Montgomery", structure="lung")
    images = image_files(root / "CXR_png")
    masks, halves = _masks(root, report=report)
    split = builtin_split("montgomery") if data.split_file is None else read_split(data.split_file)
    # An image with one lung is reported as that: it is neither without mask nor missing.
    whole = {name: path for name, path in images.items() if name not in halves}
    paired = {*match_names(whole, {name: mask.path for name, mask in masks.items()}, report=report), *halves}
    present = part_of([name for name in images if name in paired], split, part, where=root, report=report)
    ids = tuple(name for name in present if name not in halves)
    return FoundPairs(
        ids=ids,
        images=tuple(images[name] for name in ids),
        masks=tuple(masks[name] for name in ids),
        mask_values={0: 0, 1: 1},
    )


def _masks(root: Path, *, report: Report) -> tuple[dict[str, MaskSource], frozenset[str]]:
    """Lungs by id, left and right as one; and the ids of which only one lung is there."""
    if (root / "ManualMask").is_dir():
        left, right = (image_files(root / "ManualMask" / f"{side}Mask") for side in ("left", "right"))
        _report_one_lung(left, right, report=report)
        both = {name: UnionMask((left[name], right[name])) for name in left if name in right}
        return dict(both), frozenset(left.keys() ^ right.keys())
    if not (root / "masks").is_dir():
        raise DataError(
            f"{root}: has neither ManualMask/leftMask and ManualMask/rightMask nor masks; unpack the Montgomery "
            "archive with its masks again"
        )
    return {name: UnionMask((path,)) for name, path in image_files(root / "masks").items()}, frozenset()


def _report_one_lung(left: Mapping[str, Path], right: Mapping[str, Path], *, report: Report) -> None:
    for these, others, side, other in ((left, right, "left", "right"), (right, left, "right", "left")):
        alone = [path for name, path in these.items() if name not in others]
        if alone:
            folder = next(iter(others.values())).parent
            report(
                Finding(
                    "error",
                    "one-lung",
                    f"{alone[0]}: {side} lung without the {other} one ({counted_of(alone, len(these))}); expected "
                    f"{alone[0].name} in {folder}; unpack ManualMask from the archive again",
                    tuple(alone),
                )
            )
