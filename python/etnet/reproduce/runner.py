"""Works off the runs of a plan, one process each: what is there is reused, what was interrupted goes on."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from etnet.errors import (
    CheckFailed,
    DataError,
    EnvironmentFault,
    EtnetError,
    ModelFileError,
    SomeFilesFailed,
    UsageError,
)
from etnet.output import disk_faults, write_json
from etnet.reproduce import worker
from etnet.reproduce.job import Job
from etnet.reproduce.plan import Plan, Run
from etnet.reproduce.tables import LOCALIZER
from etnet.training.interruption import StopRequest, catch_stop_signals
from etnet.training.tracking import Observer

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_FOR_LAST_WORDS = 5.0


class Display(Protocol):
    """What a caller is shown while a plan is worked off."""

    def on_run(self, run: Run, *, number: int, total: int) -> AbstractContextManager[Observer]:
        """A run begins, the `number`-th of `total` that are missing; what is told about it ends with the block."""

    def on_failure(self, run: Run, error: str) -> None:
        """A run failed; the others go on."""


Executor = Callable[[Job, Observer, StopRequest], bool]
"""Does a job and says whether it was finished; raises `EtnetError` when it failed."""


@dataclass
class Progress:
    """How working off a plan ended.

    Attributes:
        reused: Runs that were complete before.
        finished: Runs completed now.
        failures: Error per run that failed now.
        signal_number: The signal that stopped the work, or None.
    """

    reused: list[Run] = field(default_factory=list)
    finished: list[Run] = field(default_factory=list)
    failures: dict[str, EtnetError] = field(default_factory=dict)
    signal_number: int | None = None


def work_off(plan: Plan, *, display: Display, executor: Executor | None = None) -> Progress:
    """Train and score every wanted run that is not complete; a run that fails leaves the others alone.

    Args:
        plan: What to have.
        display: Told about progress.
        executor: Does one job; by default in a process of its own.

    Raises:
        UsageError: Another process works in the same output folder.
        EnvironmentFault: The output folder cannot be written.
    """
    progress = Progress()
    with only_writer(plan.request.output), catch_stop_signals() as stop:
        missing = [run for run in plan.wanted_runs if _is_missing(run)]
        progress.reused = [run for run in plan.wanted_runs if run not in missing]
        for number, run in enumerate(missing, start=1):
            try:
                with display.on_run(run, number=number, total=len(missing)) as observer:
                    finished = (executor or run_in_child)(run.job, observer, stop)
            except EtnetError as error:
                progress.failures[run.title] = error
                _make_folder(run.job)
                write_json(run.job.failure_file, {"error": str(error)})
                display.on_failure(run, str(error))
            else:
                if finished:
                    progress.finished.append(run)
            if stop:
                break
        progress.signal_number = stop.signal_number
    return progress


def _is_missing(run: Run) -> bool:
    """Whether there is work: no scores, or a localizer whose weights the methods could not be scored with.

    What is scored with a localizer that has work is looked at again after it, since its weights may change.
    """
    if run.job.scores() is None or (run.method == LOCALIZER and run.job.damage() is not None):
        return True
    return run.localizer is not None and _is_missing(run.localizer)


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Hold the output folder; the lock goes with the process, however it ends.

    Raises:
        UsageError: Another process holds it.
        EnvironmentFault: The folder cannot be made.
    """
    with disk_faults(output):
        output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{output}: another etnet reproduce is working here; wait for it or name another --output"
        ) from None
    try:
        yield
    finally:
        lock.release()


def run_in_child(job: Job, observer: Observer, stop: StopRequest) -> bool:
    """Do a job in a process of its own.

    Args:
        job: What to do.
        observer: Told what the process reports.
        stop: Once set, the process saves its state and ends.

    Returns:
        Whether the job was finished.

    Raises:
        EtnetError: The process failed; the class and the sentence are those of its error.
        EnvironmentFault: The process died; the sentence says how.
    """
    _make_folder(job)
    log = job.folder / "worker.log"
    with disk_faults(log):
        errors = log.open("w", encoding="utf-8")
    with errors, _started(job, errors) as process:
        end = _follow(process, observer, stop)
    if end is not None and end["event"] == "failed":
        raise _error_class(end["error_class"])(end["error"])
    if end is not None and end["finished"]:
        return True
    if stop:
        return False
    if end is not None:
        raise EnvironmentFault(f"{job.folder}: the training process was told to stop by another one; start again")
    raise EnvironmentFault(_how_it_died(process.returncode, log))


def _error_class(name: str) -> type[EtnetError]:
    known = (UsageError, DataError, ModelFileError, EnvironmentFault, CheckFailed, SomeFilesFailed)
    return next((cls for cls in known if cls.__name__ == name), EtnetError)


def _make_folder(job: Job) -> None:
    with disk_faults(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _started(job: Job, errors: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        worker.command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        # Ctrl-C on the terminal reaches this process alone, which then stops the other in order.
        start_new_session=True,
        # Files of the working directory must not pass for modules.
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    if process.stdin is None:
        raise AssertionError("the process was started with a pipe")
    try:
        # Where it died before it read its job, its exit status says why.
        with suppress(BrokenPipeError):
            process.stdin.write(job.to_json() + "\n")
            process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                # Closing tries again to write what the process did not read.
                with suppress(BrokenPipeError):
                    stream.close()


def _follow(process: subprocess.Popen[str], observer: Observer, stop: StopRequest) -> dict[str, Any] | None:
    """Pass events on until the process ends; returns its last word, if it came to one."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_collect, args=(process.stdout, lines), daemon=True)
    reader.start()
    asked_to_stop, end = False, None
    while True:
        ended = process.poll() is not None
        if stop and not asked_to_stop and process.stdin is not None:
            asked_to_stop = True
            process.stdin.close()
        try:
            event = json.loads(lines.get(timeout=SECONDS_BETWEEN_LOOKS))
        except queue.Empty:
            if ended:
                # On a busy machine its last word may still be in the pipe.
                reader.join(timeout=SECONDS_FOR_LAST_WORDS)
                if lines.empty():
                    return end
            continue
        if event["event"] in ("end", "failed"):
            end = event
        else:
            _tell(observer, event)


def _collect(stream: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)


def _tell(observer: Observer, event: dict[str, Any]) -> None:
    kind = event.pop("event")
    if kind == "message":
        observer.on_message(event["text"])
    elif kind == "start":
        observer.on_start(**event)
    elif kind == "step":
        observer.on_step(**event)
    else:
        observer.on_epoch(event["row"])


def _how_it_died(code: int, log: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = "most likely for lack of memory; lower training.batch_size" if name == "SIGKILL" else f"see {log}"
        return f"the training process was ended by {name}, {hint}"
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else "without a word"
    return f"the training process ended with code {code} ({reason}); see {log}"
