"""`results.png`: the curves of a run on one sheet, drawn when its training ends or is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from etnet.output import replacing
from etnet.training.tracking import LOSS_COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, float]]

SCORE = "validation_mean_foreground_dice"
_CLASS_DICE = "validation_dice_"
_COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#ca8a04", "#db2777", "#0891b2", "#65a30d")
_BEST = "#dc2626"
_INK, _SOFT = "#1f2937", "#6b7280"
_MARKED = 40
"""Curves of at most so many points show each of them."""


def draw_results(rows: Rows, path: Path, *, title: str) -> None:
    """Draw losses, learning rate, speed and the scores of the held-out images over the epochs into a PNG.

    Lines of many epochs are smoothed, with what was measured faint behind them; scores are drawn as they are. The best
    epoch is the one whose weights `best` holds.

    Args:
        rows: Rows of metrics.csv, at least one; empty columns are left out of the picture.
        path: File to write.
        title: Stands above all, for instance the run's name.

    Raises:
        DiskFault: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    panels = _panels(rows)
    lines = math.ceil(len(panels) / 3)
    height = 3.6 * lines + 0.5
    figure = Figure(figsize=(13.5, height), dpi=120)
    # Fixed margins in inches: a layout that measures every label draws the sheet twice.
    figure.subplots_adjust(left=0.045, right=0.99, bottom=0.55 / height, top=1 - 0.8 / height, wspace=0.19, hspace=0.3)
    head = figure.suptitle(_headline(rows, title), fontsize=13, color=_INK, x=0.012, y=1 - 0.12 / height, ha="left")
    # Names are free, and a dollar sign in one begins no formula.
    head.set(va="top", parse_math=False)
    best = _best(rows)
    every = figure.subplots(lines, 3, squeeze=False).flat
    for axes, draw in zip(every, panels, strict=False):
        draw(axes, rows)
        _furnish(axes, None if best is None else best["epoch"])
        _span(axes, rows)
    for axes in every[len(panels) :]:
        axes.remove()
    with replacing(path) as partial:
        figure.savefig(partial, format="png", facecolor="white")


def _panels(rows: Rows) -> list[Callable[[Axes, Rows], None]]:
    """What can be drawn of these rows: three panels of the training, and three of the scores where there are some."""
    panels: list[Callable[[Axes, Rows], None]] = [_draw_losses, _draw_rate, _draw_speed]
    if _best(rows) is not None:
        panels += [_draw_dice, _draw_iou, _draw_accuracy]
    return panels


def _headline(rows: Rows, title: str) -> str:
    last, best = rows[-1], _best(rows)
    parts = [title, f"{last['epoch']:.0f} {'epoch' if last['epoch'] == 1 else 'epochs'}"]
    if best is None:
        parts.append("no images held out")
    else:
        parts.append(f"best Dice {best[SCORE]:.4f} in epoch {best['epoch']:.0f}")
    return "   ·   ".join(parts)


def _best(rows: Rows) -> Mapping[str, float] | None:
    """The first of the rows with the highest score, as in `training.progress`."""
    return max((row for row in rows if SCORE in row), key=lambda row: row[SCORE], default=None)


def _points(rows: Rows, column: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(row["epoch"], row[column]) for row in rows if column in row]
    epochs, values = np.array(found, float).reshape(-1, 2).T
    return epochs, values


