"""Runs of two processes that die, are stopped, and go on: their end is that of a run that nothing disturbed."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from etnet.config.load import load_recipe
from etnet.manifest import read_weights_info
from helpers.runs import TINY, tiny_run, write_disc_folder
from helpers.torchrun import run_together, torchrun, train_words

pytestmark = pytest.mark.long

WORDS = (*TINY, "training.batch_size=4", "training.ema_decay=0.9", "training.epochs=20", "optimizer.base_lr=0.0005")
RUN = Path("runs/train/folder")
LAST = RUN / "weights/last.safetensors"
TOTAL = 30


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A folder with the images in `discs` and a run of two processes on them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_disc_folder(folder / "discs")
    result = run_together(*train_words(Path("discs"), WORDS), cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def folder(undisturbed, tmp_path) -> Path:
    shutil.copytree(undisturbed / "discs", tmp_path / "discs")
    return tmp_path


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The training processes that `torchrun` has started, by rank."""
    children = map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split())
    ranks = {}
    for child in children:
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks |= {int(word[5:]): child for word in words if word.startswith(b"RANK=")}
    return [ranks[rank] for rank in sorted(ranks)]


def wait_for_rows(launcher: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until a run has so many epochs behind it."""
    deadline = time.monotonic() + 240
    while not (folder / LAST).exists() or len(rows_of(folder / RUN)) < count:
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    """Weights, moments of the optimizer and random generators, bit for bit, and the table of the epochs."""
    ours, expected = (load_file(place / LAST) for place in (folder, undisturbed))
    assert [name for name in expected if not torch.equal(ours[name], expected[name])] == []
    assert without_speed(rows_of(folder / RUN)) == without_speed(rows_of(undisturbed / RUN))


def without_speed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def end(process: subprocess.Popen[str]) -> str:
    """What a process that is to succeed says on stderr."""
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stderr


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("named", [True, False])
def test_torchrun_starts_all_again_when_one_is_killed_and_the_run_ends_as_if_nothing_was(
    folder, undisturbed, rank, named
):
    output = ["--output", RUN] if named else []
    launcher = torchrun(*train_words(Path("discs"), WORDS, *output), cwd=folder, options=["--max-restarts", "3"])
    wait_for_rows(launcher, folder, random.randint(1, 12))
    time.sleep(random.random() / 4)
    os.kill(workers_of(launcher)[rank], signal.SIGKILL)
    assert f"continuing {RUN} after iteration" in end(launcher)
    assert [path.name for path in (folder / "runs/train").iterdir()] == ["folder"]
    assert_same_end(folder, undisturbed)


def test_a_process_that_is_killed_before_the_first_checkpoint_costs_nothing(folder, undisturbed):
    launcher = torchrun(*train_words(Path("discs"), WORDS), cwd=folder, options=["--max-restarts", "3"])
    deadline = time.monotonic() + 240
    while not (folder / RUN / "environment.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(workers_of(launcher)[0], signal.SIGKILL)
    end(launcher)
    assert [path.name for path in (folder / "runs/train").iterdir()] == ["folder"]
    assert_same_end(folder, undisturbed)


def test_all_are_killed_and_the_run_is_resumed_by_hand(folder, undisturbed):
    launcher = torchrun(*train_words(Path("discs"), WORDS), cwd=folder)
    wait_for_rows(launcher, folder, random.randint(1, 12))
    for number in (launcher.pid, *workers_of(launcher)):
        os.kill(number, signal.SIGKILL)
    launcher.communicate()
    assert read_weights_info(folder / LAST).iteration < TOTAL
    end(torchrun("-m", "etnet", "train", "--resume", "--device", "cpu", cwd=folder))
    assert_same_end(folder, undisturbed)


def test_sigterm_lets_the_step_end_and_saves_also_with_loader_processes(folder, undisturbed):
    words = train_words(Path("discs"), WORDS, "--set", "data.workers=2", "--resume-or-start", "--output", RUN)
    launcher = torchrun(*words, cwd=folder)
    wait_for_rows(launcher, folder, random.randint(1, 12))
    launcher.send_signal(signal.SIGTERM)
    stdout, stderr = launcher.communicate(timeout=120)
    assert f"Next: etnet train --resume --output {RUN}" in stdout, stderr
    assert "everything so far is saved" in stderr
    assert 0 < read_weights_info(folder / LAST).iteration < TOTAL
    end(torchrun(*words, cwd=folder))
    assert_same_end(folder, undisturbed)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(folder, undisturbed, before, after):
    words = train_words(Path("discs"), WORDS, "--resume-or-start", "--output", RUN)
    launcher = torchrun(*words, cwd=folder, processes=before)
    wait_for_rows(launcher, folder, 3)
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=120)
    end(torchrun(*words, cwd=folder, processes=after))
    assert_same_losses(rows_of(folder / RUN), rows_of(undisturbed / RUN))


def test_the_losses_of_two_processes_are_those_of_one(undisturbed, tmp_path):
    tiny_run(load_recipe("folder", WORDS), undisturbed / "discs", tmp_path)
    assert_same_losses(rows_of(undisturbed / RUN), rows_of(tmp_path))


def assert_same_losses(rows: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    # Adam with a large rate makes much of rounding: that nothing else differs is shown in double precision, see
    # tests/training/test_distributed.py.
    assert len(rows) == len(expected) == 20
    differences = [abs(mine["loss"] - theirs["loss"]) for mine, theirs in zip(rows, expected, strict=True)]
    assert max(differences) < 1e-4, differences
