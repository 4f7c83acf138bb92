"""The suite's trainings: what fits into the time, what is left out and why, and that they go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from helpers.benchmarks import BENCHMARKS, load_benchmark
from helpers.reproduce import TINY, write_drive_of_discs

accuracy = load_benchmark("suite.accuracy")
Ended = load_benchmark("suite.running").Ended


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    return write_drive_of_discs(tmp_path_factory.mktemp("data") / "DRIVE")


@pytest.fixture
def options(tmp_path, drive):
    settings = [*TINY, "training.epochs=4"]
    return Namespace(
        out=tmp_path / "out", device="cpu", data=drive.parent, drive=None, encoder_weights=None, set=settings
    )


@pytest.fixture
def training(options):
    return accuracy.Training("drive", options.data / "DRIVE", options, accuracy.settings_of(options))


def write_epochs(training, count: int) -> None:
    training.run.mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": epoch, "iteration": 2 * epoch, "images_per_second": 5.0} for epoch in range(1, count + 1)]
    (training.run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(accuracy.time, "monotonic", clock.monotonic)
    return clock


def test_the_length_of_a_training_is_that_of_its_recipe_on_all_training_images(training):
    assert (training.epochs, training.steps) == (4, 8)
    assert "data.validation_fraction=0" in training.settings
    assert "model.encoder_weights=none" in training.settings


@pytest.mark.parametrize(("deadline", "late"), [(1089, True), (1091, False)])
def test_a_training_is_given_up_when_its_own_rate_says_that_it_will_be_late(training, clock, deadline, late):
    watch = accuracy.Clock(training, deadline)
    assert not watch.will_be_late(), "nothing is known yet"
    write_epochs(training, 1)
    assert not watch.will_be_late(), "the first epoch also warms up"
    clock.now += 5
    write_epochs(training, 2)
    assert not watch.will_be_late(), "too short to tell"
    clock.now += 25
    # Four of eight steps are left, of 15 s each, and it is 1030.
    assert watch.will_be_late() is late
    assert watch.step_seconds == 15


def test_a_resumed_training_is_judged_by_what_it_does_now(training, clock):
    write_epochs(training, 2)
    watch = accuracy.Clock(training, clock.now + 1000)
    clock.now += 500
    assert not watch.will_be_late()
    assert watch.step_seconds is None
    write_epochs(training, 3)
    watch.will_be_late()
    clock.now += 40
    write_epochs(training, 4)
    watch.will_be_late()
    assert watch.step_seconds == 20


def test_a_data_set_that_is_not_there_is_left_out(options):
    assert accuracy.outcome_of("montgomery", options, time.monotonic() + 600, None) == {
        "status": "left out",
        "reason": "there is no folder Montgomery below --data",
    }


def test_a_rate_measured_before_tells_what_will_not_fit(options, monkeypatch):
    monkeypatch.setattr(accuracy, "train", lambda *_: pytest.fail("it was begun"))
    found = accuracy.outcome_of("drive", options, time.monotonic() + accuracy.AFTERWARDS + 60, 30.0)
    assert found["status"] == "no time"
    assert found["reason"].startswith(
        "the 8 steps that are left take about 4 min, 1 min are there; 0 of 8 steps are done"
    )
    assert found["reason"].endswith("epochs are not shortened")


def test_a_training_that_was_given_up_keeps_what_it_did(options, monkeypatch):
    def stopped(self, seconds, *words, give_up=None):
        write_epochs(self, 3)
        return Ended(0, 1.0, cut_off=False, given_up=True)

    monkeypatch.setattr(accuracy.Training, "etnet", stopped)
    found = accuracy.outcome_of("drive", options, time.monotonic() + 600, None)
    assert (found["status"], found["done_steps"], found["steps"]) == ("no time", 6, 8)


def test_a_training_that_fails_is_told_and_costs_no_other(options, monkeypatch):
    def broken(command, log: Path, **_):
        log.write_text("Error: cuDNN says no\n")
        return Ended(4, 1.0, cut_off=False)

    monkeypatch.setattr(accuracy, "run_bounded", broken)
    found = accuracy.outcome_of("drive", options, time.monotonic() + 600, None)
    assert (found["status"], found["reason"]) == ("failed", "etnet train: Error: cuDNN says no")
    options.set.append("training.epoch=3")
    assert "training.epoch" in accuracy.outcome_of("drive", options, time.monotonic() + 600, None)["reason"]


def test_what_was_done_is_written_after_each_data_set_and_more_time_is_asked_for(tmp_path, options, monkeypatch):
    told = {
        "drive": {"status": "done", "scores": {"field_of_view": {"mean_foreground_dice": 0.8123}}},
        "drishti_gs": {"status": "no time", "reason": "it takes 9 min"},
        "montgomery": {"status": "left out", "reason": "there is no folder"},
    }
    seen = []

    def outcome_of(recipe, *_):
        seen.append(json.loads(file.read_text())["data_sets"] if file.exists() else {})
        return told[recipe]

    file = tmp_path / "accuracy.json"
    monkeypatch.setattr(accuracy, "outcome_of", outcome_of)
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--out", str(tmp_path), "--device", "cpu", "--json", str(file)])
    assert accuracy.main() == accuracy.UNFINISHED
    assert [list(known) for known in seen] == [[], ["drive"], ["drive", "drishti_gs"]]
    written = json.loads(file.read_text())
    assert written["headline"] == "drive Dice 0.8123, drishti_gs no time, montgomery left out"
    assert written["failed"] == "drishti_gs: it takes 9 min"
    told["drishti_gs"] = {"status": "failed", "reason": "broken"}
    assert accuracy.main() == 1


def test_a_training_goes_on_where_it_was_stopped_and_ends_in_files_to_take_along(options, monkeypatch):
    options.set.append("training.epochs=60")
    with monkeypatch.context() as patched:
        patched.setattr(load_benchmark("suite.running"), "POLL", 0.02)
        patched.setattr(accuracy.Clock, "will_be_late", lambda self: self._training.done_steps() >= 4)
        stopped = accuracy.outcome_of("drive", options, time.monotonic() + 600, None)
    assert stopped["status"] == "no time", stopped
    assert 4 <= stopped["done_steps"] < stopped["steps"] == 120
    log = options.out / "drive" / "train.log"
    log.unlink()
    resumed = accuracy.outcome_of("drive", options, time.monotonic() + 600, None)
    assert resumed["status"] == "done", resumed
    assert resumed["done_steps"] == resumed["steps"]
    assert "iteration 1/120" not in log.read_text(), "it did not begin anew"
    assert 0 <= resumed["scores"]["whole_image"]["mean_foreground_dice"] <= 1
    assert (options.out / resumed["onnx"]["file"]).stat().st_size == resumed["onnx"]["bytes"] > 0
    assert (options.out / resumed["picture"]).read_bytes()[:2] == b"\xff\xd8"
    assert any("--resume-or-start" in command for command in resumed["commands"])
    assert not any(str(options.out) in command for command in resumed["commands"])


STOPPED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from suite import accuracy
out = Path(sys.argv[2])
program = out / "python"
saves = f"trap 'sleep 0.5; touch {out}/saved; exit 0' TERM"
program.write_text(f"#!/bin/bash\\n{saves}\\ntouch {out}/began\\nsleep 60 & wait\\n")
program.chmod(0o755)
accuracy.sys.executable = str(program)
sys.exit(accuracy.main())
"""


def test_a_stop_lets_the_training_save_its_state(tmp_path, drive):
    words = ["--out", tmp_path, "--device", "cpu", "--data", drive.parent, "--json", tmp_path / "out.json"]
    words += [word for setting in TINY for word in ("--set", setting)]
    stopped = subprocess.Popen([sys.executable, "-c", STOPPED, BENCHMARKS, *words])
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert stopped.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stopped.terminate()
    assert stopped.wait(timeout=60) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()
