"""One's own data: a folder `images/` and a folder `masks/` whose files have the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from etnet.config.schema import DataSection
from etnet.data.dataset import PairedFiles, image_files, match_names, require_same_size
from etnet.data.io import read_size
from etnet.data.mask_values import MaskSummary, find_mapping, scan_masks
from etnet.errors import DataError


def open_folder(data: DataSection, root: Path, *, part: Literal["train", "test"]) -> PairedFiles:
    """Opens `images/` and `masks/`, or those below `train/`; the test part lies below `test/`.

    Args:
        data: What the recipe says about data.
        root: Folder that holds them.
        part: Which of the two.

    Raises:
        DataError: The folders are missing, names do not match, sizes differ or mask values have no class.
    """
    folder = _part_folder(root, part)
    images, masks = image_files(folder / "images"), image_files(folder / "masks")
    ids = match_names(images, masks)
    return open_pairs(data, ids=ids, images=[images[stem] for stem in ids], masks=[masks[stem] for stem in ids])


def open_pairs(
    data: DataSection,
    *,
    ids: Sequence[str],
    images: Sequence[Path],
    masks: Sequence[Path],
    fields_of_view: Sequence[Path] | None = None,
    mask_values: Mapping[int, int] | None = None,
) -> PairedFiles:
    """Builds a data set from matched files after reading every mask once.

    Args:
        data: What the recipe says about data.
        ids: A unique name per sample.
        images: Image files.
        masks: Mask files.
        fields_of_view: Field-of-view files.
        mask_values: The data set's own mapping, used when the recipe names none.

    Raises:
        DataError: Sizes differ or mask values have no class.
    """
    summaries = scan_masks(masks)
    _check_sizes(images, summaries)
    mapping = find_mapping(
        summaries,
        num_classes=len(data.class_names),
        ignore_index=data.ignore_index,
        given=data.mask_values or mask_values,
    )
    views = None if fields_of_view is None else tuple(fields_of_view)
    values = tuple(summary.values for summary in summaries)
    return PairedFiles(tuple(ids), tuple(images), tuple(masks), mapping, views, data.intensity_window, values)


def _part_folder(root: Path, part: Literal["train", "test"]) -> Path:
    if part == "train":
        if (root / "images").is_dir() or not (root / "train" / "images").is_dir():
            return root
        return root / "train"
    if not (root / "test" / "images").is_dir():
        raise DataError(
            f"{root}: has no test part; expected test/images and test/masks; "
            "add them, or choose --split validation, or --split all for every image of the folder"
        )
    return root / "test"


def _check_sizes(images: Sequence[Path], masks: Sequence[MaskSummary]) -> None:
    for image, mask in zip(images, masks, strict=True):
        require_same_size(mask.path, mask.shape, image_path=image, image_shape=read_size(image))
