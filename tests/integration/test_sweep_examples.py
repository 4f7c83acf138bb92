"""The examples of docs/sweeps.md, run on a tiny data set: Slurm played by three small programs, Ray on this machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etnet.manifest import read_weights_info
from helpers.runs import TINY, write_disc_folder

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
SETTINGS = [word for override in (*TINY, "training.epochs=1") for word in ("--set", override)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    write_disc_folder(tmp_path / "discs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def run(*words: object) -> str:
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=400)
    assert result.returncode == 0, result.stderr
    return result.stdout


def play_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, *, task: int, gpus: int) -> None:
    """The programs and variables that a job of an array finds."""
    programs = {
        "srun": 'exec "$@"',
        "scontrol": '[ "$*" = "show hostnames localhost" ] && echo localhost',
        "torchrun": f'exec "{sys.executable}" -m torch.distributed.run "$@"',
    }
    (folder / "bin").mkdir(exist_ok=True)
    for name, line in programs.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/bash\n{line}\n")
        program.chmod(0o755)
    values = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": str(random.randint(1, 10**6)),
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": str(gpus),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_every_element_of_the_array_has_values_of_its_own(folder, monkeypatch):
    chosen = set()
    script = EXAMPLES / "slurm" / "sweep.sbatch"
    for task in range(6):
        play_slurm(folder, monkeypatch, task=task, gpus=2)
        (folder / "bin" / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
        words = run("bash", script, "discs", "--recipe", "folder").splitlines()
        assert words[: words.index("-m")][:5] == ["torchrun", "--nnodes", "1", "--nproc-per-node", "2"]
        chosen.add(tuple(word for word in words if word.startswith(("loss.alpha=", "training.seed="))))
    assert f"#SBATCH --array=0-{len(chosen) - 1}\n" in script.read_text()
    assert chosen == {(f"loss.alpha={a}", f"training.seed={s}") for a in (0.3, 0.5) for s in (0, 1, 2)}


@pytest.mark.long
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_job_of_the_array_trains_and_may_be_started_again(folder, monkeypatch):
    for _ in range(2):
        play_slurm(folder, monkeypatch, task=4, gpus=2)
        words = ["discs", "--recipe", "folder", *SETTINGS, "--device", "cpu"]
        assert "Results: runs/sweep/alpha-0.5-seed-1" in run("bash", EXAMPLES / "slurm" / "sweep.sbatch", *words)
    info = read_weights_info(folder / "runs/sweep/alpha-0.5-seed-1/weights/last.safetensors")
    assert (info.recipe.loss.alpha, info.recipe.training.seed) == (0.5, 1)


@pytest.mark.long
def test_ray_tune_finds_values(folder):
    pytest.importorskip("ray.tune", reason="Ray Tune is not installed")
    words = ["--recipe", "folder", "--data", "discs", "--trials", 2, *SETTINGS]
    best = run(sys.executable, EXAMPLES / "ray_tune.py", *words).splitlines()[-1]
    assert best.startswith("validation_mean_foreground_dice ")
    assert "--set loss.alpha=" in best
    weights = list(folder.glob("runs/tune/trials/*/weights/last.safetensors"))
    rates = {read_weights_info(path).recipe.optimizer.base_lr for path in weights}
    assert len(rates) == 2


@pytest.mark.long
def test_ray_train_trains_one_run_in_two_processes(folder):
    pytest.importorskip("ray.train", reason="Ray Train is not installed")
    words = ["--recipe", "folder", "--data", "discs", "--output", "run", *SETTINGS]
    assert "Results: run" in run(sys.executable, EXAMPLES / "ray_train.py", *words)
    assert read_weights_info(folder / "run/weights/last.safetensors").iteration == 3
