"""ONNX files by OpenVINO, tuned for one image at a time, in the precision that is fastest on this processor.

On processors with bfloat16 units OpenVINO computes in bfloat16 unless told otherwise; the name of the backend says so.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from etnet.errors import UsageError
from etnet.inference.backends import NetworkOutputs, OpenedModel
from etnet.inference.backends.onnx_file import (
    OnnxFileBackend,
    refuse_out_of_memory,
    require_batch,
    require_open,
    require_outputs,
    require_processor,
)
from etnet.inference.model_file import ModelDescription
from etnet.onnx_sidecar import describe_onnx, refuse_damaged
from etnet.types import UInt8Array

_PRECISION_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "dynamic": "dynamic"}


class OpenVinoBackend(OnnxFileBackend):
    """Runs an exported file; threads that run it take turns.

    Args:
        path: ONNX file written by `etnet export`.
        threads: Processor threads; None takes what OpenVINO finds best for a single image.
        precision: `f32` or `bf16`; None is OpenVINO's choice: bfloat16 where the processor has it.

    Raises:
        ModelFileError: The file is missing, damaged, not from etnet, or has other bytes than its sidecar says.
        UsageError: The file holds int8 for TensorRT.
    """

    def __init__(self, path: Path, *, threads: int | None = None, precision: str | None = None) -> None:
        self.sidecar = describe_onnx(path)
        if self.sidecar.quantized_for == "tensorrt":
            # OpenVINO's handling of signed activations with float biases gave wrong masks where it was tried.
            raise UsageError(
                f"{path}: int8 for TensorRT, which OpenVINO does not compute rightly; export one for processors with: "
                "etnet export RUN --int8 --calibration DIR"
            )
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        core = openvino.Core()
        try:
            model = core.read_model(path)
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            refuse_damaged(path, error)
        require_outputs(path, [output.get_any_name() for output in compiled.outputs], self.sidecar)
        ran_in = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self._name = f"openvino cpu {_PRECISION_NAMES.get(ran_in, ran_in)}"
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        """Runtime, device and the precision in which it computes, such as `openvino cpu bfloat16`."""
        return self._name

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch; see `Backend.run`.

        Raises:
            UsageError: The file does not take images of this size, or the backend is closed.
            OutOfMemory: There is too little memory for this batch.
        """
        require_batch(images, self.sidecar.input, multiple=self.sidecar.contract.size_multiple)
        wanted = [name for name in self.sidecar.outputs if probabilities or name != "probabilities"]
        with self._turn:
            request = require_open(self._request)
            try:
                request.infer({"image": np.ascontiguousarray(images)}, share_inputs=True)
            except RuntimeError as error:
                refuse_out_of_memory(error, images, self.name)
                raise
            # The request's own memory holds the next results as well.
            found = {name: request.get_tensor(name).data.copy() for name in wanted}
        return NetworkOutputs(found["labels"], found.get("edges"), found.get("probabilities"))

    def close(self) -> None:
        """Free the compiled network."""
        self._request = None


def open_model(path: Path, *, device: str, threads: int | None, precision: str | None = None) -> OpenedModel:
    """Open an ONNX file; see `open_backend`, and `OpenVinoBackend` for the option."""
    require_processor(device, "openvino")
    backend = OpenVinoBackend(path, threads=threads, precision=precision)
    return OpenedModel(backend, ModelDescription.of_deployed(path, backend.sidecar))
