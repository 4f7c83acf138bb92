"""Silence for decoders: what is wrong with a file is said in one sentence by the code that reads it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Filters and loggers are global to the process, and files are read in threads.
_GLOBAL_STATE = threading.RLock()


@contextmanager
def own_warning_filters() -> Iterator[None]:
    """Runs the block with warning filters of its own; only one thread is inside at a time."""
    with _GLOBAL_STATE, warnings.catch_warnings():
        yield


@contextmanager
def silenced(logger_name: str) -> Iterator[None]:
    """Runs the block without warnings and messages of a logger and those below it; only one thread is inside at a time.

    Some decoders quote what they cannot understand, which in a damaged medical file may be a patient's name.
    """
    with own_warning_filters():
        warnings.simplefilter("ignore")
        names = [name for name in logging.root.manager.loggerDict if f"{name}.".startswith(f"{logger_name}.")]
        heard = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
        for logger in heard:
            logger.disabled = True
        try:
            yield
        finally:
            for logger in heard:
                logger.disabled = False
