from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from helpers.benchmarks import load_benchmark

measurement = load_benchmark("measurement")

DESCRIBED = {"subject": "sort", "case": "ten numbers", "unit": "ms", "result": "equal"}


def test_the_ratio_is_the_median_of_the_rounds_and_above_one_where_ours_is_better():
    row = measurement.Comparison.of_rounds(("ours", [1.0, 2.0, 4.0]), ("theirs", [3.0, 4.0, 40.0]), **DESCRIBED)
    assert (row.ours.value, row.theirs.value, row.ratio, row.rounds) == (2.0, 4.0, 3.0, 3)
    row = measurement.Comparison.of_rounds(
        ("ours", [10.0, 30.0]), ("theirs", [20.0, 20.0]), better="higher", version="1.2", **DESCRIBED
    )
    assert row.ratio == 1.0
    assert row.theirs.version == "1.2"


@pytest.mark.parametrize("rounds", [([], []), ([1.0], [1.0, 2.0])])
def test_sides_without_the_same_rounds_are_refused(rounds):
    with pytest.raises(ValueError, match=r"no median|zip"):
        measurement.Comparison.of_rounds(("ours", rounds[0]), ("theirs", rounds[1]), **DESCRIBED)


def test_contestants_take_turns_and_the_warm_up_does_not_count():
    calls = []
    times = measurement.take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


def test_a_result_says_how_to_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/bench_x.py", "--data", "/home/me/DRIVE", "--rounds", "2"])
    row = measurement.Comparison.of_rounds(("ours", [1.0]), ("theirs", [3.0]), target=2.0, **DESCRIBED)
    path = tmp_path / "new" / "x.json"
    measurement.write_result(path, benchmark="x", what="a test", figures={"rounds": 1}, comparisons=[row])
    result = json.loads(path.read_text("utf-8"))
    assert result["command"] == "python benchmarks/bench_x.py --data DRIVE --rounds 2"
    assert {"benchmark", "what", "commit", "date", "machine", "gpus", "versions", "seconds"} <= result.keys()
    assert result["comparisons"][0]["ratio"] == 3.0
    assert result["comparisons"][0]["ours"] == {"name": "ours", "value": 1.0, "version": None}


def test_a_result_does_not_say_where_this_machine_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--set", "model.encoder_weights=/data/me/w.pth", f"--json={tmp_path}/x.json"]
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    reason = f"{tempfile.gettempdir()}/a/model.engine: cannot be read by {measurement._ROOT}/python/etnet/x.py"
    figures = {"rows": [{"reason": reason}], "shape": (2, 3), "address": "https://example.org/a"}
    path = tmp_path / "x.json"
    measurement.write_result(path, benchmark="x", what="a test", figures=figures)
    result = json.loads(path.read_text("utf-8"))
    assert result["command"] == "python benchmarks/x.py --set model.encoder_weights=w.pth --json=x.json"
    assert result["rows"][0]["reason"] == "a/model.engine: cannot be read by python/etnet/x.py"
    assert (result["shape"], result["address"]) == ([2, 3], "https://example.org/a")


@pytest.mark.parametrize("started", ["/benchmarks/repo/benchmarks/peers/x.py", "benchmarks/peers/x.py"])
def test_the_command_names_a_script_in_a_folder_of_its_own(started, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [started, "--smoke"])
    assert measurement.command_line() == "python benchmarks/peers/x.py --smoke"


def test_a_printed_row_says_whether_its_target_is_met(capsys: pytest.CaptureFixture[str]):
    rows = [
        measurement.Comparison.of_rounds(("ours", [1.0]), ("theirs", [3.0]), target=target, **DESCRIBED)
        for target in (2.0, 4.0, None)
    ]
    measurement.show(rows)
    lines = capsys.readouterr().out.splitlines()
    assert "3.00x, target 2 met (equal)" in lines[0]
    assert "3.00x, target 4 missed (equal)" in lines[1]
    assert "target" not in lines[2]


def test_the_first_task_of_a_round_can_change():
    calls = []
    measurement.take_turns(
        {name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, warm_up=0, change_first=True
    )
    assert calls == ["a", "b", "b", "a"]


@pytest.mark.parametrize(
    ("value", "at_least", "met"), [(2.0, True, True), (1.0, True, False), (1.0, False, True), (None, True, None)]
)
def test_a_target_is_met_missed_or_was_not_measured(tmp_path: Path, value, at_least, met, capsys):
    target = measurement.Target("speed, images/s", 1.5, value, at_least)
    measurement.show([], [target])
    verdict = {True: "met", False: "missed", None: "not measured"}[met]
    assert capsys.readouterr().out.endswith(f"target {'at least' if at_least else 'at most'} 1.5: {verdict}\n")
    measurement.write_result(tmp_path / "x.json", benchmark="x", what="a test", figures={}, targets=[target])
    (written,) = json.loads((tmp_path / "x.json").read_text("utf-8"))["targets"]
    assert written["met"] is met


@pytest.mark.parametrize("smoke", [True, False])
def test_a_result_of_tiny_sizes_says_so(tmp_path, monkeypatch, smoke):
    if smoke:
        monkeypatch.setenv(measurement.SMOKE, "1")
    else:
        monkeypatch.delenv(measurement.SMOKE, raising=False)
    file = tmp_path / "ops.json"
    measurement.write_result(file, benchmark="ops", what="a sort", figures={})
    assert json.loads(file.read_text()).get("smoke", False) is smoke
