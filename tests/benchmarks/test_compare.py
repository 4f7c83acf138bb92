from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from helpers.benchmarks import BENCHMARKS, load_benchmark

compare = load_benchmark("compare")

RESULT = {
    "environment": {"versions": {"torch": "2.14.1"}, "machine": {"memory_bytes": 5}},
    "target": {"sort_ms": 1.0},
    "sort": {"median_ms": 40.0, "fastest_ms": 1.0, "speedup": 20.0, "times_plain": 1.5},
    "rows": [
        {"name": "torch", "images_per_second": 3.0, "mean_dice": 0.78},
        {"name": "onnxruntime", "images_per_second": 5.0, "mean_dice": 0.78},
    ],
}


@pytest.fixture
def files(tmp_path: Path):
    """Writes two results; gives the words that name them."""

    def write(before: object, after: object) -> list[str]:
        paths = [tmp_path / name for name in ("a.json", "b.json")]
        for path, content in zip(paths, (before, after), strict=True):
            path.write_text(json.dumps(content))
        return [str(path) for path in paths]

    return write


def changed(*keys: str | int, to: float) -> dict:
    """The result with one figure replaced."""
    result = copy.deepcopy(RESULT)
    section: dict = result
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = to
    return result


def test_equal_results_are_no_regression(files, capsys):
    assert compare.main(files(RESULT, RESULT)) == 0
    printed = capsys.readouterr().out
    assert "7 figures compared, 0 worse" in printed
    assert "differs" not in printed


@pytest.mark.parametrize(
    ("keys", "value", "worse"),
    [
        (("sort", "median_ms"), 43.9, False),
        (("sort", "median_ms"), 44.1, True),
        (("sort", "median_ms"), 4.0, False),
        (("sort", "fastest_ms"), 90.0, False),
        (("sort", "speedup"), 18.3, False),
        (("sort", "speedup"), 18.0, True),
        (("sort", "times_plain"), 1.2, True),
        (("rows", 1, "images_per_second"), 4.0, True),
        (("rows", 1, "images_per_second"), 0.0, True),
        (("rows", 0, "mean_dice"), 0.776, False),
        (("rows", 0, "mean_dice"), 0.774, True),
        (("target", "sort_ms"), 9.0, False),
        (("environment", "machine", "memory_bytes"), 50, False),
    ],
)
def test_a_figure_that_is_worse_by_more_than_its_tolerance_fails(files, keys, value, worse):
    assert compare.main(files(RESULT, changed(*keys, to=value))) == int(worse)


def test_entries_of_lists_are_matched_by_what_they_are_called(files):
    turned = {**RESULT, "rows": RESULT["rows"][::-1]}
    assert compare.main(files(RESULT, turned)) == 0


def test_other_machines_and_lost_figures_are_said(files, capsys):
    other = changed("environment", "versions", "torch", to=2)
    del other["sort"]["speedup"]
    assert compare.main(files(RESULT, other)) == 0
    printed = capsys.readouterr().out
    assert 'differs: torch: "2.14.1" and 2' in printed
    assert "only in one of the files: 1 figures, such as sort.speedup" in printed


def test_files_of_two_benchmarks_are_not_called_equal(files, capsys):
    assert compare.main(files(RESULT, {"other": {"median_ms": 1.0}})) == 2
    assert "no figure in common" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_every_result_of_the_repository_can_be_compared(path: Path):
    found = compare.measured(json.loads(path.read_text("utf-8")))
    assert found
    assert not any(kind == "score" and not 0 <= value <= 1 for kind, value in found.values())
