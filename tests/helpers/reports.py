"""Rows, heads and pictures of reports, made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from etnet.inference.report import ReportHead, ReportRow, write_report

HOSTILE = "<script>alert(1)</script>.png"
QUOTES = """a "quoted" & 'single' name.png"""

CIRCLE: tuple[int, int, int] = (46, 204, 113)


def head(**changes: object) -> ReportHead:
    values = {
        "title": "Segmentation of eyes",
        "settings": {"input": "eyes", "overlay": True, "threads": None, "tile": {"size": 512}},
        "model": {"sha256": "ab" * 32, "class_colors": [[0, 0, 0], list(CIRCLE)]},
        "ran_on": "onnxruntime cpu",
        "versions": {"etnet": "0.1.0"},
        "counts": {"done": 3, "failed": 1},
        "class_names": ("background", "optic_disc"),
        "class_colors": ((0, 0, 0), CIRCLE),
    }
    return ReportHead(**{**values, **changes})  # type: ignore[arg-type]


def row(file: str, uncertainty: float | None = None, *flags: str, **measurements: float | str | None) -> ReportRow:
    return ReportRow(file, 60, 80, measurements, uncertainty, flags)


def many_rows(number: int, *, columns: int = 12, seed: int = 0) -> Iterator[ReportRow]:
    """Rows as of a run over optic discs; every seventh is flagged, every fifth has no ratio."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        values = rng.normal(1.0, 0.1, columns)
        measurements: dict[str, float | str | None] = {
            "optic_disc_area_px": float(round(40000 * values[0])),
            "vertical_cup_to_disc_ratio": None if index % 5 == 0 else float(0.5 * values[1]),
            "cup_outside_disc": int(index % 11 == 0),
            "optic_disc_cut_off_by": "image" if index % 13 == 0 else "",
        }
        measurements |= {f"rim_width_{place}_px": float(20 * values[place]) for place in range(4, columns)}
        flags = ("blurred",) if index % 7 == 0 else ()
        yield ReportRow(f"eye_{index:06d}.png", 600, 500, measurements, float(rng.uniform()), flags)


def disc(row: ReportRow) -> np.ndarray:
    """A green disc on a gray gradient whose size follows from the row's name."""
    rows, columns = np.mgrid[:240, :320]
    radius = 40 + sum(row.file.encode("utf-8", "surrogateescape")) % 50
    picture = np.repeat(((rows + columns) // 3).astype(np.uint8)[..., None], 3, axis=2)
    picture[(rows - 120) ** 2 + (columns - 160) ** 2 < radius**2] = CIRCLE
    return picture


def write(path: Path, rows: Iterable[ReportRow], failures: Iterable[tuple[str, str]] = (), **options: object) -> str:
    """Write a report and read it."""
    values = {"draw": disc, "head": head()} | options
    write_report(path, values.pop("head"), rows, failures, **values)  # type: ignore[arg-type]
    return path.read_text("utf-8")


def failures(number: int) -> Iterator[tuple[str, str]]:
    return ((f"broken_{index}.png", "the file is empty (0 bytes)") for index in range(number))
