"""Silence for decoders: what is wrong with a file is said in one sentence by the code that reads it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Filters and loggers are global to the process, and files are read in threads.
_GLOBAL_STATE = threading.RLock()
_WARNINGS: Any = warnings


@contextmanager
def own_warning_filters() -> Iterator[None]:
    """Runs the block with warning filters of its own; only one thread is inside at a time."""
    with _GLOBAL_STATE, warnings.catch_warnings():
        yield


@contextmanager
def silenced(logger_name: str) -> Iterator[None]:
    """Runs the block without warnings and messages of a logger and those below it; other threads are heard.

    Any number of threads may be inside at once: each is silent for itself, and what makes it so is there from the first
    that enters to the last that leaves. Some decoders quote what they cannot understand, which in a damaged medical
    file may be a patient's name.
    """
    _SILENCE.enter(logger_name)
    try:
        yield
    finally:
        _SILENCE.leave()


class _Names(threading.local):
    """Names of the loggers that the current thread silences, the innermost last."""

    def __init__(self) -> None:
        self.of_thread: list[str] = []


class _Silence(logging.Filter):
    """A filter of loggers and, in the place of a pattern, of warnings, that holds in threads inside `silenced` only.

    The filters of `warnings` ask an object for `match(text)`, whatever it looks at.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names = _Names()
        self._inside = 0
        self._loggers: set[logging.Logger] = set()
        self._entry = ("ignore", self, Warning, None, 0)

    def enter(self, logger_name: str) -> None:
        with _GLOBAL_STATE:
            known = [name for name in list(logging.root.manager.loggerDict) if _is_below(name, logger_name)]
            for logger in map(logging.getLogger, known):
                logger.addFilter(self)
                self._loggers.add(logger)
            # Lists are replaced and not changed, because another thread may be looking through one.
            if self._entry not in _WARNINGS.filters[:1]:
                _WARNINGS.filters = [self._entry, *self._other_filters()]
            self._inside += 1
            self._names.of_thread.append(logger_name)

    def leave(self) -> None:
        with _GLOBAL_STATE:
            self._names.of_thread.pop()
            self._inside -= 1
            if self._inside:
                return
            for logger in self._loggers:
                logger.removeFilter(self)
            self._loggers.clear()
            _WARNINGS.filters = self._other_filters()

    def _other_filters(self) -> list[Any]:
        return [entry for entry in _WARNINGS.filters if entry is not self._entry]

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is heard."""
        return not any(_is_below(record.name, name) for name in self._names.of_thread)

    def match(self, _text: str) -> bool:
        """Whether a warning is ignored."""
        return bool(self._names.of_thread)


def _is_below(name: str, logger_name: str) -> bool:
    return f"{name}.".startswith(f"{logger_name}.")


_SILENCE = _Silence()
