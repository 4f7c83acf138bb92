"""Measurements of masks that were made elsewhere: a folder is read, one bad file stops no other.

What a stored value means is decided once over all masks, because one mask alone may hold only background. Every mask is
read twice for that, so that memory does not grow with their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from etnet.config.schema import Recipe
from etnet.data.io import read_mask_values
from etnet.data.mask_values import MaskMapping, MaskSummary, distinct_values, find_mapping
from etnet.errors import DataError, EtnetError
from etnet.inference.folder import FAILED_COLUMNS
from etnet.inference.inputs import InputItem, Inputs, find_inputs
from etnet.inference.measurements import MeasuredImage, measure_labels, structures_of
from etnet.metrics.optic_nerve import Eye
from etnet.metrics.scale import PIXELS, Scale, millimetres
from etnet.types import BoolArray

_BATCH = 64
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class MeasuringSettings:
    """What the masks show and how they are measured.

    Attributes:
        recipe: Names and groups of the classes, and what stored values mean (`data` alone is used).
        scale: Size of a pixel, the same for all masks.
        eye: Which eye the images show; None where it is not known.
        field_of_view: One mask for all images, or a folder with one for each, named by the mask's stem or (as in DRIVE)
            the stem and `_mask`; None where there is none. Values above the middle grey are inside (above 0 in masks of
            0 and 1).
    """

    recipe: Recipe
    scale: Scale = PIXELS
    eye: Eye | None = None
    field_of_view: Path | None = None


@dataclass
class MeasuredMasks:
    """All masks of a run: `done` were measured, `failed` are (file, reason)."""

    done: list[MeasuredImage] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Counts and every mask, for JSON."""
        return {
            "counts": {"done": len(self.done), "failed": len(self.failed)},
            "masks": [asdict(image) for image in self.done],
            "failed": [dict(zip(FAILED_COLUMNS, row, strict=True)) for row in self.failed],
        }


def measure_masks(
    inputs: Inputs, settings: MeasuringSettings, *, on_mask: Callable[[str], None] | None = None
) -> MeasuredMasks:
    """Measure every mask of a folder.

    Args:
        inputs: What `etnet.inference.inputs.find_inputs` found; a spacing in a table outranks that of the settings.
        settings: What the masks show and how they are measured.
        on_mask: Called with each input's id when it is done or has failed.

    Raises:
        DataError: Some stored value has no class; the sentence names a mask that holds it. Or the fields of view are
            missing, or two have one name.
    """
    outcome = MeasuredMasks(failed=list(inputs.unreadable))
    readable: list[InputItem] = []
    summaries: list[MaskSummary] = []
    for item, summary in _in_threads(_summary, inputs.items):
        if isinstance(summary, str):
            outcome.failed.append((item.id, summary))
            _tell(on_mask, item)
        else:
            readable.append(item)
            summaries.append(summary)
    if not summaries:
        return outcome
    measure = _Measuring(settings, mask_mapping(summaries, settings.recipe))
    for item, measured in _in_threads(measure, readable):
        if isinstance(measured, str):
            outcome.failed.append((item.id, measured))
        else:
            outcome.done.append(measured)
        _tell(on_mask, item)
    order = {item.id: index for index, item in enumerate(inputs.items)}
    outcome.failed.sort(key=lambda row: order.get(row[0], -1))
    return outcome


def mask_mapping(summaries: Sequence[MaskSummary], recipe: Recipe) -> MaskMapping:
    """What stored values mean: class indices, as `etnet infer` writes them, or `data.mask_values` of the recipe.

    The recipe's values count where the masks hold only such values, and more than one of them; otherwise masks that
    hold class indices hold class indices.

    Raises:
        DataError: Some value has no class.
    """
    data = recipe.data
    held = frozenset[int]().union(*(summary.values for summary in summaries))
    indices = frozenset(range(len(data.class_names)))
    fits_recipe = data.mask_values is not None and held <= set(data.mask_values) and len(held) > 1
    given = None if held <= indices and not fits_recipe else data.mask_values
    return find_mapping(summaries, num_classes=len(data.class_names), ignore_index=data.ignore_index, given=given)


