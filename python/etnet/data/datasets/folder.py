"""One's own data: a folder `images/` and a folder `masks/` whose files have the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from etnet.config.schema import DataSection
from etnet.data.dataset import PairedFiles, image_files, match_names, require_same_size
from etnet.data.io import read_size
from etnet.data.mask_sources import MaskFile, MaskSource
from etnet.data.mask_values import MaskSummary, find_mapping, scan_masks
from etnet.data.splits import choose_part, read_split
from etnet.errors import DataError


def open_folder(data: DataSection, root: Path, *, part: Literal["train", "test"]) -> PairedFiles:
    """Opens `images/` and `masks/`, or those below `train/`; the test part lies below `test/`.

    With `data.split_file`, both parts are drawn from the folder's own `images/` and `masks/`.

    Args:
        data: What the recipe says about data.
        root: Folder that holds them.
        part: Which of the two.

    Raises:
        DataError: The folders are missing, names do not match, sizes differ or mask values have no class.
    """
    folder = root if data.split_file is not None else _part_folder(root, part)
    images, masks = image_files(folder / "images"), image_files(folder / "masks")
    ids = match_names(images, masks)
    if data.split_file is not None:
        ids = choose_part(ids, read_split(data.split_file), part, where=folder / "images")
    return open_pairs(
        data, ids=ids, images=[images[stem] for stem in ids], masks=[MaskFile(masks[stem]) for stem in ids]
    )


def open_pairs(
    data: DataSection,
    *,
    ids: Sequence[str],
    images: Sequence[Path],
    masks: Sequence[MaskSource],
    fields_of_view: Sequence[Path] | None = None,
    mask_values: Mapping[int, int] | None = None,
    reference_cdrs: Sequence[float | None] | None = None,
) -> PairedFiles:
    """Builds a data set from matched files after reading every mask once.

    Args:
        data: What the recipe says about data.
        ids: A unique name per sample.
        images: Image files.
        masks: Masks.
        fields_of_view: Field-of-view files.
        mask_values: The data set's own mapping, used when the recipe names none.
        reference_cdrs: The annotators' vertical cup-to-disc ratios.

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
    return PairedFiles(
        ids=tuple(ids),
        images=tuple(images),
        masks=tuple(masks),
        mapping=mapping,
        fields_of_view=views,
        intensity_window=data.intensity_window,
        values=values,
        reference_cdrs=None if reference_cdrs is None else tuple(reference_cdrs),
    )


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
