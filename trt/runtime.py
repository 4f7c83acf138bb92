"""Runs an engine: checks first, then loads, then segments batches from any number of threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.sidecar import Sidecar
from etnet.trt.driver import Driver
from etnet.trt.library import Library
from etnet.trt.limits import check_images
from etnet.trt.memory import Memory, MemoryName, open_memory
from etnet.trt.network import INPUT
from etnet.trt.plan import Placement, place, read_plan
from etnet.trt.progress import BuildState, SilentObserver, make_logger
from etnet.trt.worker import Loaded, Slot, Stages, Tensor, Worker
from etnet.types import UInt8Array

_DTYPES = {"UINT8": np.uint8, "FLOAT": np.float32}
_OUTPUT_DTYPES = {"labels": "UINT8", "edges": "UINT8", "probabilities": "FLOAT"}


class EngineRunner:
    """An engine on a GPU; see `EngineRunner.open`.

    Each thread that runs a batch takes one of up to `workers` execution contexts, and waits where all are taken.

    Args:
        path: The engine, for errors.
        sidecar: Its description.
        loaded: The deserialized engine.
        memory: Memory of the GPU it is on.
        gpu: Name of that GPU.
        workers: Most execution contexts; each has buffers and scratch memory of its own.
        graphs: Whether launches are recorded as CUDA graphs.
    """

    def __init__(
        self,
        path: Path,
        sidecar: Sidecar,
        loaded: Loaded,
        memory: Memory,
        *,
        gpu: str = "GPU",
        workers: int = 2,
        graphs: bool = True,
    ) -> None:
        self.path, self.sidecar, self.gpu = path, sidecar, gpu
        self._loaded: Loaded | None = loaded
        self._memory, self._graphs, self._most = memory, graphs, workers
        self._idle: list[Worker] = []
        self._made = 0
        self._changed = threading.Condition()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: int = 0,
        memory: MemoryName = "auto",
        workers: int = 2,
        graphs: bool = True,
        driver: Driver | None = None,
    ) -> EngineRunner:
        """Open an engine.

        In this order: sidecar, bytes, GPU and library, and only then the engine is loaded, which is running code; its
        inputs and outputs are compared with the sidecar last.

        Args:
            path: Plan file with its sidecar.
            device: Number of the GPU.
            memory: `torch`, `cuda`, `pycuda`, or `auto`.
            workers: Most execution contexts.
            graphs: Whether launches are recorded as CUDA graphs.
            driver: What the driver says; by default it is asked.

        Raises:
            ModelFileError: The file is missing, changed, without a sidecar, or holds something else.
            EnvironmentFault: It cannot run on this machine.
        """
        sidecar = read_plan(path)
        placement = place(path, sidecar, device=device, driver=driver)
        provider = open_memory(memory, device=device)
        with provider.active():
            loaded = load_engine(path, sidecar, placement)
        return cls(path, sidecar, loaded, provider, gpu=placement.gpu.name, workers=workers, graphs=graphs)

    @property
    def workers(self) -> int:
        """Most execution contexts, and so threads that run batches at once."""
        return self._most

    @property
    def memory(self) -> str:
        """Name of the package that manages the GPU's memory."""
        return self._memory.name

    def run(self, images: UInt8Array, outputs: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Segment a batch.

        Args:
            images: RGB images [N, H, W, 3], uint8, of a size that the engine takes.
            outputs: Names of the outputs to copy back; None takes all.

        Returns:
            `labels` uint8 [N, H, W], `edges` uint8 [N, H, W], `probabilities` float32 [N, C, H, W], as asked for.

        Raises:
            UsageError: The engine does not take these images, or it is closed.
            EnvironmentFault: The GPU failed.
        """
        (results,) = self.run_many([images], outputs)
        return results

    def run_in_stages(
        self, images: UInt8Array, outputs: Sequence[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], Stages]:
        """As `run`, and the seconds of `copy_in`, `compute` and `copy_out`, waiting for each to end."""
        check_images(self.path, self.sidecar, images.shape, images.dtype.name)
        wanted = self._wanted(outputs)
        with self._worker() as worker, self._memory.active():
            return worker.run_in_stages(images, wanted)

    def run_many(
        self, batches: Iterable[UInt8Array], outputs: Sequence[str] | None = None
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Segment batch after batch; copies of one overlap with the computation of the next.

        Args:
            batches: Batches as of `run`; the next one is asked for while the last one is under way.
            outputs: As of `run`.

        Yields:
            The outputs of each batch, in order.
        """
        wanted = self._wanted(outputs)
        with self._worker() as worker:
            under_way: deque[Slot] = deque()
            for number, images in enumerate(batches):
                check_images(self.path, self.sidecar, images.shape, images.dtype.name)
                slot = worker.slots[number % len(worker.slots)]
                if slot in under_way:
                    yield self._collect(worker, under_way.popleft())
                with self._memory.active():
                    worker.submit(slot, images, wanted)
                under_way.append(slot)
            while under_way:
                yield self._collect(worker, under_way.popleft())

    def run_on_gpu(self, images: Any, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Segment a batch that is on the GPU; nothing is copied to the host.

        Args:
            images: Contiguous array [N, H, W, 3], uint8, on the engine's GPU: a torch tensor, a PyCUDA `GPUArray`, or
                anything else with `__cuda_array_interface__`.
            outputs: As of `run`.

        Returns:
            New arrays of the kind of the runner's memory: torch tensors, `GPUArray`s, or arrays with
            `__cuda_array_interface__`. They are finished.
        """
        view = self._memory.view(images)
        check_images(self.path, self.sidecar, view.shape, view.dtype.name)
        wanted = self._wanted(outputs)
        with self._worker() as worker, self._memory.active():
            return worker.run_on_gpu(view.address, view.shape, wanted)

    def close(self) -> None:
        """Wait for the threads that are running batches, then free the engine."""
        with self._changed:
            if self._loaded is None:
                return
            self._changed.wait_for(lambda: len(self._idle) == self._made)
            with self._memory.active():
                # Contexts before their engine.
                self._idle.clear()
                self._made = 0
                self._loaded = None
            self._changed.notify_all()
        self._memory.close()

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _collect(self, worker: Worker, slot: Slot) -> dict[str, npt.NDArray[Any]]:
        # Not around the generator's yields: the caller's own GPU stays current there.
        with self._memory.active():
            return worker.collect(slot)

    def _wanted(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        if outputs is None:
            return self.sidecar.outputs
        unknown = [name for name in outputs if name not in self.sidecar.outputs]
        if unknown:
            raise UsageError(f"{self.path}: has no output {unknown[0]}; it has {', '.join(self.sidecar.outputs)}")
        return tuple(outputs)

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._made < self._most or self._loaded is None)
            if self._loaded is None:
                raise UsageError(f"{self.path}: the engine was closed")
            worker = self._idle.pop() if self._idle else self._new_worker(self._loaded)
        try:
            yield worker
        except BaseException:
            # Also where the caller of a generator wants no more: what is under way must not meet the next batch.
            with self._memory.active():
                worker.drain()
            raise
        finally:
            with self._changed:
                self._idle.append(worker)
                self._changed.notify_all()

    def _new_worker(self, loaded: Loaded) -> Worker:
        with self._memory.active():
            worker = Worker(loaded, self._memory, graphs=self._graphs)
        self._made += 1
        return worker


def load_engine(path: Path, sidecar: Sidecar, placement: Placement) -> Loaded:
    """Deserialize an engine whose sidecar, GPU and library were checked, and compare its inputs and outputs.

    Raises:
        EnvironmentFault: The library refuses it.
        ModelFileError: Its inputs and outputs are not those of the sidecar.
    """
    library = placement.library
    state = BuildState(SilentObserver())
    runtime = library.module.Runtime(make_logger(library, state))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise EnvironmentFault(
            f"{path}: {library.title} cannot load it on {placement.gpu.name} "
            f"({'; '.join(state.errors) or 'it logged no reason'}); build it again with: etnet build-engine MODEL "
            f"--output {path} --overwrite"
        )
    inputs, outputs = _tensors(path, library, engine, sidecar)
    return Loaded(runtime, engine, inputs[0], outputs, state.errors)


def _tensors(
    path: Path, library: Library, engine: Any, sidecar: Sidecar
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = library.member("TensorIOMode", "INPUT")
    found = {name: engine.get_tensor_dtype(name).name for name in names}
    inputs = [name for name in names if engine.get_tensor_mode(name) == is_input]
    expected = {INPUT: "UINT8", **{name: _OUTPUT_DTYPES[name] for name in sidecar.outputs}}
    if inputs != [INPUT] or found != expected:
        raise ModelFileError(
            f"{path}: holds the tensors {found} where its sidecar says {expected}; build it again with: "
            f"etnet build-engine MODEL --output {path} --overwrite"
        )
    height, width = sidecar.input.size or _largest_size(sidecar)
    count = sidecar.input.batch[2]
    shapes = {
        INPUT: (count, height, width, 3),
        "labels": (count, height, width),
        "edges": (count, height, width),
        "probabilities": (count, sidecar.contract.num_classes, height, width),
    }
    tensors = {name: Tensor(name, np.dtype(_DTYPES[kind]), shapes[name]) for name, kind in expected.items()}
    for name, tensor in tensors.items():
        declared = tuple(engine.get_tensor_shape(name))
        if len(declared) != len(tensor.largest) or any(
            side not in (-1, most) for side, most in zip(declared, tensor.largest, strict=True)
        ):
            raise ModelFileError(
                f"{path}: its tensor {name} has shape {list(declared)} where its sidecar allows up to "
                f"{list(tensor.largest)}; build it again with: etnet build-engine MODEL --output {path} --overwrite"
            )
    return (tensors[INPUT],), tuple(tensors[name] for name in sidecar.outputs)


def _largest_size(sidecar: Sidecar) -> tuple[int, int]:
    if sidecar.input.size_profile is None:
        raise ModelFileError("the sidecar of an engine with free size has no limits; build the engine again")
    return sidecar.input.size_profile[2]
