"""The tables of `etnet benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from etnet.cli.console import output
from etnet.inference.measure import PERCENTILES, STAGES

if TYPE_CHECKING:
    from etnet.export.benchmark import Row
    from etnet.inference.measure import Latency

MEBIBYTE = 2**20
NOTHING = "-"


def print_tables(rows: Sequence[Row]) -> None:
    """Scores and times of the formats that ran, their stages, and why the others did not."""
    console = output()
    ran = [row for row in rows if row.latencies]
    if ran:
        for table in (_formats(ran), _times(ran), _stages(ran)):
            console.print(table)
    for row in rows:
        if row.reason is not None:
            console.print(Text.assemble((f"{row.name}: ", "bold"), row.reason), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("format", "ran on") else "right", no_wrap=True)
    return table


def _formats(rows: Sequence[Row]) -> Table:
    table = _table("Formats", "format", "ran on", "MiB", "Dice", "mIoU", "differ %", "peak MiB")
    for row in rows:
        differing = None if row.differing_labels is None else 100 * row.differing_labels
        scores = (_number(row.mean_dice, 4), _number(row.mean_iou, 4), _number(differing, 3))
        # The format already names the runtime.
        where = (row.ran_on or NOTHING).partition(" ")[2]
        table.add_row(row.name, where, _number((row.file_bytes or 0) / MEBIBYTE, 0), *scores, _peak(row))
    return table


def _times(rows: Sequence[Row]) -> Table:
    """End to end; the speed is against the first format at the same batch size."""
    table = _table("End to end", "format", "batch", "p50 ms", "p95 ms", "p99 ms", "images/s", "speed")
    first = {latency.batch: latency.images_per_second for latency in rows[0].latencies}
    for row in rows:
        for latency in row.latencies:
            milliseconds = (_milliseconds(latency.total, percentile) for percentile in PERCENTILES)
            rate = latency.images_per_second
            speed = f"{rate / first[latency.batch]:.2f}x" if latency.batch in first else NOTHING
            table.add_row(row.name, str(latency.batch), *milliseconds, _number(rate, 1), speed)
    return table


def _stages(rows: Sequence[Row]) -> Table:
    table = _table("Median ms of each stage", "format", "batch", *STAGES)
    for row in rows:
        for latency in row.latencies:
            table.add_row(row.name, str(latency.batch), *(_stage(latency, stage) for stage in STAGES))
    return table


def _stage(latency: Latency, stage: str) -> str:
    return _milliseconds(latency.stages[stage], 50) if stage in latency.stages else NOTHING


def _milliseconds(seconds: np.ndarray[tuple[int], np.dtype[np.float32]], percentile: float) -> str:
    return _number(float(np.percentile(seconds, percentile)) * 1e3, 2)


def _peak(row: Row) -> str:
    return " + ".join(_number(size / MEBIBYTE, 0) for size in row.peak_bytes.values())


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"
