"""Columns of measurements as people read them: a name and a unit, and which of them tell a clinician most."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNCERTAINTY = "uncertainty"
"""Column of the report for `ReportRow.uncertainty`, beside those of the measurements."""

_UNITS = {"px": "px", "mm": "mm", "mm2": "mm\N{SUPERSCRIPT TWO}", "ml": "ml", "hu": "HU"}

_TELLING = tuple(
    re.compile(pattern)
    for pattern in (
        r"^vertical_cup_to_disc_ratio$",
        r"_ratio$",
        r"_density(_|$)",
        r"_(ml|hu)$",
        r"_(fractal_dimension|tortuosity)$",
        r"_area_(px|mm2)$",
    )
)
"""Columns that are read first, in this order; all others are places, extents and details of the same structures."""


def is_telling(column: str) -> bool:
    """Whether a column is one of those that are read first.

    >>> is_telling("vessel_density_in_image"), is_telling("vessel_box_top_px")
    (True, False)
    """
    return _rank(column) < len(_TELLING)


def by_importance(columns: Iterable[str]) -> list[str]:
    """Columns with the most telling ones first; among equals their order stays.

    >>> by_importance(["cup_box_top_px", "cup_area_px", "cup_to_disc_area_ratio", "vertical_cup_to_disc_ratio"])
    ['vertical_cup_to_disc_ratio', 'cup_to_disc_area_ratio', 'cup_area_px', 'cup_box_top_px']
    """
    return sorted(columns, key=_rank)


def title_and_unit(column: str) -> tuple[str, str]:
    """The name of a column in words, and its unit; an empty unit where it is a number without one.

    An area in pixels counts them, so that its unit is px and not px squared.

    >>> title_and_unit("optic_disc_area_mm2"), title_and_unit("vertical_cup_to_disc_ratio")
    (('optic disc area', 'mm²'), ('vertical cup-to-disc ratio', ''))
    """
    stem, _, suffix = column.rpartition("_")
    if stem and suffix in _UNITS:
        return _words(stem), _UNITS[suffix]
    return _words(column), ""


def title(column: str) -> str:
    """The name of a column in words with its unit behind a comma.

    >>> title("lung_volume_ml"), title("vessel_tortuosity")
    ('lung volume, ml', 'vessel tortuosity')
    """
    return ", ".join(part for part in title_and_unit(column) if part)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("cup to disc", "cup-to-disc").strip() or name


def _rank(column: str) -> int:
    return next((rank for rank, pattern in enumerate(_TELLING) if pattern.search(column)), len(_TELLING))
