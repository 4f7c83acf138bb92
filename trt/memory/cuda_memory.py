"""Memory by cuda-python (`cuda.bindings`), for machines without PyTorch."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from etnet.errors import EnvironmentFault
from etnet.trt.memory import DeviceView, interface_view
from etnet.types import UInt8Array


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the CUDA runtime; its values, without the status.

    Raises:
        EnvironmentFault: The status is an error.
    """
    status, *values = function(*arguments)
    if status != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(status)
        reason = text.decode() if isinstance(text, bytes) else str(text)
        advice = "; use a smaller --batch-size" if status == cudart.cudaError_t.cudaErrorMemoryAllocation else ""
        raise EnvironmentFault(f"the GPU failed in {function.__name__}: {reason}{advice}")
    return values[0] if len(values) == 1 else values


class CudaBlock:
    """Bytes on the GPU."""

    def __init__(self, size: int) -> None:
        self.address = int(call(cudart.cudaMalloc, size))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            cudart.cudaFree(self.address)


class CudaHostBlock:
    """Page-locked bytes."""

    def __init__(self, size: int) -> None:
        self.address = int(call(cudart.cudaMallocHost, size))
        self.bytes: UInt8Array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            cudart.cudaFreeHost(self.address)


class CudaStream:
    """A stream."""

    def __init__(self) -> None:
        self.value = call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """The cudaStream_t."""
        return int(self.value)

    def synchronize(self) -> None:
        """Wait until its work is done."""
        call(cudart.cudaStreamSynchronize, self.value)

    def __del__(self) -> None:
        if hasattr(self, "value"):
            cudart.cudaStreamDestroy(self.value)


class CudaEvent:
    """An event."""

    def __init__(self) -> None:
        self.value = call(cudart.cudaEventCreateWithFlags, cudart.cudaEventDisableTiming)

    def record(self, stream: CudaStream) -> None:
        """Put it behind the work that the stream has now."""
        call(cudart.cudaEventRecord, self.value, stream.value)

    def synchronize(self) -> None:
        """Let the processor wait for it."""
        call(cudart.cudaEventSynchronize, self.value)

    def __del__(self) -> None:
        if hasattr(self, "value"):
            cudart.cudaEventDestroy(self.value)


class CudaArray:
    """An array on the GPU that torch, CuPy and Numba can take over by `__cuda_array_interface__`."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._block = CudaBlock(max(1, math.prod(shape) * dtype.itemsize))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self._block.address, False), "version": 3}


class CudaMemory:
    """See `Memory`."""

    name = "cuda-python"

    def __init__(self, device: int) -> None:
        self._device = device
        count = call(cudart.cudaGetDeviceCount)
        if device >= count:
            raise EnvironmentFault(f"GPU {device} was asked for, and CUDA sees {count}; use --device cuda:0")

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current."""
        return self._active()

    @contextmanager
    def _active(self) -> Iterator[None]:
        former = call(cudart.cudaGetDevice)
        call(cudart.cudaSetDevice, self._device)
        try:
            yield
        finally:
            call(cudart.cudaSetDevice, former)

    def stream(self) -> CudaStream:
        """A new stream."""
        return CudaStream()

    def event(self) -> CudaEvent:
        """A new event."""
        return CudaEvent()

    def wait(self, stream: CudaStream, event: CudaEvent) -> None:
        """Let a stream wait for an event."""
        call(cudart.cudaStreamWaitEvent, stream.value, event.value, 0)

    def device(self, size: int) -> CudaBlock:
        """Reserve bytes on the GPU."""
        return CudaBlock(size)

    def pinned(self, size: int) -> CudaHostBlock:
        """Reserve page-locked bytes of the host."""
        return CudaHostBlock(size)

    def upload(self, target: CudaBlock, source: CudaHostBlock, size: int, stream: CudaStream) -> None:
        """Copy to the GPU."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(cudart.cudaMemcpyAsync, target.address, source.address, size, kind, stream.value)

    def download(self, target: CudaHostBlock, source: CudaBlock, size: int, stream: CudaStream) -> None:
        """Copy from the GPU."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(cudart.cudaMemcpyAsync, target.address, source.address, size, kind, stream.value)

    def copy(self, target: int, source: int, size: int, stream: CudaStream) -> None:
        """Copy on the GPU."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        call(cudart.cudaMemcpyAsync, target, source, size, kind, stream.value)

    def capture(self, stream: CudaStream, work: Callable[[], None]) -> Callable[[], None]:
        """Record work as a graph."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cudart.cudaStreamBeginCapture, stream.value, mode)
        try:
            work()
        finally:
            # Also after an error, or the stream stays unusable.
            graph = call(cudart.cudaStreamEndCapture, stream.value)
        executable = call(cudart.cudaGraphInstantiate, graph, 0)
        call(cudart.cudaGraphDestroy, graph)
        return _Graph(executable, stream)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CudaArray:
        """A new array."""
        return CudaArray(shape, dtype)

    def view(self, array: Any) -> DeviceView:
        """Address, shape and type of an array."""
        return interface_view(array)

    def wait_for_caller(self, stream: CudaStream) -> None:
        """Wait for the default stream, on which callers without a stream of their own work."""
        event = CudaEvent()
        call(cudart.cudaEventRecord, event.value, 0)
        self.wait(stream, event)

    def close(self) -> None:
        """Nothing is held outside of blocks."""


class _Graph:
    """A recorded graph."""

    def __init__(self, executable: Any, stream: CudaStream) -> None:
        self._executable, self._stream = executable, stream

    def __call__(self) -> None:
        call(cudart.cudaGraphLaunch, self._executable, self._stream.value)

    def __del__(self) -> None:
        cudart.cudaGraphExecDestroy(self._executable)


def open_memory(device: int) -> CudaMemory:
    """See `etnet.trt.memory.open_memory`."""
    return CudaMemory(device)
