"""A command that is bounded in time, and of which nothing is left running when it ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "ETNET_SUITE_STEP"
"""Variable in the environment of everything that a command starts: how processes outside of its group are found."""

POLL = 1.0
"""Seconds between two questions whether to give a command up."""

GRACE = 20.0
"""Seconds between asking a command to end, upon which a training saves its state, and ending it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code, negative for a signal.
        seconds: Wall-clock time.
        cut_off: Whether it was ended because its time was over.
        given_up: Whether it was ended because its caller gave it up.
    """

    code: int
    seconds: float
    cut_off: bool
    given_up: bool = False


def new_mark() -> str:
    """Tells the processes of one command from all others; that of an enclosing command is part of it."""
    return f"{os.environ.get(MARK, '')}/{uuid.uuid4().hex}"


def run_bounded(
    command: Sequence[str],
    log: Path,
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    mark: str | None = None,
    grace: float = GRACE,
    give_up: Callable[[], bool] | None = None,
) -> Ended:
    """Run a command in a process group of its own, and end all of it when its time is over or this process is stopped.

    Args:
        command: Words of the command.
        log: File that its output is appended to.
        seconds: Time that it has.
        environment: Variables beside those of this process.
        folder: Where it runs.
        mark: From `new_mark`, where the caller has to know it.
        grace: Seconds that it has to end by itself once it was asked to.
        give_up: Asked every second; True ends the command as the end of its time does.

    Raises:
        OSError: The command does not exist, or the log cannot be written.
    """
    mark = mark or new_mark()
    begin = time.monotonic()
    process: subprocess.Popen[bytes] | None = None
    cut_off = given_up = False
    try:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {}), MARK: mark},
                cwd=folder,
                start_new_session=True,
            )
        while process.poll() is None and not cut_off and not given_up:
            left = begin + seconds - time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(min(left, POLL if give_up else left), 0.0))
                break
            cut_off = time.monotonic() >= begin + seconds
            given_up = not cut_off and give_up is not None and give_up()
        if cut_off or given_up:
            _ask_to_end(process, grace)
    except BaseException:
        if process is not None:
            _ask_to_end(process, grace)
        raise
    finally:
        # A stop can come before the started process is known here: its mark is found all the same.
        if process is not None:
            _end_group(process)
        end_marked(mark)
    return Ended(process.returncode, time.monotonic() - begin, cut_off, given_up)


def _ask_to_end(process: subprocess.Popen[bytes], grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the group, which outlives its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_marked(mark: str) -> int:
    """End every process that bears a mark, and say how many there were; none are found where there is no /proc."""
    ended = set()
    # One that is ended in this round may have started another after the look.
    while found := _marked(mark) - ended:
        for number in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        ended |= found
        time.sleep(0.02)
    return len(ended)


def _marked(mark: str) -> set[int]:
    wanted, found = f"{MARK}={mark}".encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        # Processes of others cannot be read, and any can end meanwhile.
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.add(int(folder.name))
    return found
