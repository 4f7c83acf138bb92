"""What is read off a mask, per image: which measurements there are follows from the names of its structures.

Lengths and areas are in pixels, or in millimetres where the spacing is known; every column says which. Definitions and
their sources are those of `etnet.metrics.shape`, `optic_nerve`, `vessels` and `lungs`: all pixels of a structure count,
no island is removed first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.data.roi import window_around
from etnet.metrics.clinical import CUP, DISC, LUNG_NAMES, VESSEL_NAMES
from etnet.metrics.lungs import lung_measures, lung_side_measures, lung_stack_measures, volume_ml
from etnet.metrics.optic_nerve import Eye, optic_nerve_measures
from etnet.metrics.scale import PIXELS, Scale
from etnet.metrics.shape import shape_measures
from etnet.metrics.vessels import vessel_measures
from etnet.output import write_csv
from etnet.types import BoolArray, Contract, Prediction, UInt8Array

CUT_OFF = f"{DISC}_cut_off_by"
"""Column that says what cuts the disc off; a network sees nothing beyond, so that its diameter would be too small."""

Measurements = dict[str, float | str | None]
Region = tuple[slice, slice]
Labels = npt.NDArray[np.integer[Any]]

RIGHT_LUNG_NAMES, LEFT_LUNG_NAMES = ("right_lung", "lung_right"), ("left_lung", "lung_left")


def measure_prediction(prediction: Prediction, contract: Contract, *, scale: Scale = PIXELS) -> Measurements:
    """Measure one prediction.

    Args:
        prediction: Labels of the whole image, and the centre of its region of interest where there is one.
        contract: Names of the classes, and of the structures that consist of several.
        scale: Size of a pixel of the image.

    Returns:
        Values by column, in a fixed order that depends on the contract and the scale's unit alone: the centre of the
        region of interest (row and column, the middle of the first pixel at 0.5), then those of `measure_labels`.
    """
    values: Measurements = {}
    if contract.roi is not None:
        row, column = prediction.center or (None, None)
        values |= {"center_row_px": row, "center_column_px": column}
    region = None
    if contract.roi is not None and prediction.center is not None:
        shape = (prediction.labels.shape[0], prediction.labels.shape[1])
        region = window_around(prediction.center, shape, contract.roi).visible(shape)
    structures = structures_of(contract.class_names, dict(contract.class_groups))
    return values | measure_labels(prediction.labels, structures, scale=scale, region=region)


def measure_volume(
    labels: UInt8Array,
    contract: Contract,
    *,
    spacing: tuple[float, float, float],
    values: npt.NDArray[Any] | None = None,
    source: str = "spacing",
) -> Measurements:
    """Measure the mask of a volume: the volume of every structure, and of lungs the mean Hounsfield units.

    Args:
        labels: Class indices [S, H, W], uint8.
        contract: Names of the classes, and of the structures that consist of several.
        spacing: Distance in mm between slices, rows and columns.
        values: Values [S, H, W] of the file, which for CT are Hounsfield units.
        source: Where the volume was read, which errors name.

    Returns:
        `NAME_volume_ml` of every structure, and the values of `etnet.metrics.lungs.lung_stack_measures`; None where a
        value is not defined.

    Raises:
        DataError: The spacing is not three positive finite numbers.
    """
    structures = structures_of(contract.class_names, dict(contract.class_groups))
    masks = {name: _members(labels, classes) for name, classes in structures.items()}
    measured = {f"{name}_volume_ml": volume_ml(mask, spacing, source=source) for name, mask in masks.items()}
    lungs = _first(masks, LUNG_NAMES)
    if lungs is not None:
        measured |= lung_stack_measures(lungs, spacing=spacing, hounsfield=values, source=source)
    return _finite(measured)


def structures_of(class_names: Sequence[str], class_groups: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The classes that each structure consists of: every class but the background, then every group.

    Where optic rim and cup are two classes, `optic_disc` is both, also when the rim's class was named after the whole.

    >>> structures_of(("background", "optic_disc", "optic_cup"), {})
    {'optic_disc': (1, 2), 'optic_cup': (2,)}
    """
    structures: dict[str, tuple[int, ...]] = {name: (index,) for index, name in enumerate(class_names) if index}
    structures |= {name: tuple(members) for name, members in class_groups.items()}
    if DISC in structures and CUP in structures:
        structures[DISC] = tuple(sorted({*structures[DISC], *structures[CUP]}))
    return structures


