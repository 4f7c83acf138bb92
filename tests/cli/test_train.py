from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from etnet.cli.main import main
from etnet.manifest import read_weights_info
from helpers.runs import TINY, FixedScores, write_disc_folder

SETTINGS = [word for override in TINY for word in ("--set", override)]
SETTINGS_WITHOUT_FRACTION = [
    word for override in TINY if "validation_fraction" not in override for word in ("--set", override)
]


def etnet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def discs(working_folder: Path) -> Path:
    return write_disc_folder(working_folder / "discs")


def sentence_of(result: Result) -> str:
    """The error that the command printed; also checks that it is one line without a traceback."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.stderr
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_a_run_ends_with_where_it_is_and_what_comes_next(discs: Path) -> None:
    result = etnet("train", "--recipe", "folder", "--data", discs, "--epochs", "1", "--device", "cpu", *SETTINGS)
    assert result.exit_code == 0, result.stderr
    assert "Encoder starts from random weights." in result.stderr
    assert "Results: runs/train/folder" in result.stdout
    assert f"Next: etnet evaluate runs/train/folder --data {discs} --split validation\n" in result.stdout
    assert Path("runs/train/folder/weights/last.safetensors").is_file()


def test_the_next_command_can_be_typed_as_it_stands(working_folder: Path) -> None:
    discs = write_disc_folder(working_folder / "my discs")
    result = etnet("train", "--recipe", "folder", "--data", discs, "--epochs", "1", "--output", "a run", *SETTINGS)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("Next: etnet "))
    scored = etnet(*shlex.split(line)[2:])
    assert scored.exit_code == 0, scored.stderr


def test_without_held_out_images_the_next_command_predicts(discs: Path) -> None:
    nothing_held_out = (*SETTINGS, "--set", "data.validation_fraction=0")
    result = etnet(
        "train", "--recipe", "folder", "--data", discs, "--epochs", "1", "--output", "a run", *nothing_held_out
    )
    assert "Next: etnet infer YOUR_IMAGES --model 'a run' --overlay\n" in result.stdout


def test_resuming_a_run_that_is_not_there_names_the_newest(discs: Path) -> None:
    etnet("train", "--recipe", "folder", "--data", discs, "--epochs", "1", *SETTINGS)
    result = etnet("train", "--resume", "--output", "runs/train/foldr")
    assert result.exit_code == 2
    assert "runs/train/foldr does not exist, and the newest run is runs/train/folder; give" in sentence_of(result)


def test_shorthand_options_win_over_set(discs: Path) -> None:
    words = ("--epochs", "2", "--batch-size", "3", "--seed", "7", "--output", "run")
    result = etnet("train", "--recipe", "folder", "--data", discs, *SETTINGS, *words)
    assert result.exit_code == 0, result.stderr
    training = read_weights_info(Path("run/weights/last.safetensors")).recipe.training
    assert (training.epochs, training.batch_size, training.seed) == (2, 3, 7)


def test_resume_finds_the_newest_run_and_its_data(discs: Path) -> None:
    etnet("train", "--recipe", "folder", "--data", discs, *SETTINGS, "--epochs", "1")
    result = etnet("train", "--resume", "--epochs", "2")
    assert result.exit_code == 0, result.stderr
    assert "continuing runs/train/folder after iteration 3 of 6" in result.stderr
    assert read_weights_info(Path("runs/train/folder/weights/last.safetensors")).iteration == 6


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--data", "discs"], 2, "--recipe is missing"),
        (["--recipe", "folder"], 2, "--data is missing"),
        (["--recipe", "foldr", "--data", "discs"], 2, "did you mean folder?"),
        (["--recipe", "folder", "--data", "nowhere", *SETTINGS], 3, "nowhere"),
        (["--recipe", "drive", "--data", "discs", *SETTINGS], 3, "discs"),
        (["--recipe", "folder", "--data", "discs", *SETTINGS, "--set", "model.encodr=x"], 2, "model.encoder?"),
        (["--recipe", "folder", "--data", "discs", *SETTINGS, "--set", "model.encoder=resnet19"], 2, "resnet"),
        (["--recipe", "folder", "--data", "discs", *SETTINGS, "--device", "tpu"], 2, "tpu"),
        (["--recipe", "folder", "--data", "discs", *SETTINGS, "--output", "discs"], 2, "new or empty output folder"),
        (["--recipe", "folder", "--data", "discs", *SETTINGS, "--set", "model.encoder_weights=no.pth"], 3, "no.pth"),
        (["--recipe", "folder", "--data", "discs", "--resume-or-start"], 2, "needs the run folder in --output"),
        (["--resume", "--resume-or-start", "--output", "x"], 2, "is not given with --resume"),
        (["--recipe", "folder", "--data", "discs", *SETTINGS, "--resume-or-start", "--output", "discs"], 2, "new or"),
        (["--resume"], 2, "no run under runs/train"),
        (["--resume", "--output", "discs"], 2, "does not exist"),
        (["--resume", "--output", "nowhere"], 2, "nowhere does not exist, and there is no run under runs/train either"),
    ],
)
def test_wrong_usage_is_one_sentence_and_leaves_nothing_behind(
    arguments: list[str], code: int, expected: str, discs: Path
) -> None:
    before = sorted(discs.rglob("*"))
    result = etnet("train", *arguments)
    assert (result.exit_code, expected in sentence_of(result)) == (code, True), result.stderr
    assert sorted(discs.rglob("*")) == before
    assert not list(Path().glob("runs/train/*"))


def test_resuming_with_another_recipe_names_the_keys(discs: Path) -> None:
    etnet("train", "--recipe", "folder", "--data", discs, *SETTINGS, "--epochs", "1", "--output", "run")
    result = etnet("train", "--resume", "--output", "run", "--set", "loss.alpha=0.5")
    assert result.exit_code == 2
    assert "run was started with other values of loss.alpha;" in sentence_of(result)


def test_resume_or_start_is_a_command_that_can_be_given_again(discs: Path) -> None:
    command = ["train", "--recipe", "folder", "--data", discs, *SETTINGS, "--output", "run", "--resume-or-start"]
    run = Path("run")
    run.mkdir()
    assert etnet(*command, "--epochs", "1").exit_code == 0
    assert "continuing" in etnet(*command, "--epochs", "2").stderr
    assert read_weights_info(run / "weights/last.safetensors").epoch == 2
    other = etnet(*command, "--epochs", "2", "--set", "loss.alpha=0.5")
    assert "run was started with other values of loss.alpha;" in sentence_of(other)
    # What a process leaves that was killed before its first checkpoint.
    shutil.rmtree(run / "weights")
    result = etnet(*command, "--epochs", "1")
    assert "continuing" not in result.stderr
    assert "Results: run" in result.stdout
    assert read_weights_info(run / "weights/last.safetensors").epoch == 1


def test_an_unknown_option_or_command_names_the_nearest() -> None:
    assert "--epochs" in etnet("train", "--epoch", "3").stderr
    assert "Did you mean train?" in etnet("trian").stderr


def test_ctrl_c_saves_the_run_and_says_how_to_continue(discs: Path) -> None:
    command = [sys.executable, "-m", "etnet", "train", "--recipe", "folder", "--data", discs, "--output", "run"]
    process = subprocess.Popen(
        [*command, *SETTINGS, "--epochs", "100000", "--set", "training.save_every=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    last = Path("run/weights/last.safetensors")
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, stderr
    assert "Next: etnet train --resume --output run" in stdout
    assert "Traceback" not in stderr
    assert read_weights_info(last).iteration > 0
    assert not list(Path("run").rglob("*.part"))


def test_the_folds_of_a_recipe_hold_out_every_image_once(discs: Path) -> None:
    held: list[str] = []
    for number in (1, 2):
        words = ("--fold", f"{number}/2", "--epochs", "1", *SETTINGS_WITHOUT_FRACTION)
        result = etnet("train", "--recipe", "folder", "--data", discs, *words)
        assert result.exit_code == 0, result.stderr
        assert f"4 training images, 4 held out as fold {number}/2" in result.stderr
        split = json.loads(Path(f"runs/train/folder-fold-{number}-of-2/split.json").read_text())
        assert split["fold"] == {"held_out": f"{number}/2", "seed": 0, "cut_by": "image"}
        assert not set(split["training"]) & set(split["validation"])
        held += split["validation"]
    assert sorted(held) == [f"disc_{index}" for index in range(8)]


def test_the_fold_of_a_run_is_what_evaluate_scores(discs: Path) -> None:
    words = ("--fold", "2/4", "--epochs", "1", "--output", "run", *SETTINGS_WITHOUT_FRACTION)
    etnet("train", "--recipe", "folder", "--data", discs, *words)
    held = json.loads(Path("run/split.json").read_text())["validation"]
    (discs / "mine.yaml").write_text("data: {crop_size: 32, validation_fraction: 0.5}")
    for name, recipe in (("own", ()), ("another", ("--recipe", discs / "mine.yaml"))):
        scored = etnet("evaluate", "run", "--data", discs, "--split", "validation", "--output", name, *recipe)
        assert scored.exit_code == 0, scored.stderr
        lines = Path(name, "per_image.csv").read_text().splitlines()[1:]
        assert sorted(line.split(",")[0] for line in lines) == sorted(held)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--fold", "1/5", "--set", "data.validation_fraction=0.5"), "fold 1/5 holds out 0.2 of the training images"),
        (("--fold", "1/5", "--set", "data.validation_fraction=0"), "validation_fraction is 0; leave one of the two"),
        (("--fold", "6/5"), "--fold 6/5: expected k/n"),
        (("--patience", "3", "--set", "data.validation_fraction=0"), "early stopping needs held-out images"),
    ],
)
def test_a_fold_or_a_patience_that_contradicts_is_one_sentence(
    words: tuple[str, ...], expected: str, discs: Path
) -> None:
    result = etnet("train", "--recipe", "folder", "--data", discs, *words, *SETTINGS_WITHOUT_FRACTION)
    assert result.exit_code == 2
    assert expected in sentence_of(result)
    assert not list(Path().glob("runs/train/*"))


def test_another_fold_does_not_continue_a_run(discs: Path) -> None:
    words = ("--fold", "1/2", "--epochs", "1", "--output", "run", *SETTINGS_WITHOUT_FRACTION)
    etnet("train", "--recipe", "folder", "--data", discs, *words)
    assert "other values of data.fold;" in sentence_of(etnet("train", "--resume", "--output", "run", "--fold", "2/2"))
    assert etnet("train", "--resume", "--output", "run", "--fold", "1/2", "--epochs", "2").exit_code == 0


def test_a_run_that_stops_early_says_so_and_resumes_with_more_patience(
    discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = FixedScores(0.5).row() | {"validation_mean_iou": 0.4, "validation_accuracy": 0.9}
    monkeypatch.setattr(FixedScores, "row", lambda _: row)
    monkeypatch.setattr("etnet.training.trainer.validate", lambda *_, **__: FixedScores(0.5))
    result = etnet("train", "--recipe", "folder", "--data", discs, "--output", "run", "--patience", "2", *SETTINGS)
    assert result.exit_code == 0, result.stderr
    said = "Stopped early after iteration 9 of 12: the score on the held-out images has not risen since epoch 1."
    assert said in result.stderr
    assert "Next: etnet evaluate run" in result.stdout
    result = etnet("train", "--resume", "--output", "run", "--patience", "9")
    assert result.exit_code == 0, result.stderr
    assert "Stopped early" not in result.stderr
    assert read_weights_info(Path("run/weights/last.safetensors")).iteration == 12