def _plot(axes: Axes, rows: Rows, column: str, *, color: str, label: str | None = None, smooth: bool = False) -> None:
    epochs, values = _points(rows, column)
    if smooth and len(values) > _MARKED:
        axes.plot(epochs, values, color=color, alpha=0.22, linewidth=0.8)
        axes.plot(epochs, _smoothed(values), color=color, linewidth=1.8, label=label)
    else:
        marker = "o" if len(values) <= _MARKED else None
        axes.plot(epochs, values, color=color, linewidth=1.6, marker=marker, markersize=3.5, label=label)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """A Gaussian mean over a few hundredths of the curve to each side, from what there is at its ends."""
    width = max(1.0, len(values) / 100)
    offsets = np.arange(-math.ceil(3 * width), math.ceil(3 * width) + 1)
    weights = np.exp(-0.5 * (offsets / width) ** 2)
    padded = np.pad(values, len(offsets) // 2)
    present = np.pad(np.ones_like(values), len(offsets) // 2)
    smoothed: np.ndarray = np.convolve(padded, weights, "valid") / np.convolve(present, weights, "valid")
    return smoothed


def _draw_losses(axes: Axes, rows: Rows) -> None:
    for column, color in zip(LOSS_COLUMNS, (_INK, *_COLORS), strict=False):
        if any(column in row for row in rows):
            _plot(axes, rows, column, color=color, label=column.replace("_", " "), smooth=True)
    axes.set_title("Training loss")


def _draw_rate(axes: Axes, rows: Rows) -> None:
    if any("learning_rate" in row for row in rows):
        _plot(axes, rows, "learning_rate", color=_COLORS[3])
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_ylim(bottom=0)
    axes.set_title("Learning rate")


def _draw_speed(axes: Axes, rows: Rows) -> None:
    if any("images_per_second" in row for row in rows):
        _, values = _points(rows, "images_per_second")
        _plot(axes, rows, "images_per_second", color=_COLORS[6], smooth=True)
        # Under a tenth more than what all but the luckiest epochs reach: one outlier must not flatten the curve.
        axes.set_ylim(0, 1.15 * float(np.quantile(values, 0.98)))
    axes.set_title("Training images per second")


def _draw_dice(axes: Axes, rows: Rows) -> None:
    columns = dict.fromkeys(key for row in rows for key in row if key.startswith(_CLASS_DICE))
    if len(columns) > 1:
        for column, color in zip(columns, _cycled(len(columns)), strict=True):
            _plot(axes, rows, column, color=color, label=column.removeprefix(_CLASS_DICE))
    _plot(axes, rows, SCORE, color=_INK, label="mean of the classes" if len(columns) > 1 else None)
    best = _best(rows)
    if best is not None:
        axes.plot(
            best["epoch"], best[SCORE], "*", color=_BEST, markersize=13, zorder=5, label=f"best: {best[SCORE]:.4f}"
        )
    axes.set_title("Dice of held-out images")


def _cycled(count: int) -> list[str]:
    return [_COLORS[index % len(_COLORS)] for index in range(count)]


def _draw_iou(axes: Axes, rows: Rows) -> None:
    if any("validation_mean_iou" in row for row in rows):
        _plot(axes, rows, "validation_mean_iou", color=_COLORS[0])
    axes.set_title("Mean IoU of held-out images")


def _draw_accuracy(axes: Axes, rows: Rows) -> None:
    if any("validation_accuracy" in row for row in rows):
        _plot(axes, rows, "validation_accuracy", color=_COLORS[2])
    axes.set_title("Pixel accuracy of held-out images")


def _span(axes: Axes, rows: Rows) -> None:
    """One range of epochs for all panels: scores come later and less often than losses."""
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    margin = max(0.03 * (last - first), 0.1)
    axes.set_xlim(first - margin, last + margin)


def _furnish(axes: Axes, best_epoch: float | None) -> None:
    """What all panels share: a light grid, no box, the best epoch as a line, a legend where lines have names."""
    if best_epoch is not None:
        axes.axvline(best_epoch, color=_BEST, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6, zorder=1)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(colors=_SOFT, labelsize=9)
    axes.title.set(fontsize=11, color=_INK)
    axes.set_xlabel("epoch", fontsize=9, color=_SOFT)
    axes.locator_params(axis="x", integer=True)
    if axes.get_legend_handles_labels()[0]:
        for text in axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK).get_texts():
            text.set_parse_math(False)
