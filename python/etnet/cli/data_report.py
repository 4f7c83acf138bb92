"""How `etnet data` prints what is known of a data set and what was found in a folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from etnet.cli.console import counted, output

if TYPE_CHECKING:
    from etnet.data.catalog import DatasetCard
    from etnet.data.check import CheckReport, PartSummary, ValueCount
    from etnet.data.findings import Finding

LISTED_FILES = 3
LISTED_SIZES = 3
LISTED_VALUES = 8
SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_INDENT = " " * 9


def print_card(card: DatasetCard) -> None:
    """Print what is known about a data set."""
    console = output()
    heading = f"{card.title}: {' and '.join(card.structures).replace('_', ' ')} in {card.images}"
    console.print(Text.assemble((card.name, "bold"), f"  {heading}"), soft_wrap=True)
    rows = [
        ("images", f"{card.train} for training, {card.test} for testing ({card.split})"),
        *(("layout" if number == 0 else "", line) for number, line in enumerate(card.layout)),
        ("from", card.source),
        ("article", card.reference),
        ("terms", card.terms),
        ("recipe", f"etnet train --recipe {card.name} --data DIR"),
    ]
    for name, value in rows:
        console.print(Text.assemble((f"  {name:<9}", "dim"), value), soft_wrap=True)
    console.print()


def print_report(report: CheckReport, recipe: str) -> None:
    """Print what a folder holds, every finding with its remedy, and the next command, which names `recipe`."""
    console = output()
    title = report.card.title if report.card is not None else "a folder with images/ and masks/"
    chosen = "recognised" if report.recognised else "as named"
    console.print(
        Text.assemble((str(report.root), "bold"), f": {title} (data.dataset {report.dataset}, {chosen})"),
        soft_wrap=True,
    )
    if report.parts:
        console.print(_parts_table(report))
    if report.values:
        console.print(_values_table(report))
    for finding in report.findings:
        _print_finding(finding, report.root)
    _print_verdict(report, recipe)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "image size", "pixels") else "right")
    return table


def _parts_table(report: CheckReport) -> Table:
    official = report.card is not None
    table = _table("Pairs", ["", "found", *(["official"] if official else []), "image size", "pixels"])
    for name, part in report.parts.items():
        expected = [str(part.expected)] if official else []
        table.add_row(name, str(part.pairs), *expected, _sizes(part), ", ".join(part.depths))
    return table


def _sizes(part: PartSummary) -> str:
    sizes = [f"{width}x{height}" for width, height in part.sizes]
    if len(sizes) <= LISTED_SIZES:
        return ", ".join(sizes)
    widths, heights = ([size[side] for size in part.sizes] for side in (0, 1))
    return f"{len(sizes)} sizes, {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}"


def _values_table(report: CheckReport) -> Table:
    table = _table("Values in the mask files", ["value", "files", "share of pixels", "expected"])
    total = sum(count.pixels for count in report.values.values())
    odd: dict[str, list[int]] = {}
    for value, count in report.values.items():
        if _expected(count) != "yes":
            odd.setdefault(_expected(count), []).append(value)
    hidden = {expected: values for expected, values in odd.items() if len(values) > LISTED_VALUES}
    for value, count in report.values.items():
        if _expected(count) not in hidden:
            table.add_row(str(value), str(count.files), f"{count.pixels / total:.2%}", _expected(count))
    for expected, values in hidden.items():
        share = f"{sum(report.values[value].pixels for value in values) / total:.2%}"
        table.add_row(f"{len(values)} others", "", share, expected)
    return table


def _expected(count: ValueCount) -> str:
    if count.threshold is not None:
        return f"yes (threshold {count.threshold})"
    return "yes" if count.expected else "no"


def _print_finding(finding: Finding, root: Path) -> None:
    console = output()
    label = (f"{finding.severity:<9}", SEVERITY_STYLES[finding.severity])
    console.print(Text.assemble(label, finding.sentence), soft_wrap=True)
    # The sentence names the first file; notes ask for nothing to be done.
    others = (
        []
        if finding.severity == "note"
        else [_below(path, root) for path in finding.files if path.name not in finding.sentence]
    )
    if others:
        more = f" and {len(others) - LISTED_FILES} more" if len(others) > LISTED_FILES else ""
        console.print(Text(f"{_INDENT}also {', '.join(others[:LISTED_FILES])}{more}", "dim"), soft_wrap=True)
    for line in finding.recipe_lines:
        console.print(Text.assemble((f"{_INDENT}recipe  ", "dim"), (line, "bold")), soft_wrap=True)


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _print_verdict(report: CheckReport, recipe: str) -> None:
    console = output()
    if report.errors:
        refused = f"{counted(report.errors, 'error')}: training or evaluation would refuse this folder."
        verdict = f"\n{refused} Settle them and check again."
        console.print(Text(verdict, "bold red"), soft_wrap=True)
        return
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    console.print(Text.assemble("\n", ("No errors", "bold green"), f", {counted(warnings, 'warning')}."))
    command = f"etnet train --recipe {shlex.quote(recipe)} --data {shlex.quote(str(report.root))}"
    console.print(Text.assemble(("Next: ", "bold"), command), soft_wrap=True)
