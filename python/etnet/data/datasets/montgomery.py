"""Montgomery County X-rays: lungs in 138 chest X-rays (paper Sec. 3, Table 2, "MC").

Images lie in `CXR_png/`; lungs in `ManualMask/leftMask/` and `ManualMask/rightMask/`, as in the official archive, or
merged in `masks/`. The paper trains on 80 and tests on 58 images and does not say which. Ours: a seeded split in which
both parts have the same share of tuberculosis, kept in the package (`split_files/montgomery.json`); every image is of
another patient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from etnet.config.schema import DataSection
from etnet.data.dataset import PairedFiles, image_files, match_names
from etnet.data.datasets.folder import open_pairs
from etnet.data.mask_sources import MaskSource, UnionMask
from etnet.data.splits import builtin_split, choose_part, read_split
from etnet.errors import DataError


def open_montgomery(data: DataSection, root: Path, *, part: Literal["train", "test"]) -> PairedFiles:
    """Opens one part; ids are the names of the images, such as `MCUCXR_0001_0`.

    Args:
        data: What the recipe says about data; two classes, background and lung.
        root: Folder that holds `CXR_png/` and the masks.
        part: Which part of the split.

    Raises:
        DataError: Folders or files are missing, or the recipe has not two classes.
    """
    if not (root / "CXR_png").is_dir():
        raise DataError(
            f"{root / 'CXR_png'}: no such folder; expected the unpacked Montgomery archive; give the folder that holds "
            "CXR_png and ManualMask (or masks)"
        )
    if len(data.class_names) != 2:
        raise DataError(
            f"{root}: Montgomery has labels for two classes; expected background and lung in data.class_names, got "
            f"{list(data.class_names)}"
        )
    images, masks = image_files(root / "CXR_png"), _masks(root)
    split = builtin_split("montgomery") if data.split_file is None else read_split(data.split_file)
    ids = choose_part(match_names(images, {name: mask.path for name, mask in masks.items()}), split, part, where=root)
    return open_pairs(
        data,
        ids=ids,
        images=[images[name] for name in ids],
        masks=[masks[name] for name in ids],
        mask_values={0: 0, 1: 1},
    )


def _masks(root: Path) -> dict[str, MaskSource]:
    """Lungs by id, left and right as one."""
    if (root / "ManualMask").is_dir():
        left, right = (image_files(root / "ManualMask" / f"{side}Mask") for side in ("left", "right"))
        match_names(left, right)
        return {name: UnionMask((left[name], right[name])) for name in left}
    if not (root / "masks").is_dir():
        raise DataError(
            f"{root}: has neither ManualMask/leftMask and ManualMask/rightMask nor masks; unpack the Montgomery "
            "archive with its masks again"
        )
    return {name: UnionMask((path,)) for name, path in image_files(root / "masks").items()}
