"""From matched files to a data set: every mask is read and checked once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from etnet.config.data_section import DataSection
from etnet.data.dataset import PairedFiles, require_same_size
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.io import read_size
from etnet.data.mask_values import MaskSummary, find_mapping, require_structure, scan_masks


def open_pairs(data: DataSection, pairs: FoundPairs) -> PairedFiles:
    """Builds a data set from matched files after reading every mask once.

    Args:
        data: What the recipe says about data.
        pairs: Matched files.

    Raises:
        DataError: A mask cannot be used, sizes differ or mask values have no class.
    """
    summaries = scan_masks(pairs.masks)
    require_structure(pairs.masks, summaries)
    _check_sizes(pairs.images, summaries)
    mapping = find_mapping(
        summaries,
        num_classes=len(data.class_names),
        ignore_index=data.ignore_index,
        given=data.mask_values or pairs.mask_values,
    )
    return PairedFiles(
        ids=pairs.ids,
        images=pairs.images,
        masks=pairs.masks,
        mapping=mapping,
        fields_of_view=pairs.fields_of_view,
        intensity_window=data.intensity_window,
        values=tuple(summary.values for summary in summaries),
        reference_cdrs=pairs.reference_cdrs,
        patients=pairs.patients,
    )


def _check_sizes(images: Sequence[Path], masks: Sequence[MaskSummary]) -> None:
    for image, mask in zip(images, masks, strict=True):
        require_same_size(mask.path, mask.shape, image_path=image, image_shape=read_size(image))
