"""Trainings that are killed: real processes of `etnet train`, started again until they end, and what is compared then.

A process of Python with torch needs seconds to start. `Forks` pays for that once: a process that has imported all and
computed nothing yet forks one child per training, which is as good to kill and starts at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import torch
from safetensors.torch import load_file

from etnet.manifest import METADATA_KEY, read_weights_info
from etnet.output import LEFTOVER

FORKING = """
import importlib.util, os, sys
import etnet.cli.main, etnet.training.trainer, etnet.training.trackers, etnet.inference.backends.torch_backend
import matplotlib.figure
if importlib.util.find_spec("tensorboard"):
    import torch.utils.tensorboard
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        sys.argv = ["etnet", *line.split()]
        try:
            code = etnet.cli.main.main(sys.argv[1:], standalone_mode=False) or 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            code = 1
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Training(Protocol):
    """A process that trains."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def wait(self) -> int:
        """The exit code, negative for a signal."""

    def ended(self) -> bool:
        """Whether the process is gone."""


class Processes:
    """Starts `python -m etnet`."""

    def start(self, *words: object) -> Training:
        """Start `etnet WORDS`."""
        process = subprocess.Popen([sys.executable, "-m", "etnet", *map(str, words)], stdout=subprocess.DEVNULL)
        process.ended = lambda: process.poll() is not None
        return process

    def close(self) -> None:
        """Nothing is left running."""


class Forks:
    """Forks `etnet` off a process that has everything imported."""

    def __init__(self) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, *words: object) -> Training:
        """Fork a child that runs `etnet WORDS`."""
        self._mother.stdin.write(" ".join(map(str, words)) + "\n")
        return _Fork(int(self._mother.stdout.readline()), self._mother)

    def close(self) -> None:
        """End the mother."""
        self._mother.stdin.close()
        self._mother.stdout.close()
        self._mother.wait(timeout=60)


@dataclass
class _Fork:
    number: int
    mother: subprocess.Popen[str]

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)

    def wait(self) -> int:
        return int(self.mother.stdout.readline())

    def ended(self) -> bool:
        # The mother waits for it, so that its number may be gone; /proc knows both.
        try:
            return Path(f"/proc/{self.number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True


def run_killed(
    start: Processes | Forks,
    begin: list[object],
    run: Path,
    *,
    kills: int,
    startup: float,
    span: float,
    epochs_between: int,
    seed: int,
) -> None:
    """Start a training, kill it at a random moment, resume it, and so on; then let it end.

    After every kill `last` is not there yet, and the run is begun anew as its message says, or loads whole.

    Args:
        start: Starts processes.
        begin: Words after `etnet` that begin the run in `run`.
        run: Its folder.
        kills: How many.
        startup: Seconds that a process needs to begin training.
        span: A kill comes up to so many seconds after that; every fourth in the middle of writing `last` or `best`.
        epochs_between: A kill comes at the latest after so many more epochs, so that the run cannot end before all.
        seed: Of the moments.
    """
    random = Random(seed)
    for number in range(kills):
        words = _words(begin, run)
        process = start.start(*words)
        if number % 4 == 3:
            kill_while_writing(process, run / "weights")
        else:
            latest, limit = (
                time.monotonic() + random.uniform(0.5 * startup, startup + span),
                _epochs(run) + epochs_between,
            )
            while time.monotonic() < latest and _epochs(run) < limit:
                time.sleep(0.002)
            process.kill()
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed as often as it should be"
        last = run / "weights" / "last.safetensors"
        if last.exists():
            assert read_weights_info(last).iteration > 0
            load_file(last)
    assert start.start(*_words(begin, run)).wait() == 0


def _epochs(run: Path) -> int:
    """Epochs in the table, also while it is being replaced."""
    try:
        return len((run / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def _words(begin: list[object], run: Path) -> list[object]:
    if (run / "weights" / "last.safetensors").exists():
        return ["train", "--resume", "--output", run]
    shutil.rmtree(run, ignore_errors=True)
    return begin


def kill_while_writing(process: Training, weights: Path) -> None:
    """Wait until a file is half written in `weights`, and kill the process in that moment."""
    old = {path.name for path in weights.glob(".*.part")}
    deadline = time.monotonic() + 120
    while not process.ended() and time.monotonic() < deadline:
        if any(path.name not in old and LEFTOVER.fullmatch(path.name) for path in weights.glob(".*.part")):
            break
    process.kill()


def assert_same_runs(one: Path, other: Path) -> None:
    """Weights, optimizer state, random state, headers and metrics are equal bit for bit; only speeds may differ."""
    for name in ("last", "best"):
        first, second = (load_file(run / "weights" / f"{name}.safetensors") for run in (one, other))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
        assert _header(one, name) == _header(other, name)
    for name in ("metrics.csv", "metrics.jsonl"):
        assert _timeless(one / name) == _timeless(other / name)
    assert (one / "recipe.yaml").read_bytes() == (other / "recipe.yaml").read_bytes()
    leftovers = [path for path in other.rglob("*") if LEFTOVER.fullmatch(path.name)]
    assert leftovers == []


def _header(run: Path, name: str) -> dict[str, object]:
    from safetensors import safe_open

    with safe_open(run / "weights" / f"{name}.safetensors", framework="numpy") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    header["training_state"].pop("seconds", None)
    return header


def _timeless(path: Path) -> list[object]:
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]
    table = [line.split(",") for line in path.read_text().splitlines()]
    column = table[0].index("images_per_second")
    return [row[:column] + row[column + 1 :] for row in table]
