from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from etnet.config.load import load_recipe
from etnet.manifest import newest_run, read_weights_info
from etnet.training import lr_finder, profiling
from etnet.training.profiling import Phases
from helpers.command_line import one_sentence, run_etnet
from helpers.runs import TINY, write_disc_folder

SETTINGS = [word for override in TINY for word in ("--set", override)]
TRAIN = ("train", "--recipe", "folder", "--device", "cpu")


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def discs(working_folder: Path) -> Path:
    return write_disc_folder(working_folder / "discs")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling.profile_training, "__kwdefaults__", {"phases": Phases(1, 2, 1)})
    monkeypatch.setattr(lr_finder.find_learning_rate, "__kwdefaults__", {"steps": 12})


def test_a_profile_is_a_table_a_sentence_and_a_trace(discs: Path) -> None:
    result = run_etnet(*TRAIN, "--data", discs, *SETTINGS, "--profile")
    assert result.exit_code == 0, result.output
    for stage in ("data wait", "copy to device", "forward", "loss", "backward", "optimizer", "other", "whole step"):
        assert any(line.startswith(stage) for line in result.stdout.splitlines()), stage
    assert "mean of 2 steps after 1 to warm up, and the next 1 are in the trace." in result.stdout
    assert " % of a step: " in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if line.startswith(("forward", "other"))) <= 80
    assert "Results: runs/profile/folder" in result.stdout
    assert Path("runs/profile/folder/trace.json.gz").is_file()
    assert not list(Path().rglob("*.safetensors"))
    assert newest_run() is None


def test_a_range_test_names_the_command_that_uses_its_rate(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etnet.training.lr_finder.steepest_descent", lambda *_: 0.0025)
    words = ("--set", "optimizer.base_lr=0.1", "--batch-size", "4", "--fold", "1/4", "--find-lr")
    settings = [word for override in TINY if "validation_fraction" not in override for word in ("--set", override)]
    result = run_etnet(*TRAIN, "--data", discs, *settings, *words)
    assert result.exit_code == 0, result.output
    assert "Suggested optimizer.base_lr: 0.0025" in result.stdout
    assert Path("runs/find-lr/folder-fold-1-of-4/lr_finder.png").is_file()
    assert not list(Path().rglob("*.safetensors"))
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("Next: "))
    command = shlex.split(line)[2:]
    assert command.count("optimizer.base_lr=0.0025") == 1
    assert "optimizer.base_lr=0.1" not in command
    trained = run_etnet(*command, "--epochs", "1")
    assert trained.exit_code == 0, trained.output
    recipe = read_weights_info(Path("runs/train/folder-fold-1-of-4/weights/last.safetensors")).recipe
    assert (recipe.optimizer.base_lr, recipe.training.batch_size, recipe.data.fold) == (0.0025, 4, "1/4")


def test_a_range_test_without_a_fall_suggests_nothing(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etnet.training.lr_finder.steepest_descent", lambda *_: None)
    result = run_etnet(*TRAIN, "--data", discs, *SETTINGS, "--find-lr", "--output", "found")
    assert result.exit_code == 0, result.output
    assert "No rate is suggested" in result.stdout
    assert "base_lr" not in result.stdout
    assert {path.name for path in Path("found").iterdir()} == {"lr_finder.csv", "lr_finder.png"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--profile", "--find-lr"), "--profile and --find-lr are two short runs"),
        (("--profile", "--resume"), "--profile is a short run of its own"),
        (("--find-lr", "--resume"), "--find-lr is a short run of its own"),
        (("--profile", "--epochs", "3"), "leave --epochs 3 away"),
        (("--find-lr", "--patience", "2"), "leave --patience 2 away"),
        (("--find-lr", "--resume-or-start", "--output", "runs/x"), "leave --resume-or-start away"),
        (("--profile", "--track", "mlflow"), "leave --track mlflow away"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(words: tuple[str, ...], expected: str, discs: Path) -> None:
    one_sentence(run_etnet(*TRAIN, "--data", discs, *SETTINGS, *words), 2, expected)
    assert not Path("runs").exists()


@pytest.mark.parametrize("probe", ["--profile", "--find-lr"])
def test_a_short_run_is_not_started_in_several_processes(
    probe: str, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    one_sentence(run_etnet(*TRAIN, "--data", discs, *SETTINGS, probe), 2, f"{probe} looks at one process")


@pytest.mark.parametrize("probe", ["--profile", "--find-lr"])
def test_a_short_run_that_fails_leaves_no_folder(probe: str, discs: Path) -> None:
    one_sentence(
        run_etnet(*TRAIN, "--data", discs, *SETTINGS, "--set", "model.encoder_weights=no.pth", probe), 3, "no.pth"
    )
    assert not list(Path().glob("runs/*/*"))


def test_deterministic_is_recorded_in_the_recipe_and_resumed(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    result = run_etnet(*TRAIN, "--data", discs, *SETTINGS, "--epochs", "1", "--output", "run", "--deterministic")
    assert result.exit_code == 0, result.output
    assert load_recipe("run/recipe.yaml").training.deterministic
    assert run_etnet("train", "--resume", "--output", "run", "--epochs", "2").exit_code == 0
    assert read_weights_info(Path("run/weights/last.safetensors")).recipe.training.deterministic


def test_a_run_cannot_become_deterministic_half_way(discs: Path) -> None:
    run_etnet(*TRAIN, "--data", discs, *SETTINGS, "--epochs", "1", "--output", "run")
    result = run_etnet("train", "--resume", "--output", "run", "--epochs", "2", "--deterministic")
    one_sentence(result, 2, "was started with other values of training.deterministic")


def test_the_help_names_them() -> None:
    shown = run_etnet("train", "--help").stdout
    assert all(option in shown for option in ("--profile", "--find-lr", "--deterministic"))
