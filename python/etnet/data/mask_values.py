"""From the values stored in mask files to class indices: a mapping that is given, or found once over all masks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from etnet.data.mask_sources import THRESHOLD, MaskSource, UnionMask
from etnet.errors import DataError
from etnet.types import UInt8Array

LISTED_VALUES = 12
"""From this many different values on, masks are not class drawings."""
_TABLE_SIZE = 65536
_UNMAPPED = -1


@dataclass(frozen=True)
class MaskMapping:
    """Class index (or ignore index) of every value that a mask may hold."""

    classes: Mapping[int, int]

    @cached_property
    def _table(self) -> npt.NDArray[np.int16]:
        table = np.full(_TABLE_SIZE, _UNMAPPED, dtype=np.int16)
        for value, index in self.classes.items():
            if 0 <= value < _TABLE_SIZE:
                table[value] = index
        return table

    def apply(self, values: npt.NDArray[np.int32], *, path: Path) -> UInt8Array:
        """Replaces stored values [H, W] by class indices [H, W], uint8.

        Raises:
            DataError: A value is not in the mapping.
        """
        if values.size and values.min() >= 0 and values.max() < _TABLE_SIZE:
            indices = self._table[values]
            if indices.min() > _UNMAPPED:
                return indices.astype(np.uint8)
        held = sorted(distinct_values(values))
        raise DataError(f"{path}: mask holds values {_listed(held)}; expected only {_listed(sorted(self.classes))}")


@dataclass(frozen=True)
class MaskSummary:
    """What a mask file holds: its (height, width) and its distinct values."""

    path: Path
    shape: tuple[int, int]
    values: frozenset[int]


def distinct_values(values: npt.NDArray[np.int32]) -> frozenset[int]:
    """The different values of an array; small ones are counted, which is much faster than the sort of `np.unique`."""
    if values.size and values.min() >= 0 and values.max() < _TABLE_SIZE:
        return frozenset(np.flatnonzero(np.bincount(values.ravel())).tolist())
    return frozenset(np.unique(values).tolist())


def scan_masks(masks: Sequence[MaskSource]) -> list[MaskSummary]:
    """Reads every mask once, in parallel (decoding releases the interpreter lock).

    Raises:
        DataError: A mask cannot be read; the first one in order is named.
    """

    def summary(mask: MaskSource) -> MaskSummary:
        values = mask.read()
        return MaskSummary(mask.path, (values.shape[0], values.shape[1]), distinct_values(values))

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(summary, masks))


def require_structure(masks: Sequence[MaskSource], summaries: Sequence[MaskSummary]) -> None:
    """Refuses black and white masks that are all black: nothing could be learned from them, and nothing scored.

    Args:
        masks: Masks of one part of a data set.
        summaries: What those of them hold that can be read.

    Raises:
        DataError: No mask is white anywhere.
    """
    black = bool(summaries) and all(summary.values == {0} for summary in summaries)
    if black and all(isinstance(mask, UnionMask) for mask in masks):
        raise DataError(
            f"{summaries[0].path}: mask holds only the value 0, as do all {len(summaries)} masks of this part; "
            f"expected 1, or values above {THRESHOLD}, where the structure is; copy the masks from the archive again"
        )


def find_mapping(
    summaries: Iterable[MaskSummary],
    *,
    num_classes: int,
    ignore_index: int | None = None,
    given: Mapping[int, int] | None = None,
) -> MaskMapping:
    """Chooses the mapping for a set of masks, deciding over all of them: one mask alone may hold only background.

    Given values are taken as they are. Otherwise values that are class indices (or `ignore_index`) already stay, and
    exactly two values for two classes are mapped in ascending order, {0, 255} for instance.

    Args:
        summaries: What the masks hold.
        num_classes: Number of classes, background included.
        ignore_index: Value that marks pixels without label.
        given: `data.mask_values` of the recipe.

    Raises:
        DataError: Some value has no class; the sentence names a mask that holds it and proposes a mapping.
    """
    summaries = list(summaries)
    union = frozenset[int]().union(*(summary.values for summary in summaries))
    if given is not None:
        _refuse_values_outside(summaries, union, given)
        return MaskMapping(dict(given))
    labels = set(range(num_classes)) | ({ignore_index} if ignore_index is not None else set())
    only_ignored_beside_zero = num_classes == 2 and union == {0, ignore_index}
    if union <= labels and not only_ignored_beside_zero:
        return MaskMapping({label: label for label in sorted(labels)})
    if num_classes == 2 and len(union) == 2 and ignore_index not in union:
        return MaskMapping({value: index for index, value in enumerate(sorted(union))})
    raise DataError(_unexpected_values(summaries, union, num_classes, ignore_index))


def _refuse_values_outside(summaries: Iterable[MaskSummary], union: frozenset[int], given: Mapping[int, int]) -> None:
    if union <= set(given):
        return
    odd = next(summary for summary in summaries if not summary.values <= set(given))
    raise DataError(
        f"{odd.path}: mask holds values {_listed(sorted(odd.values))}; expected only those of data.mask_values "
        f"{_listed(sorted(given))}; add the others to data.mask_values"
    )


def _unexpected_values(
    summaries: Sequence[MaskSummary], union: frozenset[int], num_classes: int, ignore_index: int | None
) -> str:
    labels = set(range(num_classes)) | ({ignore_index} if ignore_index is not None else set())
    outside = [summary for summary in summaries if not summary.values <= labels] or list(summaries)
    odd = max(outside, key=lambda summary: len(summary.values))
    expected = f"class indices 0..{num_classes - 1}"
    if ignore_index is not None:
        expected += f" or ignore_index {ignore_index}"
    held = _listed(sorted(odd.values))
    return f"{odd.path}: mask holds values {held}; expected {expected}. {_advice(union, num_classes)}"


def proposed_mapping(union: frozenset[int], num_classes: int) -> dict[int, int] | None:
    """Values in ascending order as the classes; None where there are more values than classes.

    >>> proposed_mapping(frozenset({255, 128}), 3)
    {0: 0, 128: 1, 255: 2}
    """
    values = sorted(union | {0}) if len(union) < num_classes else sorted(union)
    return dict(zip(values, range(num_classes), strict=False)) if len(values) <= num_classes else None


def _advice(union: frozenset[int], num_classes: int) -> str:
    mapping = proposed_mapping(union, num_classes)
    if mapping is not None:
        return f"Map them with data.mask_values: {mapping}"
    if len(union) > LISTED_VALUES:
        return (
            f"So many values ({len(union)} over all masks) come from JPEG or smoothed masks: "
            "threshold them and save them as PNG"
        )
    return (
        f"All masks together hold {_listed(sorted(union))}: "
        "name every class in data.class_names and every value in data.mask_values"
    )


def _listed(values: Sequence[int]) -> str:
    if len(values) <= LISTED_VALUES:
        return str(list(values))
    return f"[{', '.join(str(value) for value in values[:4])}, ... {values[-1]}] ({len(values)} of them)"
