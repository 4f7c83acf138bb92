"""ONNX files on the processor by ONNX Runtime, which comes with every installation of etnet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

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
from etnet.onnx_sidecar import refuse_damaged, sidecar_from_metadata
from etnet.sidecar import read_sidecar
from etnet.types import UInt8Array

_SILENT = 4
"""Log level of ONNX Runtime: what goes wrong is raised, and need not be printed as well."""


class OnnxRuntimeBackend(OnnxFileBackend):
    """Runs an exported file; several threads may run it at once.

    Args:
        path: ONNX file written by `etnet export`.
        threads: Processor threads of one run; None takes all cores.

    Raises:
        ModelFileError: The file is missing, damaged, not from etnet, or has other bytes than its sidecar says.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        beside = read_sidecar(path)
        self._session: onnxruntime.InferenceSession | None = _open_session(path, threads=threads)
        self.sidecar = beside or sidecar_from_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        require_outputs(path, [output.name for output in self._session.get_outputs()], self.sidecar)

    @property
    def name(self) -> str:
        """Runtime and device in a few words."""
        return "onnxruntime cpu"

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch; see `Backend.run`.

        Raises:
            UsageError: The file does not take images of this size, or the backend is closed.
            OutOfMemory: There is too little memory for this batch.
        """
        session = require_open(self._session)
        require_batch(images, self.sidecar.input, multiple=self.sidecar.contract.size_multiple)
        wanted = [name for name in self.sidecar.outputs if probabilities or name != "probabilities"]
        try:
            values: list[Any] = session.run(wanted, {"image": np.ascontiguousarray(images)})
        except Exception as error:
            # Its exceptions share no base class of their own.
            refuse_out_of_memory(error, images, self.name)
            raise
        found = dict(zip(wanted, values, strict=True))
        return NetworkOutputs(found["labels"], found.get("edges"), found.get("probabilities"))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def open_model(path: Path, *, device: str, threads: int | None) -> OpenedModel:
    """Open an ONNX file; see `open_backend`."""
    require_processor(device, "onnxruntime")
    backend = OnnxRuntimeBackend(path, threads=threads)
    return OpenedModel(backend, ModelDescription.of_deployed(path, backend.sidecar))


def _open_session(path: Path, *, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions share no base class of their own, and bytes that are no model can raise nearly any of them.
        refuse_damaged(path, error)
