"""What every backend offers to the predictor; one file per runtime, imported only when that runtime is used."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from etnet.errors import EnvironmentFault, UsageError
from etnet.inference.model_file import ModelDescription
from etnet.types import Float32Array, UInt8Array

BackendName = Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"]

NOT_FINITE = 255
"""Label of a pixel for which the network gave numbers that are not finite; classes end at 254."""


class NetworkOutputs(NamedTuple):
    """What a network says about a batch.

    Attributes:
        labels: Most probable class per pixel [N, H, W], uint8; `NOT_FINITE` where the network gave no number.
        edges: Probability of a boundary times 255, rounded [N, H, W], uint8; None without edge guidance.
        probabilities: Class probabilities [N, C, H, W], float32, in 0..1; None when they were not asked for.
    """

    labels: UInt8Array
    edges: UInt8Array | None
    probabilities: Float32Array | None


class Backend(Protocol):
    """A network ready to run."""

    @property
    def name(self) -> str:
        """Runtime and device in a few words, for reports, such as `torch cpu`."""

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The only (height, width) that the network takes; None for any multiple of the contract's `size_multiple`."""

    @property
    def max_batch(self) -> int | None:
        """Most images in one run; None without a limit."""

    @property
    def concurrent_runs(self) -> int:
        """Threads that may call `run` at once with a gain."""

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch whose height and width already are what the network needs; normalisation happens inside.

        Args:
            images: RGB images [N, H, W, 3], uint8.
            probabilities: Whether class probabilities are wanted; without them less is computed and copied.
        """

    def close(self) -> None:
        """Free what the backend holds; it cannot run afterwards."""


@runtime_checkable
class MeasurableBackend(Protocol):
    """A backend that can tell its copies from its computing; `etnet benchmark` shows them."""

    def run_in_stages(
        self, images: UInt8Array, *, probabilities: bool = True
    ) -> tuple[NetworkOutputs, dict[str, float]]:
        """As `Backend.run`, and the seconds of `copy_in`, `compute` and `copy_out`, waiting for each to end."""

    def peak_device_memory(self) -> int | None:
        """Most bytes that were in use on the device so far; None on a processor or where the runtime hides it."""


class OpenedModel(NamedTuple):
    """A model file ready to run, and what it says about itself."""

    backend: Backend
    description: ModelDescription


class _BackendModule(Protocol):
    def open_model(self, path: Path, *, device: str, threads: int | None, **options: Any) -> OpenedModel: ...


@dataclass(frozen=True)
class BackendEntry:
    """A line of the registry.

    Attributes:
        module: Module with a function `open_model(path, *, device, threads, **options) -> OpenedModel`, whose options
            are the backend's own.
        package: The package that the module imports.
        suffixes: Files that it runs.
        install: Command that installs the package.
    """

    module: str
    package: str
    suffixes: tuple[str, ...]
    install: str


_HERE = "etnet.inference.backends"

BACKENDS: dict[str, BackendEntry] = {
    "torch": BackendEntry(f"{_HERE}.torch_backend", "torch", (".safetensors",), "pip install 'etnet[train]'"),
    "onnxruntime": BackendEntry(f"{_HERE}.onnxruntime_backend", "onnxruntime", (".onnx",), "pip install onnxruntime"),
    "openvino": BackendEntry(f"{_HERE}.openvino_backend", "openvino", (".onnx",), "pip install 'etnet[openvino]'"),
    "tensorrt": BackendEntry(
        f"{_HERE}.tensorrt_backend", "tensorrt", (".engine", ".plan"), "pip install 'etnet[tensorrt]'"
    ),
}
"""Backends by name; for `auto` the first one that runs the file is taken."""


def choose_backend(path: Path, wanted: str = "auto") -> str:
    """The backend that runs a model file.

    Args:
        path: Weights (any suffix that no other backend claims), ONNX file or engine.
        wanted: A name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: There is no such backend, or it does not run files of this kind.
    """
    able = [name for name, entry in BACKENDS.items() if path.suffix.lower() in entry.suffixes] or ["torch"]
    if wanted == "auto":
        return able[0]
    if wanted not in BACKENDS:
        raise UsageError(f"backend is '{wanted}'; expected auto, {', '.join(BACKENDS)}")
    if wanted not in able:
        raise UsageError(f"{path}: backend {wanted} {_what_it_runs(wanted, path)}")
    return wanted


def open_backend(
    path: Path,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> OpenedModel:
    """Open a model file with a backend.

    Args:
        path: Weights, ONNX file or engine.
        backend: A name of `BACKENDS`, or `auto`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Processor threads; None leaves it to the runtime.
        options: Options of that backend alone, see its `open_model`.

    Raises:
        UsageError: The backend does not exist, or does not run this file.
        ModelFileError: The file is damaged or was not written by etnet.
        EnvironmentFault: The runtime or the device is missing.
    """
    name = choose_backend(path, backend)
    entry = BACKENDS[name]
    try:
        module: _BackendModule = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name != entry.package:
            raise
        raise EnvironmentFault(
            f"{path} needs {entry.package}, which is not installed here; install it with: {entry.install}"
        ) from error
    return module.open_model(path, device=device, threads=threads, **(options or {}))


def _what_it_runs(name: str, path: Path) -> str:
    if name == "torch":
        return "runs weights; give it the run directory or weights file that this model was exported from"
    suffixes = " and ".join(BACKENDS[name].suffixes)
    model = shlex.quote(str(path))
    if name == "tensorrt":
        return f"runs {suffixes} files; make one with: etnet build-engine {model}"
    if path.suffix.lower() in BACKENDS["tensorrt"].suffixes:
        return f"runs {suffixes} files; give it the one that this engine was built from"
    return f"runs {suffixes} files; make one with: etnet export {model}"
