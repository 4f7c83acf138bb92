"""GPU memory, streams and graphs behind one small protocol, because three packages offer them.

`torch` where PyTorch is installed, `cuda` (cuda-python, no PyTorch needed), `pycuda` for programs that already use
PyCUDA: it shares their context. The engine runner knows this protocol only.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from etnet.errors import EnvironmentFault, UsageError
from etnet.types import UInt8Array

MemoryName = Literal["auto", "torch", "cuda", "pycuda"]


class Block(Protocol):
    """Bytes on the GPU, alive as long as this object."""

    @property
    def address(self) -> int:
        """Where they begin."""


class HostBlock(Protocol):
    """Page-locked bytes of the host, which the GPU copies from and to while the processor does something else."""

    @property
    def bytes(self) -> UInt8Array:
        """The bytes [size], uint8."""


@dataclass(frozen=True)
class DeviceView:
    """An array on the GPU that someone else owns.

    Attributes:
        address: Where it begins.
        shape: Its shape.
        dtype: Its NumPy type.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Stream(Protocol):
    """Work that the GPU does in order."""

    @property
    def handle(self) -> int:
        """The cudaStream_t."""

    def synchronize(self) -> None:
        """Wait until all of it is done."""


class Event(Protocol):
    """A point in a stream."""

    def record(self, stream: Any) -> None:
        """Put it behind the work that the stream has now."""

    def synchronize(self) -> None:
        """Let the processor wait for it."""


class Memory(Protocol):
    """A package that manages GPU memory, on one GPU."""

    @property
    def name(self) -> str:
        """Name of the package."""

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current for the calling thread; everything below happens inside."""

    def stream(self) -> Stream:
        """A new stream that waits for no other."""

    def event(self) -> Event:
        """A new event."""

    def wait(self, stream: Any, event: Any) -> None:
        """Let a stream wait for an event."""

    def device(self, size: int) -> Block:
        """Reserve bytes on the GPU."""

    def pinned(self, size: int) -> HostBlock:
        """Reserve page-locked bytes of the host."""

    def upload(self, target: Any, source: Any, size: int, stream: Any) -> None:
        """Copy the first bytes of a host block to a device block, in a stream."""

    def download(self, target: Any, source: Any, size: int, stream: Any) -> None:
        """Copy the first bytes of a device block to a host block, in a stream."""

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy bytes on the GPU from address to address, in a stream."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work that a function puts into the stream; the result puts it there again as one graph."""

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A new array on the GPU of the kind that the package's users know."""

    def view(self, array: Any) -> DeviceView:
        """Address, shape and type of an array of `array`'s kind, or of any with `__cuda_array_interface__`."""

    def wait_for_caller(self, stream: Any) -> None:
        """Let a stream wait for the work that the calling program has under way."""

    def close(self) -> None:
        """Give back what is not tied to a block, a stream or an event."""


_MODULES = {"torch": "etnet.trt.memory.torch_memory", "cuda": "etnet.trt.memory.cuda_memory",
            "pycuda": "etnet.trt.memory.pycuda_memory"}  # fmt: skip
_PACKAGES = {"torch": "torch", "cuda": "cuda.bindings", "pycuda": "pycuda"}
_INSTALL = {
    "torch": "pip install 'etnet[train]'",
    "cuda": "pip install 'etnet[tensorrt]'",
    "pycuda": "pip install 'etnet[pycuda]'",
}


def open_memory(name: MemoryName = "auto", *, device: int = 0) -> Memory:
    """The memory of a GPU.

    Args:
        name: Package; `auto` takes torch where it is installed, else cuda-python, else PyCUDA.
        device: Number of the GPU.

    Raises:
        UsageError: There is no provider of that name.
        EnvironmentFault: The package is not installed, or sees no GPU.
    """
    if name not in get_args(MemoryName):
        raise UsageError(f"memory is '{name}'; expected {', '.join(get_args(MemoryName))}")
    if name != "auto":
        if not _is_installed(_PACKAGES[name]):
            raise EnvironmentFault(f"memory {name} is not installed here; install it with: {_INSTALL[name]}")
        return _open(name, device)
    problems: list[str] = []
    for candidate in filter(lambda candidate: _is_installed(_PACKAGES[candidate]), _MODULES):
        try:
            return _open(candidate, device)
        except EnvironmentFault as error:
            # A torch built for processors only must not stand in the way of cuda-python.
            problems.append(str(error))
    raise EnvironmentFault(
        " / ".join(problems)
        or f"running an engine needs cuda-python, torch or PyCUDA; install the first with: {_INSTALL['cuda']}"
    )


def _open(name: str, device: int) -> Memory:
    memory: Memory = importlib.import_module(_MODULES[name]).open_memory(device)
    return memory


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        # The parent of a dotted name is missing.
        return False


def interface_view(array: Any) -> DeviceView:
    """Read `__cuda_array_interface__`, which torch, CuPy, Numba and PyCUDA arrays have.

    Raises:
        UsageError: The array has none, or its elements do not lie one after the other.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise UsageError(f"expected an array on the GPU, got {type(array).__name__}")
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _contiguous_strides(shape, dtype.itemsize):
        raise UsageError(f"expected a contiguous array on the GPU, got strides {tuple(strides)} for shape {shape}")
    return DeviceView(int(interface["data"][0]), shape, dtype)


def _contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = [itemsize]
    for length in reversed(shape[1:]):
        strides.append(strides[-1] * length)
    return tuple(reversed(strides)) if shape else ()
