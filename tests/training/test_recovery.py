"""A run that was killed, continued with other workers, or made longer is the run that nothing happened to."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from etnet.config.load import load_recipe
from etnet.errors import UsageError
from helpers.killing import Forks, Processes, assert_same_runs, run_killed
from helpers.runs import TINY, StopAfter, tiny_recipe, tiny_run, write_disc_folder


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


def check_kills(start: Processes | Forks, discs: Path, tmp_path: Path, *, kills: int, epochs: int) -> None:
    def begin(run: Path) -> list[object]:
        settings = [word for override in (*TINY, f"training.epochs={epochs}") for word in ("--set", override)]
        return ["train", "--recipe", "folder", "--data", discs, "--output", run, "--device", "cpu", *settings]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    process = start.start(*begin(whole))
    while not process.ended() and not (whole / "weights" / "best.safetensors").exists():
        time.sleep(0.002)
    startup = time.monotonic() - began
    assert process.wait() == 0
    span = (time.monotonic() - began - startup) / kills
    run_killed(
        start,
        begin(killed),
        killed,
        kills=kills,
        startup=startup,
        span=span,
        epochs_between=epochs // kills - 1,
        seed=7,
    )
    assert_same_runs(whole, killed)


def test_a_run_killed_twenty_times_equals_an_uninterrupted_one_bit_for_bit(discs: Path, tmp_path: Path) -> None:
    start = Forks()
    try:
        check_kills(start, discs, tmp_path, kills=20, epochs=60)
    finally:
        start.close()


@pytest.mark.long
def test_a_run_of_separate_processes_killed_twenty_times_equals_an_uninterrupted_one(
    discs: Path, tmp_path: Path
) -> None:
    check_kills(Processes(), discs, tmp_path, kills=20, epochs=200)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_a_run_continued_with_other_workers_equals_an_uninterrupted_one(discs: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_run(tiny_recipe(), discs, whole)
    tiny_run(tiny_recipe("data.workers=2"), discs, parts, observer=StopAfter(4))
    tiny_run(tiny_recipe("data.workers=1"), discs, parts, observer=StopAfter(8), resume=True)
    tiny_run(tiny_recipe(), discs, parts, resume=True)
    assert_same_runs(whole, parts)


@pytest.mark.parametrize("stop_after", [None, 7], ids=["a finished run", "a stopped run"])
def test_with_a_constant_rate_a_run_made_longer_equals_a_long_one(
    stop_after: int | None, discs: Path, tmp_path: Path
) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    constant = "optimizer.poly_power=0"
    tiny_run(tiny_recipe(constant, "training.epochs=5"), discs, whole)
    observer = None if stop_after is None else StopAfter(stop_after)
    tiny_run(tiny_recipe(constant, "training.epochs=3"), discs, grown, observer=observer)
    result = tiny_run(tiny_recipe(constant, "training.epochs=5"), discs, grown, resume=True)
    assert (result.iterations, result.total) == (15, 15)
    assert_same_runs(whole, grown)
    assert load_recipe(grown / "recipe.yaml").training.epochs == 5


def test_a_longer_run_follows_the_schedule_of_its_new_length_and_every_such_run_is_the_same(
    discs: Path, tmp_path: Path
) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    tiny_run(tiny_recipe("training.epochs=2"), discs, once)
    shutil.copytree(once, twice)
    longer = tiny_recipe("training.epochs=4")
    tiny_run(longer, discs, once, resume=True)
    tiny_run(longer, discs, twice, resume=True, observer=StopAfter(8))
    tiny_run(longer, discs, twice, resume=True)
    assert_same_runs(once, twice)
    rates = [float(line.split(",")[2]) for line in (once / "metrics.csv").read_text().splitlines()[1:]]
    base, power = longer.optimizer.base_lr, longer.optimizer.poly_power
    steps = [(2, 6), (5, 6), (8, 12), (11, 12)]
    expected = [base * (1 - step / total) ** power for step, total in steps]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_fewer_epochs_than_done_are_refused_and_as_many_change_nothing(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=4"), discs, run, observer=StopAfter(7))
    before = (run / "weights/last.safetensors").read_bytes(), (run / "recipe.yaml").read_bytes()
    refused = r"2\.333 epochs are done, which is more than training\.epochs=2; give more with --epochs"
    with pytest.raises(UsageError, match=refused):
        tiny_run(tiny_recipe("training.epochs=2"), discs, run, resume=True)
    assert ((run / "weights/last.safetensors").read_bytes(), (run / "recipe.yaml").read_bytes()) == before
