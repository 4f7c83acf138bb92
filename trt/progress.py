"""What a build tells while it runs, collected from the library's callbacks; and how it is stopped.

The bindings swallow exceptions that Python raises inside a callback. So callbacks only note things, the build is
stopped by the monitor's return value, and what went wrong is raised after the build has returned.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

from etnet.trt.library import Library


class BuildObserver(Protocol):
    """Receives the progress of a build, possibly from another thread."""

    def phase_started(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps began, inside the phase `parent` or on its own."""

    def step_done(self, name: str, step: int) -> None:
        """Step `step` (counted from 0) of a phase is done."""

    def phase_finished(self, name: str) -> None:
        """A phase is over."""


class SilentObserver:
    """Shows nothing."""

    def phase_started(self, name: str, parent: str | None, steps: int) -> None:
        """Ignore it."""

    def step_done(self, name: str, step: int) -> None:
        """Ignore it."""

    def phase_finished(self, name: str) -> None:
        """Ignore it."""


@dataclass
class BuildState:
    """What callbacks and the waiting thread share.

    Attributes:
        observer: Who is told.
        stop: Set to end the build at its next step.
        errors: Errors that the library logged.
        warnings: Warnings that it logged.
        failure: First exception of the observer.
    """

    observer: BuildObserver
    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failure: BaseException | None = None

    def tell(self, method: str, *arguments: Any) -> None:
        """Call the observer; its exception stops the build and is kept for later."""
        try:
            getattr(self.observer, method)(*arguments)
        except BaseException as error:
            self.failure = self.failure or error
            self.stop.set()


def make_logger(library: Library, state: BuildState) -> Any:
    """A logger of the library that keeps errors and warnings."""
    base: Any = library.module.ILogger

    class Collector(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                state.errors.append(message)
            elif severity.name == "WARNING":
                state.warnings.append(message)

    return Collector()


def make_monitor(library: Library, state: BuildState) -> Any | None:
    """A progress monitor of the library, or None where it has none (TensorRT 8)."""
    base: Any = getattr(library.module, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            state.tell("phase_started", phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            state.tell("step_done", phase_name, step)
            return not state.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            state.tell("phase_finished", phase_name)

    return Monitor()
