"""What a suite ends with: a line for each step, with the figures that say most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from suite.steps import Step

WIDTH = 100


def headline(file: Path) -> str:
    """The most telling figures of a result: its own `headline`, or the range of its comparisons."""
    try:
        result = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    if isinstance(result.get("headline"), str):
        return str(result["headline"])
    rows = [row for row in result.get("comparisons", []) if isinstance(row.get("ratio"), (int, float))]
    if not rows:
        return ""
    worst, best = (choose(rows, key=lambda row: row["ratio"]) for choose in (min, max))
    if len(rows) == 1:
        return f"{_sides(best)} {best['ratio']:.2f}x"
    behind = sum(row["ratio"] < 1 for row in rows)
    return (
        f"{len(rows)} comparisons, {behind} below 1x; {_sides(worst)} {worst['ratio']:.2f}x "
        f"to {_sides(best)} {best['ratio']:.2f}x"
    )


def _sides(row: Mapping[str, Any]) -> str:
    return f"{row['ours']['name']} / {row['theirs']['name']}"


def table(steps: Iterable[Step], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Part, step, status, seconds, and the headline or the reason."""
    rows = [("part", "step", "status", "seconds", "")]
    for step in steps:
        record = records.get(step.name, {})
        seconds = record.get("seconds")
        text = str(record.get("reason") or record.get("headline") or "")
        shown = text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
        took = "" if seconds is None else f"{seconds:.0f}"
        rows.append((step.part, step.name, record.get("status", "not begun"), took, shown))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    )
