"""Two result files of the same benchmark, figure by figure; ends with exit code 1 where the second is worse.

    python benchmarks/compare.py benchmarks/results/OLD.json new.json
    python benchmarks/compare.py old.json new.json --only sort --tolerance 0.2

Times, memory and speeds may be worse by a share, `--tolerance`, and scores such as Dice by a difference,
`--score-tolerance`. A figure that only one file has is listed and fails nothing. Where the machines or versions differ,
that is said first: times of two machines say little about the code, ratios measured side by side (speedups) more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["lower is better", "higher is better", "score"]

IDENTITY = (
    "name",
    "what",
    "variant",
    "dataset",
    "format",
    "method",
    "dtype",
    "layout",
    "pass",
    "shape",
    "batch",
    "seed",
)
"""Keys that say which entry of a list this is; entries without any are told apart by their place."""

ASIDE = frozenset(
    {"p95", "p99", "fastest_ms", "interval", "pooled_interval", "target", "targets", "bound", "images", "seed"}
)
"""Keys whose figures are spreads, tails, aims and counts, no measurements to hold a change to."""

RIVALS = frozenset(
    {"eager", "eager_ms", "compiled", "compiled_ms", "reference", "smp", "plain", "plain_file", "loop_s", "numpy"}
)
"""Keys of what ours is compared with: that a rival became slower is no regression, and the ratios tell it."""

DIRECTIONS: dict[str, Kind] = {
    "ratio": "higher is better",
    "ours, lower": "lower is better",
    "ours, higher": "higher is better",
}
"""What is taken of a row with a rival: how many times better ours is, and what ours took; what the rival took is its
own affair."""

CONDITIONS = frozenset({"environment", "machine", "versions"})
"""Keys that describe where a file was measured."""

WALL_CLOCK = ("seconds",)
"""How long the benchmark itself took."""


@dataclass(frozen=True)
class Change:
    """One figure in both files.

    Attributes:
        name: Keys that lead to it, joined by dots.
        kind: Which way is better, or `score` for one of 0..1, where higher is better.
        before: In the first file.
        after: In the second.
    """

    name: str
    kind: Kind
    before: float
    after: float

    @property
    def loss(self) -> float:
        """How much worse the second is: a share of the first, for scores a difference; negative where it is better."""
        if self.kind == "score":
            return self.before - self.after
        if self.kind == "lower is better":
            return self.after / self.before - 1 if self.before else float(self.after > 0)
        return self.before / self.after - 1 if self.after else float(self.before > 0)


def kind_of(path: tuple[str, ...]) -> Kind | None:
    """Which way a figure is better, by the last of its keys that tells; None for a figure that is no measurement.

    >>> kind_of(("comparisons", "sort beside smp in ms", "ratio"))
    'higher is better'
    >>> kind_of(("sort", "median_ms")), kind_of(("pooled", "vessel", "dice")), kind_of(("rows", "seed"))
    ('lower is better', 'score', None)
    """
    if (ASIDE | RIVALS).intersection(path):
        return None
    if path[-1] in DIRECTIONS:
        return DIRECTIONS[path[-1]]
    for key in reversed(path):
        if key in ("dice", "iou", "accuracy", "sensitivity", "specificity") or key.endswith(("_dice", "_iou")):
            return "score"
        if key.endswith(("per_s", "per_second")) or key.startswith(("speed", "times_")):
            return "higher is better"
        if key in ("milliseconds", "seconds", "overhead", "differing_labels", "extra_ratio"):
            return "lower is better"
        if key.endswith(("_ms", "_s", "_seconds", "_minutes", "_mib", "_bytes")):
            return "lower is better"
    return None


def figures(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a result file with the keys that lead to it, but for what describes where it was measured."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "comparisons":
                yield from _compared(inner, (*path, key))
            elif key not in CONDITIONS and (*path, key) != WALL_CLOCK:
                yield from figures(inner, (*path, str(key)))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from figures(inner, (*path, _identity(inner) or str(place)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def _compared(rows: list[Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Rows with a rival, which are told apart by what was done on what by whom, not by their place."""
    for row in rows:
        who = f"{row['subject']}, {row['case']}, {row['ours']['name']} beside {row['theirs']['name']} in {row['unit']}"
        yield (*path, who, "ratio"), float(row["ratio"])
        yield (*path, who, f"ours, {row['better']}"), float(row["ours"]["value"])


def _identity(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    return " ".join(str(entry[key]) for key in IDENTITY if key in entry and not isinstance(entry[key], dict))


def measured(result: Any) -> dict[str, tuple[Kind, float]]:
    """The measurements of a result file by name."""
    found = {}
    for path, value in figures(result):
        kind = kind_of(path)
        if kind is not None:
            found[".".join(path)] = (kind, value)
    return found


def changes(before: Any, after: Any) -> tuple[list[Change], list[str]]:
    """Figures of both files, and the names of those that only one has."""
    first, second = measured(before), measured(after)
    shared = [Change(name, kind, value, second[name][1]) for name, (kind, value) in first.items() if name in second]
    return shared, sorted(first.keys() ^ second.keys())


def conditions(result: Any) -> dict[str, str]:
    """What a file says about machine and versions, flat."""
    found: dict[str, str] = {}

    def collect(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                collect(inner, str(name))
        else:
            found[key] = json.dumps(value)

    for section in CONDITIONS & result.keys():
        collect(result[section], section)
    return found


def show(listed: list[Change], tolerances: dict[Kind, float]) -> None:
    """A line for each figure, those beyond their tolerance marked."""
    width = min(90, max((len(change.name) for change in listed), default=0))
    for change in listed:
        by = f"{0 - change.loss:+.4f}" if change.kind == "score" else f"{0 - 100 * change.loss:+.1f} %"
        mark = "  WORSE" if change.loss > tolerances[change.kind] else ""
        print(f"{change.name[-width:]:{width}}  {change.before:12.5g}  {change.after:12.5g}  {by:>10}{mark}")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument("--only", default="", metavar="TEXT", help="figures whose name holds this text")
    parser.add_argument("--tolerance", type=float, default=0.1, help="of times, memory and speeds (default: 0.1)")
    parser.add_argument("--score-tolerance", type=float, default=0.005, help="of scores (default: 0.005)")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Print the table; 1 where a figure is worse by more than its tolerance."""
    options = arguments(words)
    before, after = (json.loads(path.read_text("utf-8")) for path in (options.before, options.after))
    first, second = conditions(before), conditions(after)
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key) and key != "date":
            print(f"differs: {key}: {first.get(key, 'not said')} and {second.get(key, 'not said')}")
    shared, alone = changes(before, after)
    shared = [change for change in shared if options.only in change.name]
    if not shared:
        print(f"{options.before} and {options.after} have no figure in common", file=sys.stderr)
        return 2
    tolerances: dict[Kind, float] = {
        "score": options.score_tolerance,
        "lower is better": options.tolerance,
        "higher is better": options.tolerance,
    }
    show(sorted(shared, key=lambda change: -change.loss), tolerances)
    if alone:
        print(f"only in one of the files: {len(alone)} figures, such as {alone[0]}")
    worse = sum(change.loss > tolerances[change.kind] for change in shared)
    print(f"{len(shared)} figures compared, {worse} worse")
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
