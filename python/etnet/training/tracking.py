"""Records of a run: `metrics.csv`, `curves.png`, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from etnet.errors import EtnetError
from etnet.output import replacing, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch.utils.tensorboard import SummaryWriter

LOSS_COLUMNS = ("loss", "seg_loss", "edge_loss")


class Observer(Protocol):
    """What a caller of `train` is told; the command line draws it, a notebook may ignore it."""

    def on_message(self, text: str) -> None:
        """A sentence about what is being done."""

    def on_start(self, *, done: int, total: int) -> None:
        """`done` of `total` iterations lie behind when the loop begins."""

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """An optimizer step is done; `iteration` counts from 1."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is done; `row` is its line in metrics.csv."""


class SilentObserver:
    """An observer that ignores everything."""

    def on_message(self, text: str) -> None:
        """Ignore."""

    def on_start(self, *, done: int, total: int) -> None:
        """Ignore."""

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Ignore."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Ignore."""


class MetricsLog:
    """The run's table, one row per epoch, rewritten whole so that it is never half a row.

    Args:
        run: Run folder.
        keep_until_epoch: Rows after this epoch are dropped: a resumed run writes them again.
    """

    def __init__(self, run: Path, *, keep_until_epoch: int) -> None:
        self._path = run / "metrics.csv"
        self._curves = run / "curves.png"
        self.rows: list[dict[str, float]] = []
        if keep_until_epoch and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as stream:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
            self.rows = [row for row in rows if row["epoch"] <= keep_until_epoch]
        self._board = _tensorboard(run)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The error that ended the run is the one to tell, not that its curves could not be drawn either.
        with nullcontext() if error is None else suppress(EtnetError):
            self.close()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row, keyed by column, and write the table.

        Raises:
            EnvironmentFault: The table cannot be written; the previous one is kept.
        """
        self.rows.append(dict(row))
        columns = list(dict.fromkeys(key for known in self.rows for key in known))
        shown = ([f"{row[key]:.6g}" if key in row else "" for key in columns] for row in self.rows)
        write_csv(self._path, columns, shown)
        if self._board is not None:
            for key, value in row.items():
                self._board.add_scalar(key, value, int(row["epoch"]))

    def close(self) -> None:
        """Draw the curves and close TensorBoard.

        Raises:
            EnvironmentFault: The picture cannot be written.
        """
        try:
            if self.rows:
                draw_curves(self.rows, self._curves)
        finally:
            if self._board is not None:
                self._board.close()


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    """Draw losses (left) and validation scores (right) over epochs into a PNG.

    Args:
        rows: Rows of metrics.csv.
        path: File to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for column in LOSS_COLUMNS:
        _draw_column(left, rows, column, column.replace("_", " "))
    left.set(xlabel="epoch", ylabel="loss", title="Training loss")
    scores = dict.fromkeys(key for row in rows for key in row if key.startswith("validation_"))
    for column in scores:
        _draw_column(right, rows, column, column.removeprefix("validation_").replace("_", " "))
    right.set(xlabel="epoch", ylabel="score", title="Validation" if scores else "Validation (no images held out)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.has_data():
            axes.legend(frameon=False, fontsize="small")
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def _draw_column(axes: Axes, rows: list[dict[str, float]], column: str, label: str) -> None:
    points = [(row["epoch"], row[column]) for row in rows if column in row]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 40 else None)


def _tensorboard(run: Path) -> SummaryWriter | None:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(run / "tensorboard"))
