"""The formats that `etnet benchmark` compares: what runs each, and the file it runs, made when first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from etnet.errors import EtnetError, UsageError
from etnet.export.checked import ExportRequest, export_checked
from etnet.inference.measure import Contestant
from etnet.sidecar import NetworkPrecision, QuantizedFor
from etnet.types import UInt8Array


@dataclass(frozen=True)
class Format:
    """One way to run a network.

    Attributes:
        backend: Back-end that runs it.
        file: Kind of file it runs.
        precision: Precision of that file.
        options: Options of the back-end.
    """

    backend: str
    file: Literal["weights", "onnx", "engine"]
    precision: NetworkPrecision = "fp32"
    options: Mapping[str, Any] = field(default_factory=dict)


FORMATS: dict[str, Format] = {
    "torch": Format("torch", "weights"),
    "torch-nchw": Format("torch", "weights", options={"channels_last": False, "tf32": None}),
    "torch-bf16": Format("torch", "weights", options={"precision": "bfloat16"}),
    "torch-fp16": Format("torch", "weights", options={"precision": "float16"}),
    "torch-compile": Format("torch", "weights", options={"compiled": True}),
    "torch-fp16-compile": Format("torch", "weights", options={"precision": "float16", "compiled": True}),
    "torch-tf32": Format("torch", "weights", options={"tf32": True}),
    "torch-fp16-graph": Format("torch", "weights", options={"precision": "float16", "cuda_graph": True}),
    "torch-tensorrt": Format(
        "torch", "weights", options={"precision": "float16", "compiled": True, "compiler": "tensorrt"}
    ),
    "onnxruntime": Format("onnxruntime", "onnx"),
    "onnxruntime-fp16": Format("onnxruntime", "onnx", "fp16"),
    "onnxruntime-int8": Format("onnxruntime", "onnx", "int8"),
    "openvino": Format("openvino", "onnx"),
    "openvino-f32": Format("openvino", "onnx", options={"precision": "f32"}),
    "openvino-int8": Format("openvino", "onnx", "int8"),
    "tensorrt-fp32": Format("tensorrt", "engine"),
    "tensorrt-fp16": Format("tensorrt", "engine", "fp16"),
    "tensorrt-int8": Format("tensorrt", "engine", "int8"),
}
"""Formats by name.

torch runs in channels-last and computes float32 but for `torch-nchw`, which is torch as it comes: on a GPU that rounds
the inputs of float32 convolutions to tf32. `torch-tf32` does so in matrix products too.
"""

DEFAULT_FORMATS = {
    "cpu": ("torch", "torch-bf16", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8", "tensorrt-fp16"),
    "cuda": ("torch", "torch-fp16", "torch-fp16-compile", "tensorrt-fp32", "tensorrt-fp16", "tensorrt-int8"),
}


def default_formats(device: str) -> tuple[str, ...]:
    """The formats that are usual for `auto`, `cpu`, `cuda` or `cuda:N`."""
    from etnet.trt.driver import ask_driver

    gpu = device.startswith("cuda") or (device == "auto" and bool(ask_driver().gpus))
    return DEFAULT_FORMATS["cuda" if gpu else "cpu"]


def parse_formats(text: str) -> tuple[str, ...]:
    """Read `--formats`: names of `FORMATS`, separated by commas.

    Raises:
        UsageError: A name is unknown or named twice.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names or len(set(names)) < len(names):
        wrong = f"'{unknown[0]}' is none of them" if unknown else f"got '{text}'"
        raise UsageError(f"--formats: expected distinct names of {', '.join(FORMATS)}; {wrong}")
    return names


class ModelFiles:
    """The files of one network, each made once.

    Args:
        model: Weights, an ONNX file or an engine. From weights the other files are made; others are run as they are.
        folder: Existing folder for the files that are made.
        size: (height, width) of the files that are made; None for all multiples of 16.
        batch: Smallest, best and largest batch of an engine.
        calibration: Images [H, W, 3], uint8, for int8.
    """

    def __init__(
        self,
        model: Path,
        folder: Path,
        *,
        size: tuple[int, int] | None,
        batch: tuple[int, int, int],
        calibration: Sequence[UInt8Array],
    ) -> None:
        self.model = model
        self.folder = folder
        self._size, self._batch, self._calibration = size, batch, calibration
        self._made: set[str] = set()
        self._failures: dict[str, EtnetError] = {}

    def contestant(self, name: str) -> Contestant:
        """A format with its file.

        Raises:
            EtnetError: The file cannot be made here; the text says why.
        """
        wanted = FORMATS[name]
        return Contestant(name, self.file(wanted), wanted.backend, wanted.options)

    def file(self, wanted: Format) -> Path:
        """The file that a format runs, see `contestant`."""
        given = {".onnx": "onnx", ".engine": "engine", ".plan": "engine"}.get(self.model.suffix.lower(), "weights")
        if wanted.file == given:
            if given != "weights":
                self._require_precision(wanted)
            return self.model
        if wanted.file == "onnx" and given == "weights":
            return self._onnx(wanted.precision, "processor")
        if wanted.file == "engine" and given != "engine":
            source = self.model if given == "onnx" else self._onnx(wanted.precision, "tensorrt")
            return self._once(f"model-{wanted.precision}.engine", partial(self._build, source, wanted.precision))
        needs = "the run or weights" if wanted.file == "weights" else "the run or an ONNX file"
        raise UsageError(f"needs {needs}, and {self.model.name} was given")

    def _require_precision(self, wanted: Format) -> None:
        from etnet.onnx_sidecar import describe_onnx
        from etnet.trt.plan import read_plan

        describe = describe_onnx if wanted.file == "onnx" else read_plan
        found = describe(self.model).precision
        if found != wanted.precision:
            raise UsageError(f"needs a file in {wanted.precision}, and {self.model.name} is in {found}")

    def _onnx(self, precision: NetworkPrecision, quantized_for: QuantizedFor) -> Path:
        # Only integers differ between the runtimes.
        marker = "-tensorrt" if precision == "int8" and quantized_for == "tensorrt" else ""
        return self._once(f"model-{precision}{marker}.onnx", partial(self._export, precision, quantized_for))

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file of that name, made once; one reason is enough for all formats that lack it.

        A file that lies there already is replaced: it may be of another network or another size.
        """
        path = self.folder / name
        if name in self._failures:
            raise self._failures[name]
        if name not in self._made:
            try:
                make(path)
            except EtnetError as error:
                self._failures[name] = error
                raise
            self._made.add(name)
        return path

    def _export(self, precision: NetworkPrecision, quantized_for: QuantizedFor, path: Path) -> None:
        request = ExportRequest(
            self.model, path, precision, self._size, self._batch, self._calibration, quantized_for=quantized_for
        )
        export_checked(request, ())

    def _build(self, source: Path, precision: NetworkPrecision, path: Path) -> None:
        from etnet.onnx_sidecar import describe_onnx
        from etnet.trt.builder import build_engine
        from etnet.trt.settings import BuildSettings

        # All images of a benchmark have the one size.
        free = describe_onnx(source).input.size is None
        profile = None if self._size is None or not free else (self._size, self._size, self._size)
        build_engine(source, path, BuildSettings(precision=precision, batch=self._batch, size_profile=profile))
