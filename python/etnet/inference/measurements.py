"""What is read off a predicted mask, per image: areas, vertical diameters of optic disc and cup, their ratio.

Everything is in pixels of the image, because its scale in millimetres is not known; the columns say so. Definitions are
those of `etnet.metrics.clinical`: all pixels of a structure count, no island is removed first.
"""

from __future__ import annotations

import math

import numpy as np

from etnet.data.roi import window_around
from etnet.metrics.clinical import CUP, DISC, vertical_cup_to_disc_ratio, vertical_extent
from etnet.types import BoolArray, Contract, Prediction

CUT_OFF = f"{DISC}_cut_off_by"
"""Column that says what cuts the disc off; a network sees nothing beyond, so that its diameter would be too small."""

Measurements = dict[str, float | str | None]


def measure_prediction(prediction: Prediction, contract: Contract) -> Measurements:
    """Measure one prediction.

    Args:
        prediction: Labels of the whole image, and the centre of its region of interest where there is one.
        contract: Names of the classes, and of the structures that consist of several.

    Returns:
        Values by column, in a fixed order that depends on the contract alone: the centre of the region of interest (row
        and column, the middle of the first pixel at 0.5); the area of each class but the background and of each group;
        where the network knows optic disc and cup, their vertical diameters (topmost to lowest pixel row), the
        vertical cup-to-disc ratio, and whether the disc is cut off by the region of interest or by the image. The ratio
        is None without a disc, and of a disc that is cut off.
    """
    labels = prediction.labels
    values: Measurements = {}
    if contract.roi is not None:
        row, column = prediction.center or (None, None)
        values |= {"center_row_px": row, "center_column_px": column}
    counts = np.bincount(labels.ravel(), minlength=contract.num_classes)
    structures = {name: (index,) for index, name in enumerate(contract.class_names) if index} | dict(
        contract.class_groups
    )
    values |= {f"{name}_area_px": int(counts[list(classes)].sum()) for name, classes in structures.items()}
    if DISC in structures and CUP in structures:
        # Where rim and cup are two classes the disc is both, also when its class was named after the whole.
        disc, cup = np.isin(labels, structures[DISC] + structures[CUP]), np.isin(labels, structures[CUP])
        ratio, border = vertical_cup_to_disc_ratio(disc, cup), _cut_off_by(disc, prediction, contract)
        values |= {
            f"{DISC}_vertical_diameter_px": vertical_extent(disc),
            f"{CUP}_vertical_diameter_px": vertical_extent(cup),
            "vertical_cup_to_disc_ratio": None if border or math.isnan(ratio) else ratio,
            CUT_OFF: border,
        }
    return values


def _cut_off_by(disc: BoolArray, prediction: Prediction, contract: Contract) -> str:
    """What ends a disc [H, W], bool, before its own border does: `image`, `region`, or nothing (empty)."""
    if _touches_border(disc):
        return "image"
    if contract.roi is None or prediction.center is None:
        return ""
    rows, columns = window_around(prediction.center, disc.shape, contract.roi).visible(disc.shape)
    return "region" if _touches_border(disc[rows, columns]) else ""


def _touches_border(mask: BoolArray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any()) if mask.size else False
