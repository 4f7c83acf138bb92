"""What an exported ONNX file says about itself, whichever runtime will read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.sidecar import METADATA_KEY, Sidecar, decode_sidecar, read_sidecar

_FATAL = 4  # onnxruntime's log level: what is wrong with a file is raised, too


def describe_onnx(path: Path) -> Sidecar:
    """The description of an exported ONNX file: its sidecar, or else the copy inside the file.

    Raises:
        ModelFileError: The file is missing, damaged, not exported by etnet, or has other bytes than its sidecar says.
        EnvironmentFault: The sidecar is missing and onnxruntime, which reads the copy, too.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such ONNX file; make one with: etnet export RUN --output {path}")
    return read_sidecar(path) or sidecar_from_metadata(path, _metadata(path))


def sidecar_from_metadata(path: Path, metadata: Mapping[str, str]) -> Sidecar:
    """The description inside an ONNX file.

    Args:
        path: The file, for errors.
        metadata: Its custom metadata.

    Raises:
        ModelFileError: The file was not exported by etnet, or its description is damaged.
    """
    if METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{path}: not exported by etnet, so that its classes and normalisation are unknown; "
            "make a file that etnet can run with: etnet export RUN"
        )
    return decode_sidecar(metadata[METADATA_KEY], origin=f"the metadata of {path}")


def refuse_damaged(path: Path, error: Exception) -> NoReturn:
    """Raise the sentence for a file that the runtime cannot read."""
    reason = " ".join(str(error).split())[-160:]
    raise ModelFileError(
        f"{path}: not a readable ONNX file ({reason}); copy it anew or export the model again"
    ) from error


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        import onnxruntime
    except ImportError:
        raise EnvironmentFault(
            f"{path} has no sidecar, and reading its metadata needs onnxruntime; install it with pip install "
            f"onnxruntime, or copy {path.name}.json beside it"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions share no base class of their own, and bytes that are no model can raise nearly any of them.
        refuse_damaged(path, error)
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    return metadata
