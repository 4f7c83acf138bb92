"""Who is told how a training goes: the one interface for displays, trackers and a caller's own code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

LOSS_COLUMNS = ("loss", "seg_loss", "edge_loss")


class Observer(Protocol):
    """What a caller of `train` is told; the command line draws it, trackers send it on, a notebook may ignore it.

    Derive from `SilentObserver` to write only the methods that matter. What an observer raises ends the training, so
    that a mistake in it is seen; the trackers of `training.trackers` catch what they can live with.
    """

    def on_message(self, text: str) -> None:
        """A sentence about what is being done."""

    def on_start(self, *, done: int, total: int) -> None:
        """`done` of `total` iterations lie behind when the loop begins."""

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """An optimizer step is done; `iteration` counts from 1."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is done; `row` is its line in metrics.csv."""

    def on_stop(self, *, signal_number: int) -> None:
        """Ctrl-C or another signal has ended the run, which can be resumed."""


class SilentObserver:
    """An observer that ignores everything."""

    def on_message(self, text: str) -> None:
        """Ignore."""

    def on_start(self, *, done: int, total: int) -> None:
        """Ignore."""

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Ignore."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Ignore."""

    def on_stop(self, *, signal_number: int) -> None:
        """Ignore."""


class Observers:
    """Several observers as one; each is told in turn.

    Args:
        observers: In the order in which they are told.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_message(self, text: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.on_message(text)

    def on_start(self, *, done: int, total: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.on_start(done=done, total=total)

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.on_step(
                iteration=iteration, loss=loss, learning_rate=learning_rate, images_per_second=images_per_second
            )

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.on_epoch(row)

    def on_stop(self, *, signal_number: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.on_stop(signal_number=signal_number)
