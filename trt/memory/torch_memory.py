"""Memory by PyTorch: tensors of its caching allocator, so that engine and network share one pool."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from etnet.errors import EnvironmentFault
from etnet.trt.memory import DeviceView, interface_view
from etnet.types import UInt8Array


class TorchBlock:
    """Bytes on the GPU."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def address(self) -> int:
        """Where they begin."""
        return self.tensor.data_ptr()


class TorchHostBlock:
    """Page-locked bytes."""

    def __init__(self, size: int) -> None:
        self.tensor = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self.bytes: UInt8Array = self.tensor.numpy()


class TorchStream:
    """A stream."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    @property
    def handle(self) -> int:
        """The cudaStream_t."""
        return int(self.stream.cuda_stream)

    def synchronize(self) -> None:
        """Wait until its work is done."""
        self.stream.synchronize()


class TorchEvent:
    """An event."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event()

    def record(self, stream: TorchStream) -> None:
        """Put it behind the work that the stream has now."""
        self.event.record(stream.stream)

    def synchronize(self) -> None:
        """Let the processor wait for it."""
        self.event.synchronize()


class TorchMemory:
    """See `Memory`."""

    name = "torch"

    def __init__(self, device: int) -> None:
        if not torch.cuda.is_available() or device >= torch.cuda.device_count():
            built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            raise EnvironmentFault(
                f"torch {torch.__version__} ({built_for}) sees no GPU {device}, so it cannot hold an engine's memory; "
                "install a torch build for the GPU, or cuda-python with: pip install 'etnet[tensorrt]'"
            )
        self._device = torch.device("cuda", device)

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current."""
        return torch.cuda.device(self._device)

    def stream(self) -> TorchStream:
        """A new stream."""
        return TorchStream(self._device)

    def event(self) -> TorchEvent:
        """A new event."""
        return TorchEvent()

    def wait(self, stream: TorchStream, event: TorchEvent) -> None:
        """Let a stream wait for an event."""
        stream.stream.wait_event(event.event)

    def device(self, size: int) -> TorchBlock:
        """Reserve bytes on the GPU."""
        return TorchBlock(torch.empty(size, dtype=torch.uint8, device=self._device))

    def pinned(self, size: int) -> TorchHostBlock:
        """Reserve page-locked bytes of the host."""
        return TorchHostBlock(size)

    def upload(self, target: TorchBlock, source: TorchHostBlock, size: int, stream: TorchStream) -> None:
        """Copy to the GPU."""
        with torch.cuda.stream(stream.stream):
            target.tensor[:size].copy_(source.tensor[:size], non_blocking=True)

    def download(self, target: TorchHostBlock, source: TorchBlock, size: int, stream: TorchStream) -> None:
        """Copy from the GPU."""
        with torch.cuda.stream(stream.stream):
            target.tensor[:size].copy_(source.tensor[:size], non_blocking=True)

    def copy(self, target: int, source: int, size: int, stream: TorchStream) -> None:
        """Copy on the GPU."""
        with torch.cuda.stream(stream.stream):
            _borrowed(target, size, self._device).copy_(_borrowed(source, size, self._device), non_blocking=True)

    def capture(self, stream: TorchStream, work: Callable[[], None]) -> Callable[[], None]:
        """Record work as a graph."""
        graph = torch.cuda.CUDAGraph()
        # Other threads go on allocating while this one records.
        with torch.cuda.graph(graph, stream=stream.stream, capture_error_mode="thread_local"):
            work()

        def launch() -> None:
            with torch.cuda.stream(stream.stream):
                graph.replay()

        return launch

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        """A new tensor."""
        return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=self._device)

    def view(self, array: Any) -> DeviceView:
        """Address, shape and type of a tensor."""
        return interface_view(array)

    def wait_for_caller(self, stream: TorchStream) -> None:
        """Wait for the stream that is current in the calling program."""
        stream.stream.wait_stream(torch.cuda.current_stream(self._device))

    def close(self) -> None:
        """Nothing is held outside of blocks."""


class _Borrowed:
    """Tells torch of bytes that it does not own."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}


def _borrowed(address: int, size: int, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(_Borrowed(address, size), device=device)


def open_memory(device: int) -> TorchMemory:
    """See `etnet.trt.memory.open_memory`."""
    return TorchMemory(device)
