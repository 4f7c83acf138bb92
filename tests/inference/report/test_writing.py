from __future__ import annotations

import html
import json
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from etnet.errors import EnvironmentFault
from etnet.inference.report import write_report
from etnet.inference.report.writing import MOST_FAILURES
from helpers.reports import HOSTILE, QUOTES, disc, failures, head, many_rows, row, write

VOID = {"meta", "img", "input", "br", "link"}


class Elements(HTMLParser):
    """Every element with its attributes, and whether each that was opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def cards(text: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'<li class="card">.*?<h3><bdi>(.*?)</bdi>', text, re.DOTALL)]


def values(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="values">(.*?)</script>', text, re.DOTALL)[1])


def test_the_same_arguments_give_the_same_bytes_whatever_the_threads(tmp_path):
    texts = {write(tmp_path / "r.html", many_rows(60), failures(3), threads=threads) for threads in (1, 4)}
    assert len(texts) == 1


def test_the_page_asks_nothing_of_any_network(tmp_path):
    text = write(tmp_path / "r.html", many_rows(30), failures(3))
    assert "http:" not in text
    assert "https:" not in text
    elements = Elements(text)
    assert elements.named("link") == []
    addresses = [
        attributes[name] for _, attributes in elements.found for name in ("src", "href", "srcset") if name in attributes
    ]
    assert {address.split(",")[0] for address in addresses} == {
        "data:image/webp;base64", "#images", "#failed", "#flags", "#measurements", "#run",
    }  # fmt: skip
    policy = next(meta["content"] for meta in elements.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy


def test_no_element_carries_a_style_or_a_handler_that_the_policy_would_refuse(tmp_path):
    elements = Elements(write(tmp_path / "r.html", many_rows(10), failures(1))).found
    assert [(tag, name) for tag, found in elements for name in found if name == "style" or name.startswith("on")] == []


@pytest.mark.parametrize("name", [HOSTILE, QUOTES, "</script><b>", "<!--", "a\nb\tc", "\N{RIGHT-TO-LEFT OVERRIDE}gnp"])
def test_names_from_outside_are_text_wherever_they_appear(tmp_path, name):
    rows = [row(name, 0.5, name, **{name: 1.0}), row("b", 0.1, **{name: 2.0, "place": name})]
    text = write(
        tmp_path / "r.html",
        rows,
        [(name, name)],
        head=head(title=name, settings={name: name}, model={name: [name]}, versions={name: name}, counts={name: 1}),
    )
    elements = Elements(text)
    assert len(elements.named("script")) == 2
    assert elements.named("b") == [{} for _ in elements.named("b")]
    assert len(elements.named("b")) == 4, "two counts and the two uncertainties"
    assert cards(text) == [name, "b"]
    assert values(text)["columns"][0]["name"] == name


def test_bytes_that_are_no_text_are_shown_as_escapes(tmp_path):
    text = write(tmp_path / "r.html", [row("eye\udcff.png", 0.5)], [("broken\udcfe.png", "is empty")])
    assert "eye\\udcff.png" in text
    assert "broken\\udcfe.png" in text


def test_cards_come_least_certain_first_and_say_what_they_leave_out(tmp_path):
    rows = list(many_rows(50))
    text = write(tmp_path / "r.html", rows, max_pictures=7)
    assert cards(text) == [one.file for one in sorted(rows, key=lambda one: -one.uncertainty)[:7]]
    assert "The least certain 7 of 50 are shown one by one; measurements.csv has all." in text
    assert "Measurements of 50 images" in text


def test_without_an_uncertainty_the_order_of_the_input_is_kept_and_said(tmp_path):
    text = write(tmp_path / "r.html", [row(name, size=index) for index, name in enumerate("cab")])
    assert cards(text) == ["c", "a", "b"]
    assert "In the order of the input" in text
    assert "Uncertainty is 0" not in text


def test_an_image_that_cannot_be_drawn_keeps_its_numbers(tmp_path):
    text = write(tmp_path / "r.html", [row("gone.png", 0.25, vertical_cup_to_disc_ratio=0.625)], draw=lambda one: None)
    assert "no picture" in text
    assert "0.625" in text
    assert Elements(text).named("img") == []


def test_all_settings_hashes_and_versions_are_there(tmp_path):
    text = write(tmp_path / "r.html", many_rows(3))
    for name, value in (
        ("input", "eyes"), ("overlay", "yes"), ("threads", "not set"), ("tile.size", "512"),
        ("sha256", "ab" * 32), ("ran_on", "onnxruntime cpu"), ("etnet", "0.1.0"),
    ):  # fmt: skip
        assert f'<th scope="row">{name}</th><td>{value}</td>' in text
    assert "class_colors" not in text


def test_the_legend_names_the_classes_without_the_background_and_other_marks(tmp_path):
    text = write(tmp_path / "r.html", many_rows(3), head=head(marks=(("uncertain border", (255, 170, 0)),)))
    legend = text.split('class="legend"')[1].split("</ul>")[0]
    assert re.findall(r'fill="(#\w+)"/></svg>([^<]+)<', legend) == [
        ("#2ecc71", "optic disc"),
        ("#ffaa00", "uncertain border"),
    ]


def test_flags_are_counted_over_all_images_and_shown_on_their_cards(tmp_path):
    text = write(tmp_path / "r.html", many_rows(21), max_pictures=21)
    assert '<span class="flag">blurred</span> 3 images' in text
    assert text.count('<span class="flag">blurred</span>') == 1 + 3
    assert sum(bool(flags) for _, flags, _ in values(text)["rows"]) == 3


def test_numbers_of_the_script_are_those_of_the_cards(tmp_path):
    rows = list(many_rows(40))
    data = values(write(tmp_path / "r.html", rows))
    names = [column["name"] for column in data["columns"]]
    assert names[0] == "vertical_cup_to_disc_ratio"
    for one, (uncertainty, _, numbers) in zip(
        sorted(rows, key=lambda one: -one.uncertainty), data["rows"], strict=True
    ):
        assert uncertainty == pytest.approx(one.uncertainty, rel=1e-5)
        expected = [one.measurements[name] for name in names]
        assert [value is None for value in numbers] == [value is None for value in expected]
        known = [(a, b) for a, b in zip(numbers, expected, strict=True) if b is not None]
        np.testing.assert_allclose(*zip(*known, strict=True), rtol=1e-5)


def test_many_failures_are_folded_and_those_that_are_not_listed_are_counted(tmp_path):
    text = write(tmp_path / "r.html", [], failures(MOST_FAILURES + 234))
    assert text.count("the file is empty (0 bytes)") == MOST_FAILURES
    assert f"{MOST_FAILURES + 234:,} inputs could not be segmented" in text
    assert "234 more are in failed.csv." in text


@pytest.mark.parametrize(("rows", "broken"), [([], 0), ([], 2), ([row("a")], 0), ([row("a", 0.5, size=1.0)], 1)])
def test_runs_of_nothing_or_of_one_image_have_a_page(tmp_path, rows, broken):
    text = write(tmp_path / "r.html", rows, failures(broken))
    assert cards(text) == [one.file for one in rows]
    assert ("No image was segmented" in text) is not bool(rows)
    assert ("could not be segmented" in text) is bool(broken)
    Elements(text)


def test_no_cards_are_a_choice(tmp_path):
    text = write(tmp_path / "r.html", many_rows(5), max_pictures=0)
    assert cards(text) == []
    assert "0 of 5 are shown" in text
    Elements(text)


def test_memory_does_not_grow_with_the_rows_but_for_their_numbers(tmp_path):
    def peak(number: int) -> int:
        rows = (
            row(f"a rather long name of an image {index}.png", index / number, size=index + 0.5)
            for index in range(number)
        )
        tracemalloc.start()
        write_report(tmp_path / "r.html", head(), rows, [], draw=disc, max_pictures=10)
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    peak(100)
    few, many = peak(1000), peak(21_000)
    # Two columns of eight bytes and a sorted copy for quantiles; the rows alone would take above 500 bytes each.
    assert many - few < 20_000 * 100


def test_a_failure_in_the_middle_leaves_the_former_report(tmp_path):
    former = write(tmp_path / "r.html", many_rows(3))
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "r.html", many_rows(5), draw=lambda one: 1 / 0)
    assert (tmp_path / "r.html").read_text("utf-8") == former
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_folder_that_is_gone_gives_one_sentence(tmp_path):
    with pytest.raises(EnvironmentFault, match=r"gone/r\.html: could not be written"):
        write_report(tmp_path / "gone" / "r.html", head(), many_rows(3), [], draw=disc)
