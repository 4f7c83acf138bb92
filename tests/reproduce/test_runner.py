from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from etnet.data.findings import PartMissing
from etnet.errors import CheckFailed, DataError, EnvironmentFault, EtnetError, ModelFileError, UsageError
from etnet.manifest import read_weights_info
from etnet.reproduce import runner, worker
from etnet.reproduce.job import Job
from etnet.reproduce.plan import Plan
from etnet.reproduce.runner import Progress, only_writer, run_in_child, work_off
from etnet.reproduce.work import carry_out
from etnet.training.interruption import StopRequest
from etnet.training.tracking import Observer, SilentObserver
from helpers.reproduce import RecordingDisplay, tiny_plan, write_drishti_of_discs, write_drive_of_discs


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_drive_of_discs(root / "DRIVE")
    return root


def in_process(job: Job, observer: Observer, stop: StopRequest) -> bool:
    return carry_out(job, observer)


def done(plan: Plan, display: RecordingDisplay | None = None, executor=in_process) -> Progress:
    return work_off(plan, display=display or RecordingDisplay(), executor=executor)


def written(folder: Path) -> dict[str, int]:
    """Files of a folder and when they were written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class StopAt(SilentObserver):
    """Sends this process a signal after some steps."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_step(self, *, iteration: int, **rest: float) -> None:
        if iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)


def test_what_is_complete_is_reused(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path)
    first = done(plan)
    assert ([run.title for run in first.finished], first.reused) == (["ET-Net on DRIVE, seed 0"], [])
    files = written(tmp_path / "runs")
    display = RecordingDisplay()
    second = done(tiny_plan(data_root, tmp_path), display)
    assert ([run.title for run in second.reused], second.finished) == (["ET-Net on DRIVE, seed 0"], [])
    assert display.begun == []
    assert written(tmp_path / "runs") == files


def test_scores_made_otherwise_are_made_again_from_the_same_weights(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path)
    done(plan)
    job = plan.wanted_runs[0].job
    before, weights = job.scores_file.read_text("utf-8"), job.last.stat().st_mtime_ns
    job.scores_file.write_text(json.dumps(json.loads(before) | {"format": 0}), "utf-8")
    assert [run.title for run in done(plan).finished] == ["ET-Net on DRIVE, seed 0"]
    assert job.scores_file.read_text("utf-8") == before
    assert job.last.stat().st_mtime_ns == weights


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(data_root: Path, tmp_path: Path) -> None:
    whole, parts = (tiny_plan(data_root, tmp_path / name, epochs=4) for name in ("whole", "parts"))
    done(whole)
    job = parts.wanted_runs[0].job
    assert carry_out(job, StopAt(3)) is False
    assert (job.iterations_done(), job.trained(), job.scores()) == (3, None, None)
    assert [run.title for run in done(parts).finished] == ["ET-Net on DRIVE, seed 0"]
    assert job.iterations_done() == 8
    assert job.scores() == whole.wanted_runs[0].job.scores()


def test_a_run_that_was_killed_before_its_first_state_starts_anew(data_root: Path, tmp_path: Path) -> None:
    job = tiny_plan(data_root, tmp_path).wanted_runs[0].job
    (job.train_folder / "weights").mkdir(parents=True)
    (job.train_folder / "metrics.csv").write_text("half")
    assert carry_out(job, SilentObserver())
    assert job.scores() is not None


def test_a_run_that_was_killed_between_training_and_scoring_is_only_scored(data_root: Path, tmp_path: Path) -> None:
    job = tiny_plan(data_root, tmp_path).wanted_runs[0].job
    carry_out(job, SilentObserver())
    weights = job.last.stat().st_mtime_ns
    for path in (job.trained_file, job.scores_file):
        path.unlink()
    assert carry_out(job, SilentObserver())
    assert job.last.stat().st_mtime_ns == weights
    assert job.scores() is not None
    assert job.trained()["iterations"] == read_weights_info(job.last).iteration == 4


def test_a_run_whose_weights_were_removed_is_trained_to_its_end_and_scored_anew(
    data_root: Path, tmp_path: Path
) -> None:
    job = tiny_plan(data_root, tmp_path, epochs=4).wanted_runs[0].job
    carry_out(job, SilentObserver())
    scores = job.scores_file.read_text("utf-8")
    job.scores_file.write_text(json.dumps(json.loads(scores) | {"images": []}), "utf-8")
    shutil.rmtree(job.train_folder)
    assert carry_out(job, StopAt(3)) is False
    assert (job.iterations_done(), job.trained(), job.scores()) == (3, None, None)
    assert carry_out(job, SilentObserver())
    assert job.iterations_done() == 8
    assert job.scores_file.read_text("utf-8") == scores


