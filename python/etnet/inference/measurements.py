"""What is read off a predicted mask, per image: areas, vertical diameters of optic disc and cup, their ratio.

Everything is in pixels of the image, because its scale in millimetres is not known; the columns say so. Definitions are
those of `etnet.metrics.clinical`: all pixels of a structure count, no island is removed first.
"""

from __future__ import annotations

import math

import numpy as np

from etnet.metrics.clinical import CUP, DISC, vertical_cup_to_disc_ratio, vertical_extent
from etnet.types import Contract, Prediction

Measurements = dict[str, float | None]


def measure_prediction(prediction: Prediction, contract: Contract) -> Measurements:
    """Measure one prediction.

    Args:
        prediction: Labels of the whole image, and the centre of its region of interest where there is one.
        contract: Names of the classes, and of the structures that consist of several.

    Returns:
        Values by column, in a fixed order that depends on the contract alone: the centre of the region of interest (row
        and column, the middle of the first pixel at 0.5); the area of each class but the background and of each group;
        where the network knows optic disc and cup, their vertical diameters (topmost to lowest pixel row) and the
        vertical cup-to-disc ratio, which is None without a disc.
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
        ratio = vertical_cup_to_disc_ratio(disc, cup)
        values |= {
            f"{DISC}_vertical_diameter_px": vertical_extent(disc),
            f"{CUP}_vertical_diameter_px": vertical_extent(cup),
            "vertical_cup_to_disc_ratio": None if math.isnan(ratio) else ratio,
        }
    return values
