"""Write the report in two passes: read every row once, then write the page piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from etnet.inference.report.content import ReportHead, ReportRow
from etnet.inference.report.figures import Figures
from etnet.inference.report.page import Failures, Page
from etnet.inference.report.pictures import Draw, draw_pictures
from etnet.inference.report.selection import LeastCertain
from etnet.output import replacing

MOST_FAILURES = 1000
"""Failures that the page lists; `failed.csv` has all."""


def write_report(
    path: Path,
    head: ReportHead,
    rows: Iterable[ReportRow],
    failures: Iterable[tuple[str, str]],
    *,
    draw: Draw,
    max_pictures: int = 1000,
    threads: int = 2,
) -> None:
    """Write one HTML file that needs no network, no other file and no script to be read.

    The same arguments give the same bytes. Of each row only its numbers are kept, and the whole of the `max_pictures`
    least certain ones; rows without an uncertainty come after them in their order. All images are in the
    distributions and counts, also those without a picture.

    Args:
        path: The file to write; its former content stays until the new one is complete.
        head: What holds for the whole run.
        rows: One row per segmented image; read once.
        failures: (file, reason) per input that could not be segmented; read once.
        draw: Draws the picture of a row as RGB [H, W, 3], uint8, best 320 pixels at its longer side; it is called in
            `threads` threads at once. Where it returns None or raises an `EtnetError` the row has no picture.
        max_pictures: Rows that are shown one by one.
        threads: Threads that draw and encode pictures.

    Raises:
        EnvironmentFault: The disk refuses; a former file stays.
    """
    figures, shown = Figures(), LeastCertain(max_pictures)
    for row in rows:
        figures.add(row)
        shown.add(row)
    page = Page(head, figures, shown.rows(), _listed(failures))
    # Names of files may hold bytes that are no text; they are shown as escapes.
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.writelines(page.before_pictures())
        for row, picture in draw_pictures(page.rows, draw, threads=threads):
            file.write(page.card(row, picture))
        file.writelines(page.after_pictures())


def _listed(failures: Iterable[tuple[str, str]]) -> Failures:
    remaining = iter(failures)
    listed = list(islice(remaining, MOST_FAILURES))
    return Failures(listed, total=len(listed) + sum(1 for _ in remaining))
