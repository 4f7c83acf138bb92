"""The same network on several back-ends, side by side: labels, time of each stage, and memory.

Every contestant lives in a process of its own, so that one that crashes costs one row, thread pools do not mix, and the
peak of memory is its own. The processes take turns in short rounds, so that a slow moment of the machine hits all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from etnet.errors import EnvironmentFault, EtnetError
from etnet.inference.backends import MeasurableBackend
from etnet.inference.predictor import Predictor
from etnet.types import Float32Array, UInt8Array

STAGES = ("pre", "copy_in", "compute", "copy_out", "post")
"""Fitting the image, host to device, the network, device to host, restoring the image's geometry."""

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Contestant:
    """One way to run the network.

    Attributes:
        name: As users ask for it, such as `torch-bf16`.
        model: Weights, ONNX or engine file.
        backend: Name of the back-end that loads it.
        options: What else `Predictor.load` is given.
    """

    name: str
    model: Path
    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Times of repeated predictions of one batch.

    Attributes:
        batch: Images in a run.
        total: Seconds of each run from uint8 images to uint8 labels and edges in host memory [R], float32.
        stages: Seconds of each run [R] per stage; stages that a back-end does not have are missing. Taken in runs of
            their own, because telling them apart on a GPU means waiting between them.
    """

    batch: int
    total: Float32Array
    stages: Mapping[str, Float32Array]

    @property
    def images_per_second(self) -> float:
        """Images a second at the median time."""
        return self.batch / float(np.median(self.total))

    def to_dict(self) -> dict[str, Any]:
        """Percentiles in milliseconds, for JSON and tables."""
        return {
            "batch": self.batch,
            "runs": len(self.total),
            "milliseconds": {"total": _percentiles(self.total), **{n: _percentiles(s) for n, s in self.stages.items()}},
            "images_per_second": self.images_per_second,
        }


def _percentiles(seconds: Float32Array) -> dict[str, float]:
    return {f"p{p}": float(np.percentile(seconds, p)) * 1e3 for p in PERCENTILES}


class ContestantFailed(EnvironmentFault):
    """A contestant cannot run here; the text is its reason."""


class Runner:
    """A contestant in its own process; use as a context manager.

    Raises:
        ContestantFailed: (by every method) the model cannot run here, or its process died.
    """

    def __init__(self, contestant: Contestant, *, device: str = "auto", threads: int | None = None) -> None:
        """Start the process and load the model."""
        self.contestant = contestant
        # A fresh interpreter: a fork would inherit the threads and GPU contexts of this one.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, contestant, device, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True, name=contestant.name)
        self._process.start()
        theirs.close()
        try:
            self.ran_on: str = self._answer()
        except ContestantFailed:
            self.close()
            raise

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def labels(self, image: UInt8Array) -> UInt8Array:
        """Predicted labels [H, W] of an RGB image [H, W, 3]."""
        labels: UInt8Array = self._ask("labels", image)
        return labels

    def time(self, image: UInt8Array, *, batch: int, runs: int) -> Latency:
        """Predict `batch` copies of an RGB image [H, W, 3] `runs` times, after one run that does not count."""
        total, stages = self._ask("time", image, batch, runs)
        return Latency(batch, total, stages)

    def peak_memory(self) -> dict[str, int]:
        """Peak bytes so far: `host` resident in the process, and `device` where the back-end can tell."""
        peak: dict[str, int] = self._ask("peak_memory")
        return peak

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, *request: Any) -> Any:
        # Why the process is gone is told by the answer that does not come.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            done, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(timeout=10)
            raise ContestantFailed(f"{self.contestant.name}: {_how_it_ended(self._process.exitcode)}") from None
        if not done:
            raise ContestantFailed(value)
        return value


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"its process was ended by {signal.Signals(-exit_code).name}"
    return f"its process ended with exit code {exit_code}"


def take_turns(
    runners: Sequence[Runner], image: UInt8Array, *, batch: int, runs: int, rounds: int = 5
) -> Iterator[tuple[Runner, Latency | ContestantFailed]]:
    """Time all contestants in alternating rounds; one result per contestant, in their order.

    Args:
        runners: Contestants that are loaded.
        image: RGB image [H, W, 3], uint8.
        batch: Images in a run.
        runs: Runs of each contestant that count, spread over the rounds.
        rounds: How often each has its turn; never more than `runs`.
    """
    rounds = min(rounds, runs)
    parts: list[list[Latency]] = [[] for _ in runners]
    failures: dict[int, ContestantFailed] = {}
    for turn in range(rounds):
        share = runs // rounds + (turn < runs % rounds)
        for index, runner in enumerate(runners):
            if index not in failures:
                try:
                    parts[index].append(runner.time(image, batch=batch, runs=share))
                except ContestantFailed as failure:
                    failures[index] = failure
    for index, runner in enumerate(runners):
        yield runner, failures[index] if index in failures else _joined(parts[index])


def _joined(parts: Sequence[Latency]) -> Latency:
    stages = {name: np.concatenate([part.stages[name] for part in parts]) for name in parts[0].stages}
    return Latency(parts[0].batch, np.concatenate([part.total for part in parts]), stages)


def _serve(connection: Connection, contestant: Contestant, device: str, threads: int | None) -> None:
    """The contestant's process: load, then answer requests until None or the end of the connection."""
    # Ctrl-C reaches the whole process group; the parent decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            served = _Served(contestant, device, threads)
        except Exception as error:  # whatever a runtime raises becomes the row's reason
            connection.send((False, _reason(error)))
            return
        connection.send((True, served.predictor.backend.name))
        while (request := connection.recv()) is not None:
            method, *arguments = request
            try:
                connection.send((True, getattr(served, method)(*arguments)))
            except Exception as error:
                connection.send((False, _reason(error)))


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text if isinstance(error, EtnetError) else f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


class _Served:
    """What a contestant's process can be asked for; the requests of `Runner`."""

    def __init__(self, contestant: Contestant, device: str, threads: int | None) -> None:
        predictor = Predictor.load(
            contestant.model, backend=contestant.backend, device=device, threads=threads, options=contestant.options
        )
        # The network is measured: what finds and cuts the region of interest is the same for all contestants.
        self.predictor = predictor.of_regions()

    def labels(self, image: UInt8Array) -> UInt8Array:
        return self.predictor.predict(image, probabilities=False).labels

    def time(self, image: UInt8Array, batch: int, runs: int) -> tuple[Float32Array, dict[str, Float32Array]]:
        images = [image] * batch
        self.predictor.predict_batch(images, probabilities=False)
        total = []
        for _ in range(runs):
            start = time.perf_counter()
            self.predictor.predict_batch(images, probabilities=False)
            total.append(time.perf_counter() - start)
        stages: dict[str, list[float]] = {}
        for _ in range(runs):
            with self.predictor.timing() as seconds:
                self.predictor.predict_batch(images, probabilities=False)
            for name, value in seconds.items():
                stages.setdefault(name, []).append(value)
        return np.array(total, np.float32), {name: np.array(values, np.float32) for name, values in stages.items()}

    def peak_memory(self) -> dict[str, int]:
        peak = {"host": _peak_resident_bytes()}
        backend = self.predictor.backend
        device = backend.peak_device_memory() if isinstance(backend, MeasurableBackend) else None
        return peak if device is None else {**peak, "device": device}


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    # getrusage also counts what the parent held when it started this process.
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
