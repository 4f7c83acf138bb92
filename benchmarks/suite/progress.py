"""Goes through the steps: skips what is done, bounds the rest in time, and keeps what happened."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

from suite.running import Ended, end_marked, new_mark, run_bounded
from suite.state import State, SuiteFault, digest, disk_faults, machine
from suite.steps import ROOT, UNFINISHED, Settings, Step, time_for
from suite.table import headline

COMPLETE = ("done", "left out")
"""Statuses after which nothing is missing that this machine could do."""

ALL = "all"
"""Stands for every part."""


class Stopped(BaseException):
    """A signal asks the suite to end, as Ctrl-C does."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a terminal that is gone, end the running step too."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    # nohup lets a process ignore SIGHUP, which is to stay so.
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heeded = [number for number, handler in former.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, former[number])


class Suite:
    """A folder of results that is being filled."""

    def __init__(self, settings: Settings, steps: Sequence[Step], state: State) -> None:
        self.settings, self.steps, self.state = settings, steps, state
        self._deadline = time.monotonic() + 60 * settings.minutes
        self._machine = machine()
        self._digests: dict[tuple[str, ...], str] = {}
        self._end_what_was_left()
        state.content |= {"settings": settings.to_dict(), "machine": self._machine}

    def run(self, *, again: Iterable[str] = ()) -> bool:
        """Go through the steps; whether all are complete.

        Args:
            again: Parts or steps that run although they are done; "all" for all.

        Raises:
            SuiteFault: The disk refuses.
        """
        again = set(again)
        waiting = list(self.steps)
        while waiting:
            step = waiting.pop(0)
            key = self.key(step)
            if step.left_out is not None:
                self._record(step, key, "left out", reason=step.left_out)
                continue
            if not self._will_run(step, again):
                print(f"{step.name}: done before", flush=True)
                continue
            left = self._deadline - time.monotonic()
            seconds = time_for(step, [other for other in waiting if self._will_run(other, again)], left)
            if seconds < step.least:
                reason = f"{max(left, 0):.0f} s of --minutes are left, and it takes about {step.expected:.0f} s"
                self._record(step, key, "no time", reason=reason)
                continue
            self._run(step, key, seconds)
        return all(self.state.steps[step.name]["status"] in COMPLETE for step in self.steps)

    def key(self, step: Step) -> str:
        """Changes with what a step's figures depend on: command, sources and machine."""
        if step.needs not in self._digests:
            self._digests[step.needs] = digest(step.needs)
        facts = [step.command, dict(step.environment), self._digests[step.needs], self._machine]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def _will_run(self, step: Step, again: set[str]) -> bool:
        done = self.state.is_done(step.name, self.key(step)) and self._result_is_there(step)
        return step.left_out is None and (not done or bool({step.name, step.part, ALL} & again))

    def _result_is_there(self, step: Step) -> bool:
        return not step.result or self._file(step).is_file()

    def _file(self, step: Step) -> Path:
        return self.settings.out / f"{step.name}.json"

    def _run(self, step: Step, key: str, seconds: float) -> None:
        print(f"{step.name}: at most {seconds:.0f} s", flush=True)
        if step.result and not step.goes_on:
            # What an older attempt left would pass for the result of this one.
            with disk_faults(self._file(step)):
                self._file(step).unlink(missing_ok=True)
        log = self.settings.out / "logs" / f"{step.name}.log"
        mark = new_mark()
        self.state.record(step.name, status="running", key=key, part=step.part, mark=mark, began=_now())
        variables = {**self.settings.environment(), **step.environment, "ETNET_SUITE_SECONDS": f"{seconds:.0f}"}
        begin = time.monotonic()
        with disk_faults(log):
            log.write_bytes(b"")
        try:
            ended = run_bounded(step.command, log, seconds=seconds, environment=variables, folder=ROOT, mark=mark)
        except (KeyboardInterrupt, Stopped):
            self._record(step, key, "interrupted", reason="stopped by its user", seconds=time.monotonic() - begin)
            raise
        except OSError as error:
            self._record(step, key, "failed", reason=f"{step.command[0]} could not be started ({error.strerror})")
            return
        status, reason = self._judge(step, ended, log)
        self._record(step, key, status, reason=reason, seconds=ended.seconds)

    def _judge(self, step: Step, ended: Ended, log: Path) -> tuple[str, str | None]:
        if ended.code == UNFINISHED:
            return "unfinished", _own_reason(self._file(step)) or "more time would complete it"
        if ended.cut_off:
            return "cut off", f"its time was over after {ended.seconds:.0f} s; see {log.name}"
        if ended.code != 0:
            how = f"exit code {ended.code}" if ended.code > 0 else _signal(-ended.code)
            return "failed", _own_reason(self._file(step)) or f"{how}: {_last_line(log)}"
        if not self._result_is_there(step):
            return "failed", f"it wrote no {step.name}.json; see {log.name}"
        return "done", None

    def _record(
        self, step: Step, key: str, status: str, *, reason: str | None = None, seconds: float | None = None
    ) -> None:
        text = headline(self._file(step)) if step.result and status != "left out" else ""
        took = None if seconds is None else round(seconds, 1)
        facts = {"status": status, "part": step.part, "key": key, "seconds": took, "ended": _now()}
        self.state.record(step.name, **facts, reason=reason, headline=text)
        print(f"{step.name}: {status}{f' ({reason})' if reason else ''}{f'; {text}' if text else ''}", flush=True)

    def _end_what_was_left(self) -> None:
        """A suite that was killed could not end its running step; nothing may compute beside what is measured now."""
        for name, record in self.state.steps.items():
            if record.get("status") == "running":
                count = end_marked(record["mark"]) if record.get("mark") else 0
                reason = "the suite ended in the middle of it"
                self.state.record(name, **{**record, "status": "interrupted", "reason": reason})
                if count:
                    print(f"{name}: {count} processes of the killed suite still ran, and were ended", flush=True)


def _own_reason(file: Path) -> str | None:
    """What a step says of itself in its result."""
    try:
        reason = json.loads(file.read_text("utf-8")).get("failed")
    except (OSError, ValueError, AttributeError):
        return None
    return str(reason) if reason else None


def _last_line(log: Path) -> str:
    try:
        lines = log.read_bytes()[-4000:].decode(errors="replace").splitlines()
    except OSError as error:
        raise SuiteFault(f"{log}: cannot be read ({error.strerror})") from error
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _signal(number: int) -> str:
    try:
        return f"ended by {signal.Signals(number).name}"
    except ValueError:
        return f"ended by signal {number}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
