"""Memory by PyCUDA, for programs that use it already: their context is shared, arrays are `GPUArray`s.

Where no context is current, the GPU's primary context is taken, which PyTorch and TensorRT share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pycuda.driver as driver
from pycuda.gpuarray import GPUArray

from etnet.errors import EnvironmentFault
from etnet.trt.memory import DeviceView, interface_view
from etnet.types import UInt8Array

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default stream."""


class PycudaBlock:
    """Bytes on the GPU."""

    def __init__(self, size: int) -> None:
        self.allocation = driver.mem_alloc(size)

    @property
    def address(self) -> int:
        """Where they begin."""
        return int(self.allocation)


class PycudaHostBlock:
    """Page-locked bytes."""

    def __init__(self, size: int) -> None:
        self.bytes: UInt8Array = driver.pagelocked_empty(size, np.uint8)


class PycudaEvent:
    """An event."""

    def __init__(self) -> None:
        self.event = driver.Event(driver.event_flags.DISABLE_TIMING)

    def record(self, stream: Any) -> None:
        """Put it behind the work that the stream has now."""
        self.event.record(stream)

    def synchronize(self) -> None:
        """Let the processor wait for it."""
        self.event.synchronize()


class PycudaMemory:
    """See `Memory`."""

    name = "pycuda"

    def __init__(self, device: int) -> None:
        driver.init()
        if device >= driver.Device.count():
            raise EnvironmentFault(f"GPU {device} was asked for, and PyCUDA sees {driver.Device.count()}")
        self._context = driver.Context.get_current()
        self._retained = self._context is None
        if self._context is None:
            self._context = driver.Device(device).retain_primary_context()

    def active(self) -> AbstractContextManager[None]:
        """Make the context current."""
        return self._active()

    @contextmanager
    def _active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            driver.Context.pop()

    def stream(self) -> Any:
        """A new stream; PyCUDA's own has the attributes of the protocol."""
        return driver.Stream(_NON_BLOCKING)

    def event(self) -> PycudaEvent:
        """A new event."""
        return PycudaEvent()

    def wait(self, stream: Any, event: PycudaEvent) -> None:
        """Let a stream wait for an event."""
        stream.wait_for_event(event.event)

    def device(self, size: int) -> PycudaBlock:
        """Reserve bytes on the GPU."""
        return PycudaBlock(size)

    def pinned(self, size: int) -> PycudaHostBlock:
        """Reserve page-locked bytes of the host."""
        return PycudaHostBlock(size)

    def upload(self, target: PycudaBlock, source: PycudaHostBlock, size: int, stream: Any) -> None:
        """Copy to the GPU."""
        driver.memcpy_htod_async(target.address, source.bytes[:size], stream)

    def download(self, target: PycudaHostBlock, source: PycudaBlock, size: int, stream: Any) -> None:
        """Copy from the GPU."""
        driver.memcpy_dtoh_async(target.bytes[:size], source.address, stream)

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy on the GPU."""
        driver.memcpy_dtod_async(target, source, size, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """Record work as a graph, where this version of PyCUDA can."""
        if not hasattr(stream, "begin_capture"):
            raise NotImplementedError("this version of PyCUDA records no graphs")
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
        executable = graph.instantiate()

        def launch() -> None:
            executable.launch(stream)

        return launch

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> GPUArray:
        """A new `GPUArray`."""
        return GPUArray(shape, dtype)

    def view(self, array: Any) -> DeviceView:
        """Address, shape and type of a `GPUArray`."""
        return interface_view(array)

    def wait_for_caller(self, stream: Any) -> None:
        """Wait for the default stream, on which `GPUArray` works."""
        event = PycudaEvent()
        event.event.record()
        self.wait(stream, event)

    def close(self) -> None:
        """Give the primary context back, if it was taken here."""
        if self._retained:
            self._context.detach()
            self._retained = False


def open_memory(device: int) -> PycudaMemory:
    """See `etnet.trt.memory.open_memory`."""
    return PycudaMemory(device)
