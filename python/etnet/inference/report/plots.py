"""Histograms as inline SVG: drawn here, so that the page needs no script and no library to show them."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import numpy as np

from etnet.inference.report.columns import title, title_and_unit
from etnet.inference.report.figures import Summary, Values, summarize
from etnet.inference.report.numbers import round_step, shown, ticks

_WIDTH, _HEIGHT = 340, 178
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 24, 24, 42
_FEWEST_BINS, _MOST_BINS = 10, 40
_RUG_AT_MOST = 150
"""Up to this many images each has its own mark below the axis; more would be one black line."""

_QUANTILES_FROM = 20
"""Images from which the middle 90 % leaves at least one out on either side."""


@dataclass(frozen=True)
class Histogram:
    """Bins between round numbers.

    Attributes:
        edges: Borders of the bins [B + 1], float64, increasing.
        counts: Values in each bin [B]; the last one holds its right border too.
    """

    edges: Values
    counts: list[int]


def histogram(values: Values) -> Histogram:
    """Count values [N] that are not all equal in at most about 2 * N^(1/3) bins (Rice's rule) of a round width.

    Whole numbers get bins at least 1 wide, or empty bins would stand between them.
    """
    low, high = float(values.min()), float(values.max())
    bins = int(np.clip(math.ceil(2 * len(values) ** (1 / 3)), _FEWEST_BINS, _MOST_BINS))
    step = round_step(high - low, bins)
    if step < 1 and bool((values == np.rint(values)).all()):
        step = 1.0
    first, last = math.floor(low / step), math.ceil(high / step)
    edges = np.arange(first, max(last, first + 1) + 1, dtype=np.float64) * step
    # Rounding may leave the largest value just outside.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return Histogram(edges, [int(count) for count in np.histogram(values, bins=edges)[0]])


def draw_histogram(column: str, values: Values) -> str:
    """A figure with the distribution of a column, its median and its range in words.

    Args:
        column: Name of the column, with its unit.
        values: At least two values that are not all equal [N], float64.
    """
    summary, bars = summarize(values), histogram(values)
    name, unit = title_and_unit(column)
    scale = _scale(bars)
    label = html.escape(f"Distribution of {title(column)}: {in_words(summary, unit)}")
    parts = [
        f'<figure class="plot"><figcaption>{html.escape(name)}</figcaption>',
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">',
        *_vertical_axis(scale),
        *_bars(bars, scale),
        *_horizontal_axis(scale, unit),
        *_rug(values, scale),
        *_median(summary, scale),
        f'</svg><p class="plot-facts">{html.escape(in_words(summary, unit))}</p></figure>',
    ]
    return "".join(parts)


def in_words(summary: Summary, unit: str) -> str:
    """Median, the middle 90 % and the range of a column in one line.

    >>> in_words(Summary(count=3, low=1, fifth=1.1, median=2, ninety_fifth=2.9, high=3), "mm")
    'median 2 mm; range 1 to 3; 3 images'
    """
    behind = f" {unit}" if unit else ""
    middle = f" 90 % between {shown(summary.fifth)} and {shown(summary.ninety_fifth)};"
    return (
        f"median {shown(summary.median)}{behind};{middle if summary.count >= _QUANTILES_FROM else ''} "
        f"range {shown(summary.low)} to {shown(summary.high)}; "
        f"{summary.count:,} {'image' if summary.count == 1 else 'images'}"
    )


@dataclass(frozen=True)
class _Scale:
    """From values low..high and counts 0..tallest to places in the picture; counts `step` apart are named."""

    low: float
    high: float
    tallest: float
    step: float

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, count: float) -> float:
        return round(_HEIGHT - _BOTTOM - count / self.tallest * (_HEIGHT - _TOP - _BOTTOM), 1)


def _scale(bars: Histogram) -> _Scale:
    """Both axes; the vertical one ends at a round number of images at or above the tallest bar."""
    tallest = max(bars.counts)
    step = max(1.0, round_step(tallest, 4))
    return _Scale(float(bars.edges[0]), float(bars.edges[-1]), step * math.ceil(tallest / step), step)


def _vertical_axis(scale: _Scale) -> list[str]:
    parts = [f'<text x="0" y="{_TOP - 10}">images</text>']
    for index in range(round(scale.tallest / scale.step) + 1):
        y = scale.y(index * scale.step)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:g}" text-anchor="end">{index * scale.step:,.0f}</text>')
    return parts


def _horizontal_axis(scale: _Scale, unit: str) -> list[str]:
    base = scale.y(0)
    parts = [f'<path class="axis" d="M{_LEFT} {base}H{_WIDTH - _RIGHT}"/>']
    for value in ticks(scale.low, scale.high, 5):
        x = scale.x(value)
        parts.append(f'<path class="axis" d="M{x} {base}v4"/>')
        parts.append(f'<text x="{x}" y="{base + 24:g}" text-anchor="middle">{shown(value)}</text>')
    if unit:
        parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) // 2}" y="{_HEIGHT - 3}" text-anchor="middle">{unit}</text>')
    return parts


def _bars(bars: Histogram, scale: _Scale) -> list[str]:
    parts = []
    for left, right, count in zip(bars.edges[:-1], bars.edges[1:], bars.counts, strict=True):
        if count:
            x, y = scale.x(float(left)), scale.y(count)
            width, height = max(scale.x(float(right)) - x - 1, 0.5), scale.y(0) - y
            said = f"{shown(float(left))} to {shown(float(right))}: {count:,}"
            parts.append(
                f'<rect class="bar" x="{x}" y="{y}" width="{width:g}" height="{height:g}"><title>{said}</title></rect>'
            )
    return parts


def _rug(values: Values, scale: _Scale) -> list[str]:
    if len(values) > _RUG_AT_MOST:
        return []
    base = scale.y(0) + 5
    marks = "".join(f"M{scale.x(float(value))} {base:g}v6" for value in np.sort(values))
    return [f'<path class="rug" d="{marks}"/>']


def _median(summary: Summary, scale: _Scale) -> list[str]:
    x = scale.x(summary.median)
    # Near a border the text is anchored so that it stays inside the picture.
    anchor = "start" if x < _LEFT + 44 else "end" if x > _WIDTH - _RIGHT - 50 else "middle"
    return [
        f'<path class="median" d="M{x} {_TOP - 6}V{scale.y(0)}"/>',
        f'<text class="median-text" x="{x}" y="{_TOP - 10}" text-anchor="{anchor}">'
        f"median {shown(summary.median)}</text>",
    ]
