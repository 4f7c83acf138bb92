from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from etnet.cli.main import main
from etnet.errors import CheckFailed, DataError, EnvironmentFault, EtnetError, ModelFileError
from etnet.manifest import read_weights_info
from etnet.reproduce import runner
from etnet.reproduce.job import Job
from etnet.reproduce.profiles import BANNERS
from etnet.reproduce.work import carry_out
from etnet.training.interruption import StopRequest
from etnet.training.tracking import Observer
from helpers.reproduce import TINY, write_drive_of_discs

SETTINGS = [word for override in TINY for word in ("--set", override)]
FAST = [*SETTINGS, "--epochs", "1", "--seeds", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_drive_of_discs(tmp_path / "data" / "DRIVE")
    return tmp_path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are trained here; `tests/reproduce/test_runner.py` starts processes."""

    def execute(job: Job, observer: Observer, stop: StopRequest) -> bool:
        return carry_out(job, observer)

    monkeypatch.setattr(runner, "run_in_child", execute)


def etnet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)])


def reproduce(*arguments: str) -> Result:
    return etnet("table2", "--data-root", "data", "--only", "drive", *arguments)


def test_a_table_ends_with_ours_beside_the_papers(in_process: None) -> None:
    result = reproduce("--methods", "etnet", *FAST)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    row = next(index for index, line in enumerate(lines) if "ET-Net" in line)
    assert lines[row].count(".") >= 2
    assert "95.60 (" in lines[row + 2]
    assert "77.44 (" in lines[row + 2]
    assert "[1/1] ET-Net on DRIVE, seed 0" in result.stderr
    assert "1 run trained and scored, 0 reused, 0 failed" in result.stderr
    assert lines[-2] == "Results: runs/reproduce/table2"
    assert lines[-1].startswith("Next: etnet infer YOUR_IMAGES --model runs/reproduce/runs/drive-etnet-seed0-")
    assert {"DRIVE", "MC", "LUNA"} & {line.strip() for line in lines} == {"DRIVE"}
    assert "## LUNA" in Path("runs/reproduce/table2/table.md").read_text("utf-8")
    for name in ("table.md", "table.csv", "table.json", "pictures/drive.png"):
        assert Path("runs/reproduce/table2", name).stat().st_size > 0
    again = reproduce("--methods", "etnet", *FAST)
    assert "0 runs trained and scored, 1 reused, 0 failed" in again.stderr


def test_json_is_the_table_and_nothing_else(in_process: None) -> None:
    result = reproduce("--methods", "etnet", "--json", *FAST)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(Path("runs/reproduce/table2/table.json").read_text("utf-8"))
    assert "Results: runs/reproduce/table2" in result.stderr


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(in_process: None) -> None:
    result = reproduce("--seeds", "2", "--epochs", "8", "--dry-run", *SETTINGS)
    assert result.exit_code == 0, result.stderr
    assert "10 runs of 10 to do" in result.stdout
    *lines, last = result.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert last.startswith("Next: etnet reproduce table2 --data-root data --only drive --seeds 2")
    assert not Path("runs").exists()
    values = json.loads(reproduce("--methods", "etnet", *FAST, "--dry-run", "--json").stdout)
    assert [(run["method"], run["state"], run["iterations_missing"]) for run in values["runs"]] == [
        ("etnet", "to train", 2)
    ]
    reproduce("--methods", "etnet", *FAST)
    values = json.loads(reproduce("--methods", "etnet", *FAST, "--dry-run", "--json").stdout)
    assert (values["runs"][0]["state"], values["iterations_missing"]) == ("done", 0)


def test_data_that_are_not_all_there_are_never_silently_beside_the_paper(in_process: None) -> None:
    sentences = [f"holds {held} of the 20 pairs of DRIVE for {use}" for held, use in ((4, "training"), (3, "testing"))]
    dry = reproduce("--methods", "etnet", *FAST, "--dry-run")
    dry_json = reproduce("--methods", "etnet", *FAST, "--dry-run", "--json").stdout
    result = reproduce("--methods", "etnet", *FAST)
    folder = Path("runs/reproduce/table2")
    part = (folder / "table.md").read_text("utf-8").partition("## DRIVE\n")[2].partition("\n## ")[0]
    content = json.loads((folder / "table.json").read_text("utf-8"))
    for number, sentence in enumerate(sentences):
        assert f"Warning: data/DRIVE: {sentence}" in dry.stderr
        assert f"Warning: data/DRIVE: {sentence}" in result.stderr
        assert sentence in " ".join(result.stdout.split())
        assert f"> **Warning: data/DRIVE: {sentence}" in part
        assert sentence in content["incomplete_data"]["drive"][number]
        assert sentence in json.loads(dry_json)["incomplete_data"]["drive"][number]


def test_a_failed_run_is_in_the_table_and_in_the_exit_code(monkeypatch: pytest.MonkeyPatch, in_process: None) -> None:
    result = reproduce("--methods", "unet,etnet", *FAST, "--set", "data.crop_size=48")
    # U-Net needs multiples of 32: that is known before anything is trained.
    assert result.exit_code == 2
    assert "unet needs a multiple of 32" in result.stderr

    def fails(job: Job, observer: Observer, stop: StopRequest) -> bool:
        if job.recipe.model.name == "unet":
            raise CheckFailed("the loss is nan")
        return carry_out(job, observer)

    monkeypatch.setattr(runner, "run_in_child", fails)
    result = reproduce("--methods", "unet,etnet", *FAST)
    assert result.exit_code == 6
    assert "1 run trained and scored, 0 reused, 1 failed" in result.stderr
    assert "Error: 1 run of the table failed" in result.stderr
    assert "the loss is nan" in Path("runs/reproduce/table2/table.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("errors", "code", "following"),
    [
        ((EnvironmentFault("disk full"), EnvironmentFault("disk full")), 4, "etnet reproduce table2 --data-root data "),
        ((EnvironmentFault("disk full"), CheckFailed("the loss is nan")), 6, "etnet reproduce table2 "),
        ((CheckFailed("the loss is nan"), DataError("no such image")), 6, "etnet data check data"),
        ((ModelFileError("cut off"), CheckFailed("the loss is nan")), 6, "etnet reproduce table2 "),
    ],
)
def test_what_failed_decides_the_exit_code_and_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, errors: tuple[EtnetError, EtnetError], code: int, following: str
) -> None:
    def fails(job: Job, observer: Observer, stop: StopRequest) -> bool:
        raise errors[job.recipe.model.name == "etnet"]

    monkeypatch.setattr(runner, "run_in_child", fails)
    result = reproduce("--methods", "unet,etnet", *FAST)
    assert result.exit_code == code, result.stderr
    assert result.stderr.rstrip().endswith("free space, then repeat the command") is (code == 4)
    assert f"Next: {following}" in result.stdout


def test_a_quick_table_cannot_be_mistaken_for_a_reproduction(in_process: None) -> None:
    result = reproduce("--quick", "--methods", "etnet", *SETTINGS, "--epochs", "1", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert " ".join(result.stdout.split()).count(BANNERS["quick"]) == 1
    assert "Results: runs/reproduce/table2-quick\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["table4", "--data-root", "data"], 2, "table4"),
        (["table2"], 2, "--data-root"),
        (["table2", "--data-root", "nowhere"], 3, "nowhere: no such folder"),
        (["table2", "--data-root", "data", "--only", "montgomery"], 3, "holds no folder of MC"),
        (["table2", "--data-root", "data", "--only", "drishti_gs"], 2, "this table has drive, montgomery, lung_ct"),
        (["table3", "--data-root", "data"], 3, "holds no folder of Drishti-GS"),
        (
            ["table1", "--data-root", "data", "--methods", "posal"],
            2,
            "this table has fcn, unet, mnet, multi_task, etnet",
        ),
        (["table2", "--data-root", "data", "--quick", "--small"], 2, "choose one"),
        (["table2", "--data-root", "data", "--set", "model.name=fcn"], 2, "model.name is chosen by --methods"),
        (["table2", "--data-root", "data", "--set", "model.encodr=x"], 2, "did you mean model.encoder?"),
        (["table2", "--data-root", "data", "--device", "tpu", "--only", "drive"], 2, "tpu"),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(arguments: list[str], code: int, expected: str) -> None:
    result = etnet(*arguments)
    assert result.exit_code == code, result.output
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists()


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """Python's own handler of SIGINT, which is not there where the tests run in the background of a shell."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("moment", ["etnet.reproduce.plan.look_at", "etnet.reproduce.results.collect"])
def test_ctrl_c_outside_of_training_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, in_process: None, heeding_ctrl_c: None, moment: str
) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(moment, interrupted)
    result = reproduce("--methods", "etnet", *FAST)
    assert result.exit_code == 128 + signal.SIGINT
    assert result.stderr.splitlines()[-1].startswith("Stopped; what was saved before stays")
    assert "Aborted" not in result.output


def test_ctrl_c_saves_and_the_same_command_goes_on(working_folder: Path) -> None:
    words = [
        "table2",
        "--data-root",
        "data",
        "--only",
        "drive",
        "--methods",
        "etnet",
        "--seeds",
        "1",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "etnet", "reproduce", *words, *SETTINGS, "--epochs", "100000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def saved() -> list[Path]:
        return list(Path("runs/reproduce/runs").glob("*/train/weights/last.safetensors"))

    deadline = time.monotonic() + 180
    while not saved() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, stderr
    assert "Traceback" not in stderr
    assert "the same command goes on from here" in stderr
    assert "Next: etnet reproduce table2 --data-root data --only drive --methods etnet --seeds 1" in stdout
    (last,) = saved()
    assert read_weights_info(last).iteration > 0
    values = json.loads(etnet(*words, *SETTINGS, "--epochs", "100000", "--dry-run", "--json").stdout)
    assert values["runs"][0]["state"] == f"to continue from {read_weights_info(last).iteration}"
