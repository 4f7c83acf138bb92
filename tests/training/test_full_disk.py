"""A disk that is full for a while costs a run nothing but warnings; one that stays full costs what was not saved."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from etnet.errors import DiskFault
from etnet.manifest import read_weights_info
from etnet.training.disk_refusals import DiskRefusals
from etnet.training.tracking import SilentObserver
from helpers.killing import assert_same_runs
from helpers.runs import FixedScores, tiny_recipe, tiny_run, write_disc_folder

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


class FullFrom(SilentObserver):
    """Refuses every file between two epochs, as a full disk does, and remembers what is said and what `last` was."""

    def __init__(self, run: Path, monkeypatch: pytest.MonkeyPatch, *, first: int, until: int) -> None:
        self.run, self.first, self.until = run, first, until
        self.messages: list[str] = []
        self.kept: list[int] = []
        self.is_full = first == 0
        replace = Path.replace

        def refusing(source: Path, target: Path) -> Path:
            if self.is_full and target.suffix in (".safetensors", ".csv", ".jsonl", ".png"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(source, target)

        monkeypatch.setattr(Path, "replace", refusing)

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_epoch(self, row: dict[str, float]) -> None:
        last = self.run / "weights" / "last.safetensors"
        if last.exists():
            self.kept.append(read_weights_info(last).iteration)
        self.is_full = self.first <= row["epoch"] < self.until

    @property
    def warnings(self) -> list[str]:
        return [text for text in self.messages if text.startswith("Warning: ")]


def test_a_disk_that_is_full_for_some_epochs_is_told_once_for_each_kind_of_file(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    recipe = tiny_recipe("training.epochs=7")
    scores = itertools.cycle(map(FixedScores, (0.1, 0.2, 0.3, 0.4, 0.35, 0.36, 0.25)))
    monkeypatch.setattr("etnet.training.trainer.validate", lambda *_, **__: next(scores))
    tiny_run(recipe, discs, whole)
    observer = FullFrom(run, monkeypatch, first=2, until=5)
    result = tiny_run(recipe, discs, run, observer=observer)
    # From the second epoch on; when an epoch is told its own `last` is not written yet, and those of 2 to 4 never were.
    assert observer.kept == [3, 3, 3, 3, 15, 18]
    assert [text.split(": ")[1] for text in observer.warnings] == [
        str(run / "weights" / "last.safetensors"),
        str(run / "weights" / "best.safetensors"),
        str(run / "metrics.csv"),
    ]
    for text in observer.warnings:
        assert "could not be written (No space left on device); the run goes on" in text
    expected, got = (load_file(folder / "weights/last.safetensors") for folder in (whole, run))
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 7
    # The scores 0.3 and 0.4 came while nothing could be saved, so that 0.36 is the best there is.
    assert (result.best_score, result.best_epoch) == (0.36, 6)
    assert read_weights_info(run / "weights/best.safetensors").epoch == 6


def test_a_score_that_rises_while_the_disk_is_full_is_no_reason_to_stop_early(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter(map(FixedScores, (0.1, 0.2, 0.3, 0.4, 0.35, 0.38)))
    monkeypatch.setattr("etnet.training.trainer.validate", lambda *_, **__: next(scores))
    observer = FullFrom(tmp_path / "run", monkeypatch, first=1, until=5)
    recipe = tiny_recipe("training.epochs=9", "training.patience=2")
    result = tiny_run(recipe, discs, tmp_path / "run", observer=observer)
    # 0.4 of the fourth epoch is the score that two epochs did not reach, though no file holds its weights.
    assert (result.iterations, result.stopped_early) == (18, True)
    assert (result.best_score, result.best_epoch, result.highest_epoch) == (0.38, 6, 4)


def test_a_disk_that_stays_full_ends_in_one_sentence_and_the_run_can_be_continued(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    tiny_run(tiny_recipe(), discs, whole)
    observer = FullFrom(run, monkeypatch, first=3, until=99)
    with pytest.raises(DiskFault, match=r"last\.safetensors: could not .*iteration 12 of 12 .*etnet train --resume"):
        tiny_run(tiny_recipe(), discs, run, observer=observer)
    assert read_weights_info(run / "weights/last.safetensors").iteration == 6
    observer.is_full = False
    tiny_run(tiny_recipe(), discs, run, resume=True)
    assert_same_runs(whole, run)


def test_the_picture_of_the_samples_is_no_reason_not_to_train(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = FullFrom(tmp_path / "run", monkeypatch, first=0, until=1)
    tiny_run(tiny_recipe("training.epochs=2"), discs, tmp_path / "run", observer=observer)
    assert "training_samples.png: could not be written" in observer.warnings[0]
    assert observer.warnings[0].endswith("; the run goes on without it")
    assert read_weights_info(tmp_path / "run/weights/last.safetensors").iteration == 6


def test_only_the_disk_is_forgiven() -> None:
    def mistake() -> None:
        raise KeyError("dice")

    told: list[str] = []
    with pytest.raises(KeyError):
        DiskRefusals(told.append).attempt("metrics", mistake)
    assert told == []


TRAIN_ON_A_SMALL_DISK = """
import json, sys
from pathlib import Path
from etnet.errors import DiskFault
from etnet.manifest import read_weights_info
from etnet.training.tracking import SilentObserver
from helpers.runs import FixedScores, tiny_recipe, tiny_run

disk, data, until = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
run, ballast = disk / "run", disk / "ballast"
told = []

class Filling(SilentObserver):
    def on_message(self, text):
        told.append(text)

    def on_epoch(self, row):
        if row["epoch"] == 2:
            with ballast.open("wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(bytes(4096))
                except OSError:
                    pass
        if row["epoch"] == until:
            ballast.unlink()

error = None
try:
    tiny_run(tiny_recipe("training.epochs=6"), data, run, observer=Filling())
except DiskFault as fault:
    error = str(fault)
parts = [str(path) for path in run.rglob("*.part")]
iteration = read_weights_info(run / "weights" / "last.safetensors").iteration
if error:
    ballast.unlink()
    tiny_run(tiny_recipe("training.epochs=6"), data, run, resume=True)
print(json.dumps({
    "warnings": [text for text in told if text.startswith("Warning")],
    "error": error, "parts": parts, "iteration": iteration,
    "after": read_weights_info(run / "weights" / "last.safetensors").iteration,
    "rows": len((run / "metrics.csv").read_text().splitlines()) - 1,
}))
"""


@pytest.mark.parametrize("until", [4, 99], ids=["for a while", "to the end"])
def test_a_real_disk_that_is_full(until: int, discs: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=32m disk "$0" && exec "$@"']
    try:
        subprocess.run([*mount, str(disk), "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system does not let its users mount a small file system")
    command = [sys.executable, "-c", TRAIN_ON_A_SMALL_DISK, str(disk), str(discs), str(until)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [*mount, str(disk), *command], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parts"] == []
    kinds = [text.split(": ")[1].rpartition("/")[2] for text in found["warnings"]]
    assert len(kinds) == len(set(kinds)), found["warnings"]
    assert {"last.safetensors", "metrics.csv"} <= set(kinds)
    assert all("No space left on device" in text for text in found["warnings"])
    assert (found["after"], found["rows"]) == (18, 6)
    if until == 99:
        assert "iteration 18 of 18 was reached and is lost" in found["error"]
        assert found["iteration"] == 3
    else:
        assert found["error"] is None
        assert found["iteration"] == 18
