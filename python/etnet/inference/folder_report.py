"""`report.html` of a folder run, from its journal and the written masks: nothing is predicted again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from etnet.data.io import read_mask_values
from etnet.data.roi import window_around
from etnet.data.volumes import Plane, open_volume
from etnet.inference.folder import FolderOutcome
from etnet.inference.input_images import open_input
from etnet.inference.inputs import Inputs
from etnet.inference.report import ReportHead, ReportRow, draw_thumbnail, write_report
from etnet.inference.results import ImageResult
from etnet.types import Contract, UInt8Array


def write_folder_report(
    outcome: FolderOutcome,
    inputs: Inputs,
    output: Path,
    *,
    contract: Contract,
    summary: Mapping[str, Any],
    plane: Plane = "axial",
    threads: int = 2,
) -> None:
    """Write the report of a finished run.

    Args:
        outcome: What the run did.
        inputs: What it was given; pictures are drawn over these files.
        output: Folder of the results, and of the report.
        contract: Of the network.
        summary: What `summary.json` says; time and commands of single runs are left out, so that equal results give
            equal reports.
        plane: The plane in which volumes were cut.
        threads: Threads that draw.

    Raises:
        EnvironmentFault: The disk refuses.
    """
    head = ReportHead(
        title=_title(summary),
        settings=summary["settings"],
        model=summary["model"],
        ran_on=summary["ran_on"],
        versions=summary["versions"],
        counts={name: count for name, count in summary["counts"].items() if count or name in ("done", "failed")},
        class_names=contract.class_names,
        class_colors=contract.class_colors,
    )
    pictures = _Pictures(inputs, output, contract, plane)
    write_report(output / "report.html", head, _rows(outcome), outcome.failures(), draw=pictures, threads=threads)


def _title(summary: Mapping[str, Any]) -> str:
    source = str(summary["settings"]["input"])
    recipe = summary["model"].get("recipe")
    return f"{Path(source).name or source}, segmented by {recipe}" if recipe else Path(source).name or source


def _rows(outcome: FolderOutcome) -> Iterator[ReportRow]:
    for image in outcome.images():
        yield _row(image)


def _row(image: ImageResult) -> ReportRow:
    return ReportRow(
        file=image.file,
        height=image.height,
        width=image.width,
        measurements=image.measurements,
        uncertainty=image.uncertainty,
        flags=image.quality_flags,
    )


class _Pictures:
    """Draws the mask of a row over its image; of a volume, over the slice with most of it."""

    def __init__(self, inputs: Inputs, output: Path, contract: Contract, plane: Plane) -> None:
        self._items = {item.id: item for item in inputs.items}
        self._output = output
        self._contract = contract
        self._plane = plane

    def __call__(self, row: ReportRow) -> UInt8Array | None:
        item = self._items.get(row.file)
        if item is None:
            return None
        opened = open_input(item, intensity_window=self._contract.intensity_window, plane=self._plane)
        mask = self._output / "masks" / f"{item.output_name}{opened.mask_suffix}"
        if not opened.is_volume:
            index, labels = 0, read_mask_values(mask)
        else:
            volume = open_volume(mask, plane=self._plane)
            index = max(range(len(volume)), key=lambda at: np.count_nonzero(volume.values(at)))
            labels = volume.values(index)
        if labels.shape != opened.size:
            return None
        return draw_thumbnail(
            opened.pixels(index), labels.astype(np.uint8), self._contract.class_colors, region=self._region(row)
        )

    def _region(self, row: ReportRow) -> tuple[slice, slice] | None:
        row_of, column_of = (row.measurements.get(name) for name in ("center_row_px", "center_column_px"))
        if self._contract.roi is None or not isinstance(row_of, float) or not isinstance(column_of, float):
            return None
        shape = (row.height, row.width)
        return window_around((row_of, column_of), shape, self._contract.roi).visible(shape)
