from __future__ import annotations

import pytest

from etnet.training.tracking import Observers, SilentObserver


class Recorder(SilentObserver):
    def __init__(self, name: str, calls: list[tuple[str, object]]) -> None:
        self.name, self.calls = name, calls

    def on_message(self, text: str) -> None:
        self.calls.append((self.name, text))

    def on_start(self, **facts: int) -> None:
        self.calls.append((self.name, facts))

    def on_step(self, **facts: float) -> None:
        self.calls.append((self.name, facts))

    def on_epoch(self, row: object) -> None:
        self.calls.append((self.name, row))

    def on_stop(self, **facts: int) -> None:
        self.calls.append((self.name, facts))


def test_several_observers_are_told_everything_in_their_order() -> None:
    calls: list[tuple[str, object]] = []
    both = Observers(Recorder("first", calls), Recorder("second", calls))
    step = {"iteration": 1, "loss": 0.5, "learning_rate": 0.1, "images_per_second": 2.0}
    both.on_message("begin")
    both.on_start(done=0, total=3)
    both.on_step(**step)
    both.on_epoch({"epoch": 1})
    both.on_stop(signal_number=15)
    told = ["begin", {"done": 0, "total": 3}, step, {"epoch": 1}, {"signal_number": 15}]
    assert calls == [(name, what) for what in told for name in ("first", "second")]


def test_a_mistake_in_an_observer_is_not_swallowed() -> None:
    class Wrong(SilentObserver):
        def on_epoch(self, row: object) -> None:
            raise KeyError("dice")

    with pytest.raises(KeyError, match="dice"):
        Observers(SilentObserver(), Wrong()).on_epoch({})