def measure_labels(
    labels: Labels,
    structures: Mapping[str, Sequence[int]],
    *,
    scale: Scale = PIXELS,
    field_of_view: BoolArray | None = None,
    eye: Eye | None = None,
    region: Region | None = None,
) -> Measurements:
    """Measure every structure of a mask, and what is particular to optic disc and cup, vessels and lungs.

    - Every structure: `etnet.metrics.shape.shape_measures`, each column behind the structure's name.
    - `optic_disc` with `optic_cup`: `etnet.metrics.optic_nerve.optic_nerve_measures`, and in `optic_disc_cut_off_by`
      whether the `image` or the `region` of interest ends the disc before its own border does. Such a disc has no
      ratios and no rim widths.
    - `vessel` or `vessels`: `etnet.metrics.vessels.vessel_measures`.
    - `lung` or `lungs`: `etnet.metrics.lungs.lung_measures`; classes of their own for both lungs (`right_lung`,
      `left_lung`): `lung_side_measures`.

    Args:
        labels: Class indices [H, W].
        structures: The classes that each structure consists of (`structures_of`).
        scale: Size of a pixel.
        field_of_view: Pixels that can hold vessels [H, W], bool; None for all.
        eye: Which eye a fundus image shows; None where it is not known.
        region: Rows and columns that a network saw; None for all.

    Returns:
        Values by column, in a fixed order that does not depend on the labels; None where a value is not defined.
    """
    masks = {name: _members(labels, classes) for name, classes in structures.items()}
    values: dict[str, float | str] = {}
    for name, mask in masks.items():
        values |= {f"{name}_{column}": value for column, value in shape_measures(mask, scale).items()}
    if DISC in masks and CUP in masks:
        border = _cut_off_by(masks[DISC], region)
        nerve = optic_nerve_measures(masks[DISC] & ~masks[CUP], masks[CUP], scale=scale, eye=eye)
        values |= _without_proportions(nerve) if border else nerve
        values[CUT_OFF] = border
    vessels = _first(masks, VESSEL_NAMES)
    if vessels is not None:
        values |= vessel_measures(vessels, field_of_view=field_of_view, scale=scale)
    lungs, right, left = (_first(masks, names) for names in (LUNG_NAMES, RIGHT_LUNG_NAMES, LEFT_LUNG_NAMES))
    if right is not None and left is not None:
        values |= lung_side_measures(right, left, scale)
    elif lungs is not None:
        values |= lung_measures(lungs, scale)
    return _finite(values)


def _finite(values: Mapping[str, float | str]) -> Measurements:
    """None for what is not defined, and for what voxels of absurd sizes or values make infinite."""
    return {
        column: None if isinstance(value, float) and not math.isfinite(value) else value
        for column, value in values.items()
    }


def _cut_off_by(disc: BoolArray, region: Region | None) -> str:
    """What ends a disc [H, W], bool, before its own border does: `image`, `region`, or nothing (empty)."""
    if _touches_border(disc):
        return "image"
    return "region" if region is not None and _touches_border(disc[region]) else ""


def _touches_border(mask: BoolArray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any()) if mask.size else False


def _without_proportions(nerve: Mapping[str, float]) -> dict[str, float]:
    return {name: math.nan if "ratio" in name or name.startswith("rim_width") else v for name, v in nerve.items()}


@dataclass(frozen=True)
class MeasuredImage:
    """One row of a table of measurements.

    Attributes:
        file: The mask's file, or the input's id.
        height: Rows of the mask.
        width: Its columns.
        measurements: Values by column.
    """

    file: str
    height: int
    width: int
    measurements: Measurements


def write_measurements(path: Path, images: Callable[[], Iterable[MeasuredImage]]) -> None:
    """Write a table with one row per image.

    Columns are those of the first image, then what only others have: images differ where the spacing of some is known
    and of others not. A value that an image does not have, or that is not defined, is an empty cell.

    Args:
        path: Table to write.
        images: Gives the rows, and gives them again: they are read twice, so that not all have to be in memory.

    Raises:
        EnvironmentFault: The disk refuses.
    """
    columns = list(dict.fromkeys(column for image in images() for column in image.measurements))
    rows = (
        [image.file, image.height, image.width, *(_cell(image.measurements.get(column)) for column in columns)]
        for image in images()
    )
    write_csv(path, ["file", "height_px", "width_px", *columns], rows)


def _cell(value: float | str | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _members(labels: Labels, classes: Sequence[int]) -> BoolArray:
    return np.asarray(labels == classes[0] if len(classes) == 1 else np.isin(labels, classes))


def _first(masks: Mapping[str, BoolArray], names: Sequence[str]) -> BoolArray | None:
    return next((masks[name] for name in names if name in masks), None)
