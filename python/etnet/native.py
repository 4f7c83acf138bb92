"""Access to the compiled module `etnet._native` with the fast kernels; slower twins run where it is missing."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import TYPE_CHECKING

from etnet.errors import EnvironmentFault

if TYPE_CHECKING:
    from types import ModuleType

INTERFACE = 4
"""Number of the native interface that this Python code calls; `_native.INTERFACE` must be the same."""

REBUILD = "rebuild it with `make venv` in a source tree, or `pip install --force-reinstall etnet`"


class NativeMissingWarning(RuntimeWarning):
    """The native module could not be loaded, so slower replacements run."""


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    """The module, or None with the reason why it cannot be used."""
    try:
        module = importlib.import_module("etnet._native")
    except ImportError as error:
        return None, f"the native module etnet._native cannot be loaded ({error})"
    found = getattr(module, "INTERFACE", None)
    if found != INTERFACE:
        return None, (
            f"the native module {module.__file__} has interface {found} where this version of etnet expects {INTERFACE}"
        )
    return module, ""


def state() -> tuple[ModuleType | None, str]:
    """The native module, or None with the reason why it cannot be used; warns of nothing."""
    return _load()


def module() -> ModuleType | None:
    """The native module, or None (with one warning per process) where it is missing or of another version."""
    loaded, _ = _load()
    if loaded is None:
        _warn_once()
    return loaded


def require() -> ModuleType:
    """The native module.

    Raises:
        EnvironmentFault: It is missing or was built from another version of the sources.
    """
    loaded, reason = _load()
    if loaded is None:
        raise EnvironmentFault(f"{reason}; {REBUILD}.")
    return loaded


def has_cuda() -> bool:
    """Whether the native module is there and was built with CUDA kernels (says nothing about a GPU or a driver)."""
    loaded = module()
    return loaded is not None and loaded.BUILD["cuda"] != ""


@functools.cache
def _warn_once() -> None:
    _, reason = _load()
    warnings.warn(
        f"{reason}; results stay the same, but losses, weighted blocks and scores are computed by slower Python code; "
        f"{REBUILD}.",
        NativeMissingWarning,
        stacklevel=4,
    )
