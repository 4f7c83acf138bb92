"""Ctrl-C and SIGTERM as a request to stop after the current step, so that `last` can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by the first signal; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a `StopRequest`; restores the former handlers at the end.

    Signals can only be caught on the main thread; elsewhere the request simply stays unset.
    """
    request = StopRequest()
    former: dict[int, signal._HANDLER] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        for caught, handler in former.items():
            signal.signal(caught, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.getsignal(number)
            signal.signal(number, note)
    except ValueError:
        # Not the main thread: signal.signal refuses; training goes on without the safety net.
        former.clear()
    try:
        yield request
    finally:
        for caught, handler in former.items():
            signal.signal(caught, handler)
