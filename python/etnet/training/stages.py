"""The stages of a training step: ranges that cost nothing until someone records them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal, get_args

import torch
from torch.profiler import record_function

Stage = Literal["data wait", "copy to device", "forward", "loss", "backward", "optimizer"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_NOTHING: AbstractContextManager[None] = nullcontext()


class StageClock:
    """Adds up how long each stage of every step takes.

    On a CUDA device the times are those of the device: events in its stream, which neither wait for it nor make it
    wait. So a stage gets the time that the device spent on it or idle in it, and data that are read while the device
    still computes cost nothing, as they should. Elsewhere they are those of the clock on the wall.

    Args:
        device: Where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._device = device
        self._steps: list[tuple[Any, Any, list[tuple[Stage, Any, Any]]]] = []
        self._spans: list[tuple[Stage, Any, Any]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step, from waiting for its batch to its update."""
        self._spans = []
        begin = self._now()
        yield
        self._steps.append((begin, self._now(), self._spans))

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """A stage of the running step; a stage may come several times, but not within another."""
        if self._on_cuda:
            torch.cuda.nvtx.range_push(name)
        begin = self._now()
        try:
            with record_function(name):
                yield
        finally:
            self._spans.append((name, begin, self._now()))
            if self._on_cuda:
                torch.cuda.nvtx.range_pop()

    def milliseconds(self) -> list[dict[str, float]]:
        """For every step the time of each stage, and under `step` that of the whole."""
        if self._on_cuda:
            torch.cuda.synchronize(self._device)
        rows = []
        for begin, end, spans in self._steps:
            row: defaultdict[str, float] = defaultdict(float, step=self._between(begin, end))
            for name, first, last in spans:
                row[name] += self._between(first, last)
            rows.append(dict(row))
        return rows

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, first: Any, last: Any) -> float:
        return float(first.elapsed_time(last)) if self._on_cuda else 1000 * (last - first)


_clock: ContextVar[StageClock | None] = ContextVar("stage clock", default=None)


def stage(name: Stage) -> AbstractContextManager[None]:
    """The range of a stage: a range of the profiler and of NVTX while a clock runs, otherwise nothing.

    In code that torch compiles it is nothing: the compiled graph knows no stages, so put one around its call.
    """
    if torch.compiler.is_compiling():
        return _NOTHING
    clock = _clock.get()
    return _NOTHING if clock is None else clock.stage(name)


@contextmanager
def recording(device: torch.device) -> Iterator[StageClock]:
    """Record the stages of the steps in the block, which run on `device`."""
    clock = StageClock(device)
    token = _clock.set(clock)
    try:
        yield clock
    finally:
        _clock.reset(token)
