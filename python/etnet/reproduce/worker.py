"""The process that trains and scores one network, so that a crash or lack of memory costs one cell and not the table.

It reads its job from a line on standard input and writes events as JSON lines to standard output. The open input is its
licence to run: when it closes, because the table is being stopped or its process died, the worker saves and ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from etnet.errors import EtnetError
from etnet.reproduce.job import Job


class EventWriter:
    """An observer that sends what it is told as JSON lines."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def send(self, kind: str, **values: object) -> None:
        """Write one event."""
        self._stream.write(json.dumps({"event": kind, **values}) + "\n")
        self._stream.flush()

    def on_message(self, text: str) -> None:
        """Send a sentence."""
        self.send("message", text=text)

    def on_start(self, *, done: int, total: int) -> None:
        """Send where the loop begins."""
        self.send("start", done=done, total=total)

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Send a step."""
        self.send(
            "step", iteration=iteration, loss=loss, learning_rate=learning_rate, images_per_second=images_per_second
        )

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Send an epoch."""
        self.send("epoch", row=dict(row))

    def on_stop(self, *, signal_number: int) -> None:
        """Send nothing: whether the work is finished stands in the last event."""


def main() -> None:
    """Work off the job on standard input."""
    # Whatever a library writes to standard output must not get between the events.
    events = EventWriter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    job = Job.from_json(sys.stdin.readline())
    threading.Thread(target=_stop_when_input_closes, daemon=True).start()
    try:
        # Below the watch on the input: importing torch takes seconds.
        from etnet.reproduce.work import carry_out

        events.send("end", finished=carry_out(job, events))
    except EtnetError as error:
        events.send("failed", error=str(error), error_class=class_name(error))


def class_name(error: EtnetError) -> str:
    """Name of the class in `etnet.errors` that an error belongs to."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == EtnetError.__module__)


def _stop_when_input_closes() -> None:
    # Not sys.stdin: a thread that holds its lock when the interpreter ends is a fatal error.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def command() -> list[str]:
    """The command line that starts a worker."""
    return [sys.executable, "-m", f"{__package__}.{Path(__file__).stem}"]


if __name__ == "__main__":
    main()