@pytest.mark.parametrize("scored", [True, False], ids=["trained", "interrupted"])
def test_a_damaged_training_is_set_aside_and_made_again(data_root: Path, tmp_path: Path, scored: bool) -> None:
    job = tiny_plan(data_root, tmp_path).wanted_runs[0].job
    told: list[str] = []

    class Listening(SilentObserver):
        def on_message(self, text: str) -> None:
            told.append(text)

    def cut_off() -> None:
        job.last.write_bytes(job.last.read_bytes()[:1000])
        job.scores_file.unlink()
        if not scored:
            job.trained_file.unlink()

    carry_out(job, SilentObserver())
    scores = job.scores()
    for name in ("train.damaged", "train.damaged-2"):
        cut_off()
        told.clear()
        assert carry_out(job, Listening())
        assert job.scores() == scores
        assert (job.folder / name / "weights/last.safetensors").stat().st_size == 1000
        (sentence,) = [text for text in told if "set aside" in text]
        assert sentence.endswith(f"the training is set aside as {job.folder / name} and begins anew")
    told.clear()
    assert carry_out(job, Listening())
    assert told == []


def test_a_damaged_localizer_is_trained_again_although_it_was_scored(tmp_path: Path) -> None:
    write_drishti_of_discs(tmp_path / "data" / "Drishti-GS")
    options = {"table": "table3", "datasets": ("drishti_gs",), "methods": ("base",)}
    plan = tiny_plan(
        tmp_path / "data", tmp_path / "out", overrides=("data.roi.size=32", "data.roi.side=0.3"), **options
    )
    done(plan)
    localizer, base = plan.wanted_runs
    localizer.job.last.write_bytes(b"cut off")
    base.job.scores_file.unlink()
    progress = done(plan)
    assert (progress.finished, progress.failures) == ([localizer, base], {})


def test_a_run_that_fails_leaves_the_others_alone_and_is_tried_again(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, methods=("fcn", "etnet"))

    def failing(job: Job, observer: Observer, stop: StopRequest) -> bool:
        if job.recipe.model.name == "fcn":
            raise CheckFailed("the loss is nan")
        return carry_out(job, observer)

    display = RecordingDisplay()
    progress = done(plan, display, failing)
    assert display.failed == {"FCN on DRIVE, seed 0": "the loss is nan"}
    assert {title: type(error) for title, error in progress.failures.items()} == {"FCN on DRIVE, seed 0": CheckFailed}
    assert display.begun == ["1/2 FCN on DRIVE, seed 0", "2/2 ET-Net on DRIVE, seed 0"]
    assert [run.title for run in progress.finished] == ["ET-Net on DRIVE, seed 0"]
    assert plan.wanted_runs[0].job.failure() == "the loss is nan"
    again = done(plan)
    assert [run.title for run in again.finished] == ["FCN on DRIVE, seed 0"]
    assert plan.wanted_runs[0].job.failure() is None


def test_a_stop_also_ends_the_work_where_the_run_that_it_met_fails(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, methods=("fcn", "etnet"))

    def stopped(job: Job, observer: Observer, stop: StopRequest) -> bool:
        stop.signal_number = signal.SIGINT
        raise CheckFailed("the loss is nan")

    display = RecordingDisplay()
    progress = done(plan, display, stopped)
    assert display.begun == ["1/2 FCN on DRIVE, seed 0"]
    assert progress.signal_number == signal.SIGINT


def test_only_one_process_works_in_an_output_folder(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path)
    expected = "another etnet reproduce is working here; wait for it or name"
    with only_writer(tmp_path), pytest.raises(UsageError, match=expected):
        done(plan)
    assert done(plan).finished


def test_a_process_of_its_own_gives_the_same_result(data_root: Path, tmp_path: Path) -> None:
    inside, outside = (tiny_plan(data_root, tmp_path / name).wanted_runs[0].job for name in ("inside", "outside"))
    carry_out(inside, SilentObserver())
    told: list[str] = []

    class Listening(SilentObserver):
        def on_message(self, text: str) -> None:
            told.append(text)

        def on_step(self, *, iteration: int, **rest: float) -> None:
            told.append(f"step {iteration}")

    assert run_in_child(outside, Listening(), StopRequest())
    assert [text for text in told if text.startswith("step")] == ["step 1", "step 2", "step 3", "step 4"]
    assert any(text.startswith("Scoring the test images") for text in told)
    assert [image["id"] for image in outside.scores()["images"]] == [image["id"] for image in inside.scores()["images"]]
    assert not list(tmp_path.rglob("*.part"))


