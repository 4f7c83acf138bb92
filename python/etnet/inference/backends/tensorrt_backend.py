"""Engines on an NVIDIA GPU by TensorRT, TensorRT-RTX or TensorRT's lean runtime; neither needs torch."""

from __future__ import annotations

import re
from pathlib import Path

from etnet.errors import UsageError
from etnet.inference.backends import NetworkOutputs, OpenedModel
from etnet.inference.model_file import ModelDescription
from etnet.trt.memory import MemoryName
from etnet.trt.runtime import EngineRunner
from etnet.types import UInt8Array


class TensorRtBackend:
    """Runs an engine; several threads may run it at once.

    Args:
        runner: The opened engine, which is closed with the backend.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner

    @property
    def name(self) -> str:
        """Runtime and device in a few words."""
        engine = self.runner.sidecar.engine
        return f"{engine.library if engine else 'tensorrt'} {self.runner.gpu}"

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The only (height, width) that the engine takes; None for all in its range."""
        return self.runner.sidecar.input.size

    @property
    def max_batch(self) -> int:
        """Most images in one run."""
        return self.runner.sidecar.input.batch[2]

    @property
    def concurrent_runs(self) -> int:
        """Execution contexts: while one computes, another prepares its images."""
        return self.runner.workers

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch; see `Backend.run`.

        Raises:
            UsageError: The engine does not take these images, or it is closed.
            EnvironmentFault: The GPU failed.
        """
        found = self.runner.run(images, self._wanted(probabilities=probabilities))
        return NetworkOutputs(found["labels"], found.get("edges"), found.get("probabilities"))

    def run_in_stages(
        self, images: UInt8Array, *, probabilities: bool = True
    ) -> tuple[NetworkOutputs, dict[str, float]]:
        """As `run`, with the seconds of `copy_in`, `compute` and `copy_out`; see `MeasurableBackend`."""
        found, seconds = self.runner.run_in_stages(images, self._wanted(probabilities=probabilities))
        return NetworkOutputs(found["labels"], found.get("edges"), found.get("probabilities")), seconds

    def peak_device_memory(self) -> None:
        """Not told by TensorRT, whose scratch memory and weights lie outside of the runner's own buffers."""

    def _wanted(self, *, probabilities: bool) -> list[str]:
        return [name for name in self.runner.sidecar.outputs if probabilities or name != "probabilities"]

    def close(self) -> None:
        """Free the engine."""
        self.runner.close()


def gpu_number(device: str) -> int:
    """The GPU meant by `auto`, `cuda` or `cuda:N`.

    >>> gpu_number("auto"), gpu_number("cuda:2")
    (0, 2)

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"auto|cuda(?::([0-9]{1,3}))?", device)
    if match is None:
        raise UsageError(f"device is '{device}'; an engine runs on an NVIDIA GPU: expected auto, cuda or cuda:N")
    return int(match[1] or 0)


def open_model(
    path: Path, *, device: str, threads: int | None, memory: MemoryName = "auto", workers: int = 2
) -> OpenedModel:
    """Open an engine; see `open_backend`. Processor threads have no meaning for it."""
    if threads is not None:
        raise UsageError(f"--threads: {path} runs on a GPU; leave the option out")
    runner = EngineRunner.open(path, device=gpu_number(device), memory=memory, workers=workers)
    return OpenedModel(TensorRtBackend(runner), ModelDescription.of_deployed(path, runner.sidecar))
