"""A GPU in Python that does its work late and out of order, as far as streams and events allow.

Copies and kernels run only when someone waits for them, and between streams in random order: code that forgets an event
or touches a buffer too early gets wrong numbers here, as it would on a GPU.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from etnet.trt.library import Library
from etnet.trt.memory import DeviceView


class Operation:
    """A piece of work, or the recording of an event, or the wait for one."""

    def __init__(self, run: Callable[[], None] | None = None, *, after: Mark | None = None) -> None:
        self.run, self.after = run, after


class Mark:
    """One recording of an event."""

    def __init__(self) -> None:
        self.done = False

    def reach(self) -> None:
        self.done = True


class FakeStream:
    def __init__(self, gpu: FakeGpu, handle: int) -> None:
        self.gpu, self.handle = gpu, handle
        self.queue: deque[Operation] = deque()
        self.recording: list[Callable[[], None]] | None = None

    def add(self, run: Callable[[], None]) -> None:
        if self.recording is not None:
            self.recording.append(run)
        else:
            self.queue.append(Operation(run))

    def synchronize(self) -> None:
        assert self.recording is None, "waiting is not allowed while a graph is recorded"
        self.gpu.work_until(lambda: not self.queue)


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.mark: Mark | None = None

    def record(self, stream: FakeStream) -> None:
        self.mark = Mark()
        stream.queue.append(Operation(self.mark.reach))

    def synchronize(self) -> None:
        mark = self.mark
        assert mark is not None
        self.gpu.work_until(lambda: mark.done)


class FakeBlock:
    def __init__(self, gpu: FakeGpu, size: int) -> None:
        self.address = gpu.new_address(size)
        self.bytes = np.full(size, 0xA5, np.uint8)
        gpu.blocks[self.address] = self.bytes


class FakeArray:
    """Like a torch tensor or a GPUArray."""

    def __init__(self, gpu: FakeGpu, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.block = FakeBlock(gpu, int(np.prod(shape)) * dtype.itemsize)
        self.shape, self.dtype = shape, dtype

    def get(self) -> np.ndarray:
        return self.block.bytes.view(self.dtype).reshape(self.shape).copy()


class FakeGpu:
    """The `Memory` protocol over NumPy arrays.

    Attributes:
        log: What was asked for, in order, for tests of what is done at all.
    """

    name = "fake"

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.blocks: dict[int, np.ndarray] = {}
        self.streams: dict[int, FakeStream] = {}
        self.addresses = itertools.count(1 << 20, 1 << 20)
        self.lock = threading.RLock()
        self.log: list[str] = []
        self.active_threads: set[int] = set()
        self.closed = False
        self.capturable = True
        self.caller = self.stream()

    def new_address(self, size: int) -> int:
        assert size <= 1 << 20
        return next(self.addresses)

    def work_until(self, reached: Callable[[], bool]) -> None:
        """Do one piece of work after the other, of a random stream that can go on."""
        with self.lock:
            while not reached():
                ready = [stream for stream in self.streams.values() if stream.queue and self.can_start(stream)]
                assert ready, "the streams wait for each other"
                operation = self.random.choice(ready).queue.popleft()
                if operation.run is not None:
                    operation.run()

    @staticmethod
    def can_start(stream: FakeStream) -> bool:
        after = stream.queue[0].after
        return after is None or after.done

    @contextmanager
    def active(self) -> Iterator[None]:
        thread = threading.get_ident()
        former = thread in self.active_threads
        self.active_threads.add(thread)
        try:
            yield
        finally:
            if not former:
                self.active_threads.discard(thread)

    def check_active(self) -> None:
        assert threading.get_ident() in self.active_threads, "the GPU is not current in this thread"

    def stream(self) -> FakeStream:
        handle = len(self.streams) + 1
        self.streams[handle] = FakeStream(self, handle)
        return self.streams[handle]

    def event(self) -> FakeEvent:
        self.check_active()
        return FakeEvent(self)

    def wait(self, stream: FakeStream, event: FakeEvent) -> None:
        with self.lock:
            stream.queue.append(Operation(after=event.mark))

    def device(self, size: int) -> FakeBlock:
        self.check_active()
        return FakeBlock(self, size)

    def pinned(self, size: int) -> FakeBlock:
        self.check_active()
        self.log.append(f"pin {size}")
        return FakeBlock(self, size)

    def upload(self, target: FakeBlock, source: FakeBlock, size: int, stream: FakeStream) -> None:
        self.check_active()
        self.log.append(f"upload {size}")
        with self.lock:
            stream.add(lambda: target.bytes.__setitem__(slice(size), source.bytes[:size]))

    def download(self, target: FakeBlock, source: FakeBlock, size: int, stream: FakeStream) -> None:
        self.check_active()
        self.log.append(f"download {size}")
        with self.lock:
            stream.add(lambda: target.bytes.__setitem__(slice(size), source.bytes[:size]))

    def copy(self, target: int, source: int, size: int, stream: FakeStream) -> None:
        self.log.append(f"copy {size}")
        with self.lock:
            stream.add(lambda: self.blocks[target].__setitem__(slice(size), self.blocks[source][:size]))

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> Callable[[], None]:
        self.log.append("capture")
        stream.recording = []
        work()
        recorded, stream.recording = stream.recording, None

        def launch() -> None:
            self.log.append("graph")
            with self.lock:
                for run in recorded:
                    stream.add(run)

        return launch

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FakeArray:
        return FakeArray(self, shape, dtype)

    def view(self, array: FakeArray) -> DeviceView:
        return DeviceView(array.block.address, array.shape, array.dtype)

    def wait_for_caller(self, stream: FakeStream) -> None:
        event = FakeEvent(self)
        event.record(self.caller)
        self.wait(stream, event)

    def close(self) -> None:
        self.closed = True


MODES = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])


class FakeEngine:
    """An engine whose labels, edges and probabilities are simple functions of the image's bytes.

    Attributes:
        contexts: How many execution contexts were made.
    """

    def __init__(self, gpu: FakeGpu, *, size: tuple[int, int] | None, num_classes: int = 2) -> None:
        height, width = size or (-1, -1)
        self.gpu = gpu
        self.num_classes = num_classes
        self.tensors = {
            "image": ("UINT8", (-1, height, width, 3)),
            "labels": ("UINT8", (-1, height, width)),
            "edges": ("UINT8", (-1, height, width)),
            "probabilities": ("FLOAT", (-1, num_classes, height, width)),
        }
        self.contexts = 0
        self.fails = False

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return MODES.INPUT if name == "image" else MODES.OUTPUT

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]

    def create_execution_context(self) -> FakeContext | None:
        self.contexts += 1
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.user: int | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return name == "image"

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.engine.gpu.blocks

    def is_stream_capturable(self, handle: int) -> bool:
        return self.engine.gpu.capturable

    def execute_async_v3(self, handle: int) -> bool:
        thread = threading.get_ident()
        assert self.user in (None, thread), "two threads use one context"
        self.user = thread
        gpu, shape, addresses = self.engine.gpu, self.shape, dict(self.addresses)
        assert set(addresses) == set(self.engine.tensors)
        gpu.check_active()
        gpu.log.append(f"enqueue {shape}")

        def kernel() -> None:
            image = gpu.blocks[addresses["image"]][: int(np.prod(shape))].reshape(shape)
            for name, value in expected_outputs(image, self.engine.num_classes).items():
                raw = np.ascontiguousarray(value).view(np.uint8).reshape(-1)
                gpu.blocks[addresses[name]][: raw.size] = raw

        with gpu.lock:
            gpu.streams[handle].add(kernel)
        self.user = None
        return not self.engine.fails


def expected_outputs(image: np.ndarray, num_classes: int = 2) -> dict[str, np.ndarray]:
    """What `FakeEngine` says about images [N, H, W, 3]."""
    labels = image[..., 0] % num_classes
    probabilities = np.stack([image[..., index % 3] / np.float32(255) for index in range(num_classes)], axis=1)
    return {
        "labels": labels,
        "edges": image[..., 1] ^ image[..., 2],
        "probabilities": probabilities.astype(np.float32),
    }


def fake_runtime(engine: FakeEngine | None, *, version: str = "10.13.2", name: str = "tensorrt") -> Library:
    """A library whose runtime gives this engine for any bytes."""
    module = SimpleNamespace(
        ILogger=object,
        TensorIOMode=MODES,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
    )
    return Library(name, module, version)  # type: ignore[arg-type]