class _Measuring:
    """Reads and measures one mask."""

    def __init__(self, settings: MeasuringSettings, mapping: MaskMapping) -> None:
        self._settings = settings
        self._mapping = mapping
        contract = settings.recipe.contract()
        self._structures: Mapping[str, Sequence[int]] = structures_of(contract.class_names, dict(contract.class_groups))
        self._fields = _FieldsOfView(settings.field_of_view)

    def __call__(self, item: InputItem) -> MeasuredImage:
        path, settings = item.path, self._settings
        labels = self._mapping.apply(read_mask_values(path), path=path)
        field_of_view = self._fields.of(path, (labels.shape[0], labels.shape[1]))
        scale = settings.scale if item.spacing is None else millimetres(*item.spacing, source=item.id)
        values = measure_labels(labels, self._structures, scale=scale, field_of_view=field_of_view, eye=settings.eye)
        return MeasuredImage(item.id, labels.shape[0], labels.shape[1], values)


class _FieldsOfView:
    """Finds and reads the field of view of a mask; one for all is read once."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._for_all = _bright(path) if path is not None and not path.is_dir() else None
        self._by_stem = _by_stem(path) if path is not None and path.is_dir() else {}

    def of(self, mask: Path, shape: tuple[int, int]) -> BoolArray | None:
        """The field of view of a mask of (height, width) pixels; None where there is none for any."""
        if self._path is None:
            return None
        source, found = self._path, self._for_all
        if found is None:
            source = self._named(mask)
            found = _bright(source)
        if found.shape != shape:
            raise DataError(
                f"{mask}: the mask is {shape[1]}x{shape[0]} pixels, its field of view {source} "
                f"{found.shape[1]}x{found.shape[0]}; expected the same size"
            )
        return found

    def _named(self, mask: Path) -> Path:
        for stem in (mask.stem, f"{mask.stem}_mask"):
            if stem in self._by_stem:
                return self._by_stem[stem]
        raise DataError(
            f"{mask}: no field of view named {mask.stem} or {mask.stem}_mask in {self._path}; add one, or measure "
            "without --field-of-view"
        )


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for item in find_inputs(folder).items:
        other = found.setdefault(item.path.stem, item.path)
        if other != item.path:
            raise DataError(
                f"{folder}: holds two fields of view for masks named {item.path.stem}, {other.name} and "
                f"{item.path.name}; expected one; remove the other"
            )
    return found


def _bright(path: Path) -> BoolArray:
    values = read_mask_values(path)
    inside = values > (127 if values.max() > 1 else 0)
    if not inside.any():
        raise DataError(f"{path}: the field of view is empty; expected bright pixels where vessels can be seen")
    return np.asarray(inside)


def _summary(item: InputItem) -> MaskSummary:
    values = read_mask_values(item.path)
    return MaskSummary(item.path, (values.shape[0], values.shape[1]), distinct_values(values))


def _in_threads(
    work: Callable[[InputItem], _Result], items: Sequence[InputItem]
) -> Iterator[tuple[InputItem, _Result | str]]:
    """Each input with its result or the reason why it has none, in order; a bounded number of them at a time."""

    def guarded(item: InputItem) -> _Result | str:
        try:
            return work(item)
        except EtnetError as error:
            return str(error)
        except MemoryError:
            return f"{item.path}: not enough memory to read this mask; cut it into parts"

    remaining = iter(items)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="etnet-measure") as pool:
        while batch := list(islice(remaining, _BATCH)):
            yield from zip(batch, pool.map(guarded, batch), strict=True)


def _tell(on_mask: Callable[[str], None] | None, item: InputItem) -> None:
    if on_mask is not None:
        on_mask(item.id)
