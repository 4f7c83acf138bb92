"""One execution context with its streams and buffers: the work of one thread at a time.

Two slots of buffers: while the GPU computes on one, the other's images go up and its results come down, each in a
stream of its own. Events keep the order; nothing waits for the whole GPU. From the second batch of a shape on, a
recorded graph replaces the launches.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.errors import EnvironmentFault
from etnet.trt.memory import Block, Event, HostBlock, Memory
from etnet.types import UInt8Array

Shape = tuple[int, ...]
Stages = dict[str, float]

MOST_GRAPHS = 16
"""Graphs kept per slot; of images of many sizes the least recent ones are recorded again."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of the engine.

    Attributes:
        name: Its name.
        dtype: Type of its elements.
        largest: Its largest shape.
    """

    name: str
    dtype: np.dtype[Any]
    largest: Shape

    def bytes_of(self, shape: Shape) -> int:
        """Size in bytes with a shape."""
        return math.prod(shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Loaded:
    """A deserialized engine.

    Attributes:
        runtime: Lives as long as the engine.
        engine: The engine.
        input: Its input.
        outputs: Its outputs.
        errors: What the library logged as errors, the newest last.
    """

    runtime: Any
    engine: Any
    input: Tensor
    outputs: tuple[Tensor, ...]
    errors: list[str]


@dataclass
class Slot:
    """Buffers of a batch that is under way.

    Attributes:
        device: Bytes on the GPU per tensor.
        pinned: Page-locked bytes per tensor, for outputs only once they were asked for.
        uploaded: The images are on the GPU.
        computed: The outputs are there.
        downloaded: The outputs are back.
        graphs: Recorded launches per input shape; None after the first batch of a shape.
        pending: (output, shape) pairs that were asked for and not collected yet.
    """

    device: dict[str, Block]
    pinned: dict[str, HostBlock]
    uploaded: Event
    computed: Event
    downloaded: Event
    graphs: OrderedDict[Shape, Callable[[], None] | None] = field(default_factory=OrderedDict)
    pending: list[tuple[Tensor, Shape]] = field(default_factory=list)


class Worker:
    """See the module; everything is called inside `memory.active()`, by one thread at a time."""

    def __init__(self, loaded: Loaded, memory: Memory, *, graphs: bool = True) -> None:
        self._loaded, self._memory = loaded, memory
        self.records_graphs = graphs
        context = loaded.engine.create_execution_context()
        if context is None:
            raise EnvironmentFault(
                f"the GPU has too little memory for another context of this engine ({self._reason()}); use fewer "
                "workers, or build the engine with a smaller --batch or --workspace"
            )
        self._context: Any = context
        self._bound: tuple[int, Shape] | None = None
        self._upload, self._compute, self._download = memory.stream(), memory.stream(), memory.stream()
        self.slots = (self._new_slot(), self._new_slot())
        for stream in (self._upload, self._compute, self._download):
            # Memory of a caching allocator may still be read or written by what its former owner has under way.
            memory.wait_for_caller(stream)

    def submit(self, slot: Slot, images: UInt8Array, outputs: Sequence[str]) -> None:
        """Start a batch: copy up, compute, copy the outputs asked for down; returns before any of it is done.

        Args:
            slot: One whose former batch was collected.
            images: RGB images [N, H, W, 3], uint8; may be changed after the return.
            outputs: Names of the outputs that are wanted.
        """
        self._send(slot, images)
        slot.uploaded.record(self._upload)
        self._memory.wait(self._compute, slot.uploaded)
        self._launch(slot, images.shape)
        slot.computed.record(self._compute)
        self._memory.wait(self._download, slot.computed)
        self._fetch(slot, images.shape, outputs)

    def _send(self, slot: Slot, images: UInt8Array) -> None:
        name = self._loaded.input.name
        np.copyto(slot.pinned[name].bytes[: images.nbytes].reshape(images.shape), images)
        self._memory.upload(slot.device[name], slot.pinned[name], images.nbytes, self._upload)

    def _fetch(self, slot: Slot, shape: Shape, outputs: Sequence[str]) -> None:
        slot.pending = [(tensor, self._output_shape(tensor, shape)) for tensor in self._wanted(outputs)]
        for tensor, output_shape in slot.pending:
            self._memory.download(
                self._pinned(slot, tensor), slot.device[tensor.name], tensor.bytes_of(output_shape), self._download
            )
        slot.downloaded.record(self._download)

    def run_in_stages(self, images: UInt8Array, outputs: Sequence[str]) -> tuple[dict[str, npt.NDArray[Any]], Stages]:
        """Run a batch and wait after each of its stages.

        Args:
            images: As of `submit`.
            outputs: As of `submit`.

        Returns:
            The outputs, and the seconds of `copy_in`, `compute` and `copy_out`.
        """
        slot, times = self.slots[0], [time.perf_counter()]
        self._send(slot, images)
        self._upload.synchronize()
        times.append(time.perf_counter())
        self._launch(slot, images.shape)
        self._compute.synchronize()
        times.append(time.perf_counter())
        self._fetch(slot, images.shape, outputs)
        results = self.collect(slot)
        times.append(time.perf_counter())
        seconds = [after - before for before, after in pairwise(times)]
        return results, dict(zip(("copy_in", "compute", "copy_out"), seconds, strict=True))

    def collect(self, slot: Slot) -> dict[str, npt.NDArray[Any]]:
        """Wait for a batch and take its outputs out of the slot."""
        slot.downloaded.synchronize()
        results = {}
        for tensor, shape in slot.pending:
            raw = slot.pinned[tensor.name].bytes[: tensor.bytes_of(shape)]
            # A copy, because the next batch overwrites the slot.
            results[tensor.name] = raw.view(tensor.dtype).reshape(shape).copy()
        slot.pending = []
        return results

    def run_on_gpu(self, address: int, shape: Shape, outputs: Sequence[str]) -> dict[str, Any]:
        """Run images that are on the GPU; the outputs stay there, in new arrays of the memory's own kind."""
        slot, memory, source = self.slots[0], self._memory, self._loaded.input
        memory.wait_for_caller(self._compute)
        memory.copy(slot.device[source.name].address, address, source.bytes_of(shape), self._compute)
        self._launch(slot, shape)
        results: dict[str, Any] = {}
        for tensor in self._wanted(outputs):
            output_shape = self._output_shape(tensor, shape)
            results[tensor.name] = memory.array(output_shape, tensor.dtype)
            target = memory.view(results[tensor.name]).address
            memory.copy(target, slot.device[tensor.name].address, tensor.bytes_of(output_shape), self._compute)
        self._compute.synchronize()
        return results

    def drain(self) -> None:
        """Wait for everything under way and forget it."""
        for stream in (self._upload, self._compute, self._download):
            stream.synchronize()
        for slot in self.slots:
            slot.pending = []

    def _new_slot(self) -> Slot:
        memory, source = self._memory, self._loaded.input
        tensors = (source, *self._loaded.outputs)
        return Slot(
            device={tensor.name: memory.device(tensor.bytes_of(tensor.largest)) for tensor in tensors},
            pinned={source.name: memory.pinned(source.bytes_of(source.largest))},
            uploaded=memory.event(),
            computed=memory.event(),
            downloaded=memory.event(),
        )

    def _pinned(self, slot: Slot, tensor: Tensor) -> HostBlock:
        if tensor.name not in slot.pinned:
            slot.pinned[tensor.name] = self._memory.pinned(tensor.bytes_of(tensor.largest))
        return slot.pinned[tensor.name]

    def _wanted(self, outputs: Sequence[str]) -> list[Tensor]:
        return [tensor for tensor in self._loaded.outputs if tensor.name in outputs]

    def _output_shape(self, tensor: Tensor, shape: Shape) -> Shape:
        """Shape of an output: batch, height and width follow the input, classes are the output's own."""
        count, height, width = shape[:3]
        return (count, tensor.largest[1], height, width) if len(tensor.largest) == 4 else (count, height, width)

    def _launch(self, slot: Slot, shape: Shape) -> None:
        graph = slot.graphs.get(shape)
        if graph is None and self.records_graphs and shape in slot.graphs:
            graph = self._record(slot, shape)
        if graph is not None:
            slot.graphs.move_to_end(shape)
            graph()
            return
        self._bind(slot, shape)
        self._enqueue()
        # The library sets itself up during the first batch of a shape, which must not become part of a graph.
        slot.graphs[shape] = None
        if len(slot.graphs) > MOST_GRAPHS:
            # A graph that still runs must not go.
            self._compute.synchronize()
            slot.graphs.popitem(last=False)

    def _record(self, slot: Slot, shape: Shape) -> Callable[[], None] | None:
        self._bind(slot, shape)
        if not getattr(self._context, "is_stream_capturable", lambda _stream: True)(self._compute.handle):
            self.records_graphs = False
            return None
        try:
            graph = self._memory.capture(self._compute, self._enqueue)
        except NotImplementedError:
            self.records_graphs = False
            return None
        slot.graphs[shape] = graph
        return graph

    def _bind(self, slot: Slot, shape: Shape) -> None:
        key = (id(slot), shape)
        if self._bound == key:
            return
        # The context must not change under a batch that still runs.
        self._compute.synchronize()
        source = self._loaded.input.name
        if not self._context.set_input_shape(source, shape):
            raise EnvironmentFault(f"the engine refuses images of shape {list(shape)} ({self._reason()})")
        for name, block in slot.device.items():
            if not self._context.set_tensor_address(name, block.address):
                raise EnvironmentFault(f"the engine refuses the memory for {name} ({self._reason()})")
        self._bound = key

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._compute.handle):
            raise EnvironmentFault(
                f"the engine failed on the GPU ({self._reason()}); if memory is short, use a smaller --batch-size"
            )

    def _reason(self) -> str:
        return self._loaded.errors[-1] if self._loaded.errors else "the library logged no reason"
