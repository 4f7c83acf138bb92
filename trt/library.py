"""Which TensorRT is installed: full TensorRT, its lean runtime, or TensorRT-RTX, under whichever module name.

Their Python interfaces are one family whose flags come and go between versions and change their numbers. This file
finds a module; the others ask it for flags by name and for features by their presence, never by a version number.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

from etnet.errors import EnvironmentFault

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: tuple[LibraryName, ...] = get_args(LibraryName)
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
INSTALL = {"tensorrt": "pip install 'etnet[tensorrt]'", "tensorrt-rtx": "pip install 'etnet[tensorrt-rtx]'"}

# The second name of TensorRT-RTX is what its two wheels install; the first comes with its source distribution.
_BUILDERS = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_LEAN_RUNTIMES = ("tensorrt_lean",)


@dataclass(frozen=True)
class Library:
    """An imported TensorRT.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`; the lean runtime belongs to `tensorrt`.
        module: Its Python module.
        version: Exact version, such as `10.13.2.6`.
        lean: Whether it runs only engines that were built version-compatible.
    """

    name: LibraryName
    module: Any
    version: str
    lean: bool = False

    @property
    def title(self) -> str:
        """Name and version in words."""
        return f"{TITLES[self.name]} {'lean runtime ' if self.lean else ''}{self.version}"

    def member(self, enumeration: str, name: str) -> Any | None:
        """A member of an enumeration by name, or None where this library has no such member or enumeration."""
        members: dict[str, Any] = getattr(getattr(self.module, enumeration, None), "__members__", {})
        return members.get(name)

    def members(self, enumeration: str) -> tuple[str, ...]:
        """Names of an enumeration's members; empty where this library has no such enumeration."""
        return tuple(getattr(getattr(self.module, enumeration, None), "__members__", ()))

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities that engines can be built for without a GPU, such as `sm86`; empty where none."""
        found = (re.fullmatch(r"SM\d+", name) for name in self.members("ComputeCapability"))
        return tuple(match[0].lower() for match in found if match)

    @property
    def builds_without_gpu(self) -> bool:
        """Whether the builder needs no GPU."""
        return bool(self.targets)


def find_builder(name: LibraryName) -> Library:
    """The installed library that builds engines.

    Raises:
        EnvironmentFault: It is not installed, its own libraries are missing, or it is too old.
    """
    library = _import_first(name, _BUILDERS[name])
    if library is None:
        raise EnvironmentFault(
            f"{TITLES[name]} is not installed here, so no engine can be built with it; install it with: {INSTALL[name]}"
        )
    if name == "tensorrt-rtx" and not (library.builds_without_gpu and library.member(*_STRONGLY_TYPED)):
        raise EnvironmentFault(f"{library.title} is too old; version 1.5 or newer is needed: {INSTALL[name]}")
    return library


_STRONGLY_TYPED = ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")


def find_runtimes(name: LibraryName) -> list[Library]:
    """The installed libraries that could run an engine of this family, the full one first."""
    full = _import_first(name, _BUILDERS[name])
    lean = [] if name == "tensorrt-rtx" else [_import_first(name, (module,), lean=True) for module in _LEAN_RUNTIMES]
    return [library for library in (full, *lean) if library is not None and hasattr(library.module, "Runtime")]


def _import_first(name: LibraryName, modules: tuple[str, ...], *, lean: bool = False) -> Library | None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            continue
        try:
            imported: ModuleType = importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            # The package `tensorrt` exists without the libraries that it loads when their download was blocked.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise EnvironmentFault(
                f"the package {module} is installed but cannot be loaded ({reason}); install it anew with: "
                f"{INSTALL[name]}"
            ) from error
        version = getattr(imported, "__version__", None)
        if version is None:
            raise EnvironmentFault(
                f"{imported.__name__} is found, but is not the package of {TITLES[name]}; install that with: "
                f"{INSTALL[name]}"
            )
        return Library(name, imported, str(version), lean)
    return None
