"""The comparison of options on DRIVE: its recipes, its arithmetic, and that it goes on where it stopped."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from etnet.errors import UsageError
from helpers.benchmarks import BENCHMARKS, load_benchmark
from helpers.reproduce import write_drive_of_discs

SCRIPT = BENCHMARKS / "ablate_drive.py"
TINY = (
    *("data.crop_size=32", "data.workers=0", "model.encoder=test_resnet", "model.decoder_channels=16"),
    *("model.edge_channels=8", "training.batch_size=2", "training.precision=float32", "training.save_every=1"),
)


@pytest.fixture(scope="module")
def ablation():
    return load_benchmark("ablate_drive")


def options_of(ablation, *words: str):
    return ablation.arguments(["--drive", "DRIVE", "--work", "work", *words])


def result(dice: float, *, iterations: int = 10, speed: float = 2.0) -> dict:
    plain, flips = ({"dice": value, "accuracy": value / 2} for value in (dice, dice + 0.01))
    return {"iterations": iterations, "images_per_second": speed, "scores": {"plain": plain, "flips": flips}}


@pytest.mark.parametrize("recipe", ["drive", "drive_small"])
def test_every_variant_is_a_recipe_and_differs_from_the_paper(ablation, recipe):
    jobs = ablation.jobs(options_of(ablation, "--recipe", recipe))
    assert len(jobs) == 3 * len(ablation.VARIANTS)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs), "a table of one seed is complete early"
    assert {job.epochs for job in jobs} == {200}
    loaded = {ablation.load_recipe(job.recipe, job.settings).model_dump_json() for job in jobs}
    assert len(loaded) == len(ablation.VARIANTS)


def test_variants_of_the_caller_join_those_that_are_chosen(ablation):
    words = ("--variant", "paper", "--extra", "both", "model.high_resolution=true", "loss.cross_entropy=0.5")
    jobs = ablation.jobs(options_of(ablation, "--seeds", "1", "--set", "data.crop_size=64", *words))
    assert [(job.variant, job.overrides) for job in jobs] == [
        ("paper", ("data.crop_size=64",)),
        ("both", ("data.crop_size=64", "model.high_resolution=true", "loss.cross_entropy=0.5")),
    ]


def test_an_option_that_no_recipe_has_is_refused_before_anything_is_trained(ablation):
    with pytest.raises(UsageError, match="cross_entropi is not a recipe key"):
        ablation.jobs(options_of(ablation, "--extra", "typo", "loss.cross_entropi=0.5"))


def test_gains_are_taken_between_runs_of_the_same_seed(ablation):
    results = {
        "paper": {0: result(0.70), 1: result(0.74)},
        "other": {1: result(0.75, speed=1.0), 0: result(0.73, speed=3.0), 2: result(0.9, speed=2.0)},
    }
    paper, other = ablation.summarize(results)
    assert paper.gains == (0.0, 0.0)
    np.testing.assert_allclose(other.gains, [0.01, 0.03])
    np.testing.assert_allclose(other.dice, [0.75, 0.73, 0.9])
    np.testing.assert_allclose(other.flips_dice, [0.76, 0.74, 0.91])
    assert other.speed == 2.0


def test_runs_of_different_length_are_not_compared(ablation):
    with pytest.raises(SystemExit, match=r"\[10, 11\] iterations"):
        ablation.summarize({"paper": {0: result(0.7)}, "other": {0: result(0.7, iterations=11)}})


def test_the_table_shows_what_is_done_so_far(ablation, capsys):
    ablation.print_table(ablation.summarize({"paper": {0: result(0.7)}, "other": {1: result(0.75)}}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["paper", "0.7000", "0.3500", "0.7100", "2.00"]
    assert lines[3].split() == ["other", "0.7500", "-", "0/0", "0.3750", "0.7600", "2.00"]


def test_an_interrupted_comparison_goes_on_where_it_stopped(ablation, tmp_path, monkeypatch, capfd):
    drive, work = write_drive_of_discs(tmp_path / "drive"), tmp_path / "work"
    called: list[list[str]] = []
    run = subprocess.run

    def remember(words, **options):
        called.append(words)
        return run(words, **options)

    monkeypatch.setattr(ablation.subprocess, "run", remember)
    job = ablation.Job("finer", (*TINY, "model.high_resolution=true"), "drive_small", 2, 0, "test", "cpu")
    # Killed before the first checkpoint, then after the last.
    (work / "finer-seed0" / "run" / "weights").mkdir(parents=True)
    first = ablation.run_job(job, drive=drive, work=work)
    (work / "finer-seed0" / "result.json").unlink()
    second = ablation.run_job(job, drive=drive, work=work)
    third = ablation.run_job(job, drive=drive, work=work)
    assert ["--resume" in words for words in called] == [False, True]
    assert first["iterations"] == 4
    assert first["scores"] == second["scores"] == third["scores"]
    assert set(first["scores"]) == {"plain", "flips"}
    assert all(0 <= scores["dice"] <= 1 for scores in first["scores"].values())
    assert json.loads((work / "finer-seed0" / "result.json").read_text())["command"] == first["command"]
    longer = ablation.Job("finer", job.overrides, "drive_small", 3, 0, "test", "cpu")
    with pytest.raises(SystemExit, match="holds a run with other options"):
        ablation.run_job(longer, drive=drive, work=work)
    assert "Traceback" not in capfd.readouterr().err
