"""Records of a run in its folder: `metrics.csv`, `metrics.jsonl`, `results.png`, and TensorBoard where installed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType

from etnet.errors import EtnetError
from etnet.output import write_csv, write_text
from etnet.training.disk_refusals import DiskRefusals
from etnet.training.results_picture import draw_results
from etnet.training.trackers import tensorboard

Row = dict[str, float]

_WHOLE = ("epoch", "iteration")


class MetricsLog:
    """The run's table, one row per epoch, rewritten whole so that it is never half a row.

    `metrics.csv` has six digits, for people and spreadsheets; `metrics.jsonl` has one object per line with all digits,
    for programs. Both have the same keys.

    Args:
        run: Run folder.
        keep_until_epoch: Rows after this epoch are dropped: a resumed run writes them again.
        refusals: Told when the disk refuses a table during the run.
    """

    def __init__(self, run: Path, *, keep_until_epoch: int, refusals: DiskRefusals) -> None:
        self._run, self._refusals = run, refusals
        self._written = True
        known = max(_rows_of_jsonl(run), _rows_of_csv(run), key=len) if keep_until_epoch else []
        self.rows: list[Row] = [row for row in known if row["epoch"] <= keep_until_epoch]
        self._board = tensorboard(run, after_epoch=keep_until_epoch, tell=refusals.tell)

    def __enter__(self) -> MetricsLog:
        if self._board is not None:
            self._board.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.__exit__(kind, error, trace)
        # The error that ended the run is the one to tell, not that its curves could not be drawn either.
        with nullcontext() if error is None else suppress(EtnetError):
            self.close()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row, keyed by column, and write the tables; a disk that refuses them now gets them later."""
        self.rows.append(dict(row))
        self._written = self._refusals.attempt("metrics", self._write_tables)
        if self._board is not None:
            self._board.on_epoch(row)

    def close(self) -> None:
        """Write what could not be written before, and draw the curves.

        Raises:
            DiskFault: A table or the picture cannot be written.
        """
        if not self._written:
            self._write_tables()
        if self.rows:
            draw_results(self.rows, self._run / "results.png", title=self._run.name)

    def _write_tables(self) -> None:
        columns = list(dict.fromkeys(key for known in self.rows for key in known))
        shown = ([_digits(row[key]) if key in row else "" for key in columns] for row in self.rows)
        write_csv(self._run / "metrics.csv", columns, shown)
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in self.rows)
        write_text(self._run / "metrics.jsonl", "".join(f"{line}\n" for line in lines))


def _digits(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _rows_of_jsonl(run: Path) -> list[Row]:
    try:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        return rows if all(isinstance(row, dict) and "epoch" in row for row in rows) else []
    except (OSError, ValueError):
        # Not there in runs that older versions began; whoever edited it has the other table.
        return []


def _rows_of_csv(run: Path) -> list[Row]:
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]
    return [{key: int(value) if key in _WHOLE else value for key, value in row.items()} for row in rows]