def test_an_error_of_the_process_comes_back_as_its_sentence(data_root: Path, tmp_path: Path) -> None:
    job = tiny_plan(data_root, tmp_path, overrides=("model.encoder=resnet19",)).wanted_runs[0].job
    job.folder.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"resnet19.*did you mean"):
        run_in_child(job, SilentObserver(), StopRequest())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PartMissing("no test half"), DataError),
        (ModelFileError("cut off"), ModelFileError),
        (CheckFailed("the loss is nan"), CheckFailed),
    ],
)
def test_an_error_of_the_process_keeps_its_class(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: EtnetError, expected: type[EtnetError]
) -> None:
    failed = json.dumps({"event": "failed", "error": str(error), "error_class": worker.class_name(error)})
    monkeypatch.setattr(worker, "command", lambda: [sys.executable, "-c", f"print({failed!r})"])
    with pytest.raises(EtnetError, match=str(error)) as raised:
        run_in_child(tiny_plan(data_root, tmp_path).wanted_runs[0].job, SilentObserver(), StopRequest())
    assert type(raised.value) is expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL, most likely for lack of memory"),
        (
            "import sys; sys.stdin.readline(); raise SystemExit('no such luck')",
            r"code 1 \(no such luck\); see .*worker.log",
        ),
        ("raise SystemExit(3)", r"code 3 \(without a word\)"),
    ],
)
def test_a_process_that_dies_is_a_sentence(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, expected: str
) -> None:
    monkeypatch.setattr(worker, "command", lambda: [sys.executable, "-c", program])
    with pytest.raises(EnvironmentFault, match=expected):
        run_in_child(tiny_plan(data_root, tmp_path).wanted_runs[0].job, SilentObserver(), StopRequest())


class DeadAtOnce(subprocess.Popen):
    """A process that has ended before anything is written to it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wait()


def test_a_process_that_died_before_its_job_was_written_is_a_sentence(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.subprocess, "Popen", DeadAtOnce)
    monkeypatch.setattr(worker, "command", lambda: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(EnvironmentFault, match="code 3"):
        run_in_child(tiny_plan(data_root, tmp_path).wanted_runs[0].job, SilentObserver(), StopRequest())


def test_the_last_word_of_a_process_that_has_ended_is_heard(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.subprocess, "Popen", DeadAtOnce)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.0)
    end = json.dumps({"event": "end", "finished": True})
    monkeypatch.setattr(worker, "command", lambda: [sys.executable, "-c", f"print({end!r})"])
    assert run_in_child(tiny_plan(data_root, tmp_path).wanted_runs[0].job, SilentObserver(), StopRequest())


def test_a_display_whose_pipe_broke_says_so(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(SilentObserver):
        def on_message(self, text: str) -> None:
            raise BrokenPipeError

    message = json.dumps({"event": "message", "text": "hello"})
    program = f"import sys; sys.stdin.readline(); print({message!r}, flush=True); sys.stdin.read()"
    monkeypatch.setattr(worker, "command", lambda: [sys.executable, "-c", program])
    with pytest.raises(BrokenPipeError):
        run_in_child(tiny_plan(data_root, tmp_path).wanted_runs[0].job, Broken(), StopRequest())


def test_a_stop_request_ends_the_process_in_order(data_root: Path, tmp_path: Path) -> None:
    job = tiny_plan(data_root, tmp_path, epochs=100000).wanted_runs[0].job
    stop = StopRequest()

    class StopAfterTwo(SilentObserver):
        def on_step(self, *, iteration: int, **rest: float) -> None:
            if iteration == 2:
                stop.signal_number = signal.SIGINT

    assert run_in_child(job, StopAfterTwo(), stop) is False
    assert job.iterations_done() >= 2
    assert "Traceback" not in (job.folder / "worker.log").read_text("utf-8")


def test_a_worker_whose_starter_died_saves_and_ends(data_root: Path, tmp_path: Path) -> None:
    job = tiny_plan(data_root, tmp_path, epochs=100000).wanted_runs[0].job
    job.folder.mkdir(parents=True)
    process = subprocess.Popen(worker.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(job.to_json() + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if json.loads(line)["event"] == "step":
            break
    # What the kernel does to the pipe when the starter is killed.
    process.stdin.close()
    events = [json.loads(line) for line in process.stdout]
    assert process.wait(timeout=60) == 0
    assert events[-1] == {"event": "end", "finished": False}
    assert job.iterations_done() > 0
    process.stdout.close()
