from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from helpers.benchmarks import BENCHMARKS, load_benchmark

compare = load_benchmark("compare")
measurement = load_benchmark("measurement")

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


def compared(subject: str, theirs: str, *, ratio: float = 2.0, ours: float = 10.0, better: str = "lower") -> dict:
    row = measurement.Comparison(
        subject=subject,
        case="ten",
        unit="ms",
        better=better,
        ours=measurement.Contestant("etnet", ours),
        theirs=measurement.Contestant(theirs, ours * ratio),
        ratio=ratio,
        rounds=3,
        result="equal",
    )
    return asdict(row)


def test_rows_with_a_rival_are_matched_by_what_they_are_not_by_their_place(files, capsys):
    rows = [compared("sort", "a", ours=1.0), compared("sort", "b", ours=1.0), compared("sum", "a", ours=50.0)]
    assert compare.main(files({"comparisons": rows}, {"comparisons": rows[::-1]})) == 0
    assert "6 figures compared, 0 worse" in capsys.readouterr().out
    assert compare.main(files({"comparisons": rows[:1]}, {"comparisons": rows[1:2]})) == 2, "another rival"


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        ({"ratio": 1.5}, True),
        ({"ratio": 3.0}, False),
        ({"ours": 12.0}, True),
        ({"ours": 8.0}, False),
        ({"ours": 12.0, "better": "higher"}, False),
        ({"ours": 8.0, "better": "higher"}, True),
    ],
)
def test_a_smaller_ratio_and_a_worse_figure_of_ours_are_regressions(files, change, worse):
    before = compared("sort", "a", better=change.get("better", "lower"))
    assert compare.main(files({"comparisons": [before]}, {"comparisons": [compared("sort", "a", **change)]})) == worse


def test_a_rival_that_became_slower_and_a_longer_benchmark_are_no_regressions(files, capsys):
    before, after = compared("sort", "a"), compared("sort", "a")
    after["theirs"]["value"] *= 100
    assert compare.main(files({"seconds": 1, "comparisons": [before]}, {"seconds": 9, "comparisons": [after]})) == 0
    assert "2 figures compared" in capsys.readouterr().out


def test_files_of_two_benchmarks_are_not_called_equal(files, capsys):
    assert compare.main(files(RESULT, {"other": {"median_ms": 1.0}})) == 2
    assert "no figure in common" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_every_result_of_the_repository_can_be_compared(path: Path):
    found = compare.measured(json.loads(path.read_text("utf-8")))
    assert found
    assert not any(kind == "score" and not 0 <= value <= 1 for kind, value in found.values())
