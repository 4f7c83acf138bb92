"""Numbers and tables that read well as Markdown and as plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence


def number(value: float) -> str:
    """Three significant digits, but no digit before the point is lost.

    >>> number(1036.3), number(44.77), number(0.0625), number(2.0), number(0)
    ('1036', '44.8', '0.0625', '2.00', '0')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    # The digits of the rounded value: 9.999 is 10.0, not 10.00.
    rounded = float(f"{value:.2e}")
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def times(ratio: float) -> str:
    """A ratio; one below 1 never reads as 1.

    >>> times(22.77), times(1.6), times(0.9996), times(0.416)
    ('22.8x', '1.60x', '0.999x', '0.416x')
    """
    if ratio < 1:
        return f"{math.floor(1000 * ratio) / 1000:.3f}x" if ratio >= 0.9995 else f"{number(ratio)}x"
    return f"{number(ratio)}x"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """A Markdown table whose columns are aligned in plain text too; columns of `numbers` end at the same place."""
    right = [heading in numbers for heading in headings]
    widths = [max(3, *(len(row[place]) for row in [headings, *rows])) for place in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(cells, widths, right, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * (width - 1) + ":" if is_number else "-" * width for width, is_number in zip(widths, right, strict=True)
    ]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def paragraph(text: str) -> str:
    """Lines of a width that a terminal shows."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def blocks(*texts: str) -> str:
    """Paragraphs, tables and headings with an empty line between them; empty ones are left out."""
    return "\n\n".join(text for text in texts if text)
