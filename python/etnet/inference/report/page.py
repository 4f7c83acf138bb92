"""The page around the pictures: what a reader sees first, and in which order the rest follows.

Everything that comes from a file's name, a table or a recipe passes through `_text`. A content security policy forbids
every request, and every script and style but the two of this package, which it names by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from etnet.inference.report.columns import UNCERTAINTY, is_telling, title, title_and_unit
from etnet.inference.report.content import ReportHead, ReportRow
from etnet.inference.report.figures import Figures, finite
from etnet.inference.report.numbers import shown
from etnet.inference.report.pictures import Picture
from etnet.inference.report.plots import draw_histogram

_OPEN_FAILURES = 12
"""Up to this many failures are listed openly; more are folded under their number."""

_ON_A_CARD = 4
"""Measurements below each picture; the script adds the others."""

_ABOUT_UNCERTAINTY = (
    "Uncertainty is 0 where the edges that the network predicts and the border of its mask agree, and grows towards 1 "
    "as they differ. It orders images for review; it is not a probability of being wrong, and tells little where the "
    "network learned its edges badly."
)


@dataclass(frozen=True)
class Failures:
    """(file, reason) of the failures that are listed, and the number of all."""

    listed: Sequence[tuple[str, str]]
    total: int


class Page:
    """The parts of one report.

    Attributes:
        rows: The rows that have a card, in the order of the cards.
    """

    def __init__(self, head: ReportHead, figures: Figures, rows: Sequence[ReportRow], failures: Failures) -> None:
        self.rows = rows
        self._head, self._figures, self._failures = head, figures, failures
        measured = [column for column in figures.columns() if column != UNCERTAINTY]
        self._columns = measured
        self._on_a_card = [column for column in measured if is_telling(column)][:_ON_A_CARD]
        self._has_uncertainty = UNCERTAINTY in figures.columns()

    def before_pictures(self) -> Iterator[str]:
        """Everything up to the first card."""
        style, script = _resource("page.css"), _resource("page.js")
        policy = (
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        )
        yield (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
            f"<title>{_text(self._head.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        )
        yield from self._top()
        yield from self._failed()
        yield from self._quality()
        yield from self._distributions()
        yield from self._above_cards()

    def _top(self) -> Iterator[str]:
        yield '<a class="skip" href="#images">Skip to the images</a>\n<header>\n'
        yield f"<h1>{_text(self._head.title)}</h1>\n<ul class='counts'>\n"
        for name, count in self._head.counts.items():
            kind = ' class="bad"' if name == "failed" and count else ""
            yield f"<li{kind}><b>{count:,}</b> {_text(_words(name))}</li>\n"
        if self._figures.flagged:
            yield f'<li class="noted"><b>{self._figures.flagged:,}</b> with a quality flag</li>\n'
        yield "</ul>\n<nav aria-label='Parts of this report'>\n"
        for anchor, name, there in (
            ("failed", "Failed", self._failures.total),
            ("flags", "Quality", self._figures.flags),
            ("measurements", "Measurements", self._figures.images),
            ("images", "Images", True),
            ("run", "Run and model", True),
        ):
            if there:
                yield f'<a href="#{anchor}">{name}</a>\n'
        yield "</nav>\n</header>\n<main>\n"

    def _failed(self) -> Iterator[str]:
        total, listed = self._failures.total, self._failures.listed
        if not total:
            return
        yield f'<section id="failed" class="failed">\n<h2>{_counted(total, "input")} could not be segmented</h2>\n'
        folded = total > _OPEN_FAILURES
        if folded:
            # Where nothing was segmented the failures are all there is to read.
            opened = "" if self._figures.images else " open"
            which = f"the first {len(listed):,}" if total > len(listed) else f"all {total:,}"
            yield f"<details{opened}><summary>Files and reasons, {which}</summary>\n"
        yield '<div class="wide"><table><thead><tr><th scope="col">file</th><th scope="col">reason</th></tr></thead>\n'
        yield "<tbody>\n"
        for file, reason in listed:
            yield f'<tr><th scope="row"><bdi>{_text(file)}</bdi></th><td>{_text(reason)}</td></tr>\n'
        yield "</tbody></table></div>\n"
        if folded:
            yield "</details>\n"
        if total > len(listed):
            yield f"<p>{total - len(listed):,} more are in failed.csv.</p>\n"
        yield "</section>\n"

    def _quality(self) -> Iterator[str]:
        flags = self._figures.flags
        if not flags:
            return
        yield '<section id="flags">\n<h2>Quality flags</h2>\n<p>These images were segmented all the same; look at them '
        yield "before you use their numbers.</p>\n<ul class='flags'>\n"
        for flag, count in sorted(flags.items(), key=lambda item: (-item[1], item[0])):
            yield f'<li><span class="flag">{_text(_words(flag))}</span> {_counted(count, "image")}</li>\n'
        yield "</ul>\n</section>\n"

    def _distributions(self) -> Iterator[str]:
        figures = self._figures
        if not figures.images:
            return
        yield f'<section id="measurements">\n<h2>Measurements of {_counted(figures.images, "image")}</h2>\n'
        varying = figures.varying()
        first = [column for column in varying if column == UNCERTAINTY or is_telling(column)]
        rest = [column for column in varying if column not in first]
        yield from self._plots(first)
        yield from self._counts()
        if rest:
            yield f"<details><summary>{_counted(len(rest), 'further measurement')}</summary>\n"
            yield from self._plots(rest)
            yield "</details>\n"
        yield "</section>\n"

    def _plots(self, columns: Sequence[str]) -> Iterator[str]:
        yield '<div class="plots">\n'
        for column in columns:
            yield draw_histogram(column, self._figures.values(column)) + "\n"
        yield "</div>\n"

    def _counts(self) -> Iterator[str]:
        counted, constant = self._figures.counted(), self._figures.constant()
        if not counted and not constant:
            return
        yield "<ul class='notes'>\n"
        for column, word, count in counted:
            what = f"{title(column)}: {word}" if word else title(column)
            yield f"<li>{_text(what)}: {count:,} of {_counted(self._figures.images, 'image')}</li>\n"
        for column, value in constant.items():
            name, unit = title_and_unit(column)
            yield f"<li>{_text(name)}: {shown(value)}{f' {unit}' if unit else ''} wherever it was measured</li>\n"
        yield "</ul>\n"

    def _above_cards(self) -> Iterator[str]:
        total = self._figures.images
        yield f'<section id="images">\n<h2>{_counted(total, "image") if total else "Images"}</h2>\n'
        yield f"<p>{self._about_cards()}</p>\n"
        if not self.rows:
            return
        legend = self._head.legend()
        if legend:
            yield '<ul class="legend" aria-label="Colours in the pictures">\n'
            for name, (red, green, blue) in legend:
                swatch = f'<rect width="12" height="12" rx="3" fill="#{red:02x}{green:02x}{blue:02x}"/>'
                yield f'<li><svg viewBox="0 0 12 12" aria-hidden="true">{swatch}</svg>{_text(_words(name))}</li>\n'
            yield "</ul>\n"
        yield '<div id="tools" class="tools" role="search" hidden></div>\n<ol id="cards" class="cards">\n'

    def _about_cards(self) -> str:
        total, cards = self._figures.images, len(self.rows)
        if not total:
            return "No image was segmented, so there is nothing to show."
        fewer = f"{cards:,} of {total:,} are shown one by one; measurements.csv has all." if cards < total else ""
        if self._has_uncertainty:
            kind = "The least certain" if fewer else "The least certain come first."
            return f"{kind} {fewer} {_ABOUT_UNCERTAINTY}".replace("  ", " ")
        order = "In the order of the input, because this model does not say how certain it is."
        return f"{order} {fewer}".strip()

    def card(self, row: ReportRow, picture: Picture | None) -> str:
        """One image: its picture, name, uncertainty, flags and the measurements that tell most."""
        if picture is None:
            shot = '<div class="gone">no picture: the image could not be read again</div>'
        else:
            size = f'width="{picture.width}" height="{picture.height}"'
            shot = f'<img src="{picture.uri}" {size} loading="lazy" decoding="async" alt="{_alternative(row)}">'
        flags = "".join(f'<span class="flag">{_text(_words(flag))}</span>' for flag in row.flags)
        return (
            f'<li class="card"><div class="shot">{shot}</div><h3><bdi>{_text(row.file)}</bdi></h3>'
            f"{self._certainty(row)}{f'<p>{flags}</p>' if flags else ''}<dl>{''.join(self._facts(row))}</dl></li>\n"
        )

    def _certainty(self, row: ReportRow) -> str:
        if not self._has_uncertainty:
            return ""
        value = finite(row.uncertainty)
        if value is None:
            return '<p class="certainty">uncertainty not known</p>'
        bar = f'<rect class="full" width="100" height="4"/><rect class="part" width="{100 * value:.1f}" height="4"/>'
        return (
            f'<p class="certainty">uncertainty <b>{shown(value)}</b><svg viewBox="0 0 100 4" '
            f'preserveAspectRatio="none" aria-hidden="true">{bar}</svg></p>'
        )

    def _facts(self, row: ReportRow) -> Iterator[str]:
        for column in self._on_a_card:
            value, (name, unit) = finite(row.measurements.get(column)), title_and_unit(column)
            said = "not defined" if value is None else f"{shown(value)}{f' {unit}' if unit else ''}"
            yield f"<div><dt>{_text(name)}</dt><dd>{said}</dd></div>"
        yield f"<div><dt>size, rows \N{MULTIPLICATION SIGN} columns</dt><dd>{row.height} \N{MULTIPLICATION SIGN} "
        yield f"{row.width} px</dd></div>"

    def after_pictures(self) -> Iterator[str]:
        """Everything behind the last card."""
        if self.rows:
            yield "</ol>\n<p id='none' class='none' hidden>No image matches.</p>\n"
        yield "</section>\n"
        yield '<section id="run">\n<h2>Run and model</h2>\n<div class="facts">\n'
        for name, facts in (
            ("Settings", self._head.settings),
            ("Model", {**self._head.model, "ran_on": self._head.ran_on}),
            ("Versions", self._head.versions),
        ):
            yield from _facts_table(name, facts)
        yield "</div>\n</section>\n</main>\n<footer>Research software, not a medical device. This file makes no "
        yield "request to any network; the pictures are reduced copies inside it.</footer>\n"
        if self.rows:
            yield from self._values()
            yield f"<script>{_resource('page.js')}</script>\n"
        yield "</body>\n</html>\n"

    def _values(self) -> Iterator[str]:
        """What the script sorts by and filters by, row by row in the order of the cards."""
        columns = [{"name": column, "title": title(column)} for column in self._columns]
        flags = sorted({flag for row in self.rows for flag in row.flags})
        places = {flag: place for place, flag in enumerate(flags)}
        yield f'<script type="application/json" id="values">{{"columns":{_json(columns)},'
        yield f'"certainty":{_json(self._has_uncertainty)},"flags":{_json([_words(flag) for flag in flags])},"rows":['
        for index, row in enumerate(self.rows):
            numbers = [_rounded(row.measurements.get(column)) for column in self._columns]
            raised = sorted(places[flag] for flag in set(row.flags))
            yield f"{',' if index else ''}\n{_json([_rounded(row.uncertainty), raised, numbers])}"
        yield "]}</script>\n"


def _facts_table(name: str, facts: Mapping[str, Any]) -> Iterator[str]:
    yield f'<div class="wide"><table><caption>{name}</caption><tbody>\n'
    for key, value in _flat(facts):
        yield f'<tr><th scope="row">{_text(key)}</th><td>{_text(value)}</td></tr>\n'
    yield "</tbody></table></div>\n"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as dotted names and text; the colours of classes are left to the legend."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif key != "class_colors":
            yield f"{prefix}{key}", _said(value)


def _said(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, (list, tuple)) and not value:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _alternative(row: ReportRow) -> str:
    return _text(f"{row.file} with its predicted structures drawn over it")


def _rounded(value: object) -> float | None:
    number = finite(value)
    return None if number is None else float(f"{number:.6g}")


def _json(content: object) -> str:
    """JSON inside a script element: `<` as an escape, so that no text in it can end the element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _resource(name: str) -> str:
    return resources.files("etnet.inference.report").joinpath(name).read_text("utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
