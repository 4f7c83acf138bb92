"""Quantities that clinicians read off a mask, and their errors: cup-to-disc ratio, areas, vessel density.

Which of them apply follows from the names of the classes and groups of classes: `optic_disc` and `optic_cup`, `vessel`
(or `vessels`), `lung` (or `lungs`). All pixels of a structure count as they were predicted; no island is removed first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.types import BoolArray

DISC, CUP = "optic_disc", "optic_cup"
VESSEL_NAMES = ("vessel", "vessels")
LUNG_NAMES = ("lung", "lungs")

Labels = npt.NDArray[np.integer[Any]]


def clinical_measures(
    labels: Labels,
    target: Labels,
    structures: Mapping[str, Sequence[int]],
    *,
    field_of_view: BoolArray | None = None,
    labelled: BoolArray | None = None,
    reference_cdr: float | None = None,
) -> dict[str, float]:
    """Values and errors of the quantities that apply to these structures; an error is predicted minus true.

    - `vertical_cdr_*`: vertical cup-to-disc ratio and its error against the mask's (see `vertical_cup_to_disc_ratio`);
      `vertical_cdr_annotators_*`: against the annotators' own ratio where the data set gives one.
    - `optic_disc_area_*`, `optic_cup_area_*`, `lung_area_*`: error of the area as a share of the true area.
    - `vessel_density_*`: vessel pixels as a share of the field of view (of the labelled image where there is none).

    Each error comes with its absolute value (`..._absolute_error`). NaN rules: an error of a ratio or an area is NaN
    where the true structure is absent; a structure that is there but was not predicted has an area error of -1; a ratio
    is NaN where its disc is absent, and then so is its error: count such images with the report's "left out".

    Args:
        labels: Predicted class indices [H, W].
        target: True class indices [H, W].
        structures: The classes that each structure consists of.
        field_of_view: Labelled pixels that can hold vessels [H, W], bool; None for all labelled ones.
        labelled: Pixels with a true class [H, W], bool; None for all.
        reference_cdr: Vertical cup-to-disc ratio by annotators, 0..1.

    Returns:
        Values by name, in a fixed order; the names depend on the structures alone, but for the annotators' ratio.
    """
    if labelled is not None:
        # A pixel that has no true class cannot be right or wrong.
        labels, target = np.where(labelled, labels, 0), np.where(labelled, target, 0)
    measures: dict[str, float] = {}
    if DISC in structures and CUP in structures:
        # Where rim and cup are two classes the disc is both, also when its class was named after the whole.
        disc = [*structures[DISC], *structures[CUP]]
        measures |= _cup_to_disc(labels, target, disc, structures[CUP], reference_cdr)
        measures |= _area_error(DISC, labels, target, disc) | _area_error(CUP, labels, target, structures[CUP])
    elif DISC in structures:
        measures |= _area_error(DISC, labels, target, structures[DISC])
    for name in VESSEL_NAMES:
        if name in structures:
            measures |= _vessel_density(
                labels, target, structures[name], field_of_view if field_of_view is not None else labelled
            )
    for name in LUNG_NAMES:
        if name in structures:
            measures |= _area_error("lung", labels, target, structures[name])
    return measures


def vertical_cup_to_disc_ratio(disc: BoolArray, cup: BoolArray) -> float:
    """Height of the optic cup over height of the optic disc, each from its topmost to its lowest pixel row.

    The ratio of the glaucoma literature (Orlando et al., "REFUGE Challenge", Medical Image Analysis 59, 2020, Sec. 3).

    Args:
        disc: Rim and cup [H, W], bool.
        cup: Cup [H, W], bool.

    Returns:
        The ratio; 0 for a disc without a cup, NaN without a disc.

    Example:
        >>> disc, cup = np.zeros((2, 12, 9), bool)
        >>> disc[1:11], cup[4:9] = True, True
        >>> vertical_cup_to_disc_ratio(disc, cup)
        0.5
    """
    height = vertical_extent(disc)
    return vertical_extent(cup) / height if height else math.nan


def vertical_extent(mask: BoolArray) -> int:
    """Number of pixel rows from the topmost to the lowest pixel of a mask [H, W]; 0 for an empty one."""
    rows = np.flatnonzero(mask.any(axis=1))
    return int(rows[-1] - rows[0]) + 1 if rows.size else 0


def _cup_to_disc(
    labels: Labels, target: Labels, disc: Sequence[int], cup: Sequence[int], reference: float | None
) -> dict[str, float]:
    predicted, true = (
        vertical_cup_to_disc_ratio(np.isin(array, disc), np.isin(array, cup)) for array in (labels, target)
    )
    measures = {
        "vertical_cdr_true": true,
        "vertical_cdr_predicted": predicted,
        **_error("vertical_cdr", predicted, true),
    }
    if reference is not None:
        measures |= {"vertical_cdr_annotators": reference, **_error("vertical_cdr_annotators", predicted, reference)}
    return measures


def _area_error(name: str, labels: Labels, target: Labels, members: Sequence[int]) -> dict[str, float]:
    predicted, true = (int(np.count_nonzero(np.isin(array, members))) for array in (labels, target))
    return _error(f"{name}_area", predicted / true, 1.0) if true else _error(f"{name}_area", math.nan, 1.0)


def _vessel_density(
    labels: Labels, target: Labels, members: Sequence[int], where: BoolArray | None
) -> dict[str, float]:
    predicted, true = (vessel_density(np.isin(array, members), where) for array in (labels, target))
    return {
        "vessel_density_true": true,
        "vessel_density_predicted": predicted,
        **_error("vessel_density", predicted, true),
    }


def vessel_density(vessels: BoolArray, where: BoolArray | None = None) -> float:
    """Share of the pixels of a region [H, W] (None: of the image) that are vessels; NaN for an empty region."""
    counted = vessels if where is None else vessels[where]
    return float(np.count_nonzero(counted) / counted.size) if counted.size else math.nan


def _error(name: str, predicted: float, true: float) -> dict[str, float]:
    return {f"{name}_error": predicted - true, f"{name}_absolute_error": abs(predicted - true)}
