"""The ONNX file that an engine is built from: whether etnet exported it, and what it says about itself."""

from __future__ import annotations

from pathlib import Path

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.sidecar import METADATA_KEY, Sidecar, decode_sidecar, read_sidecar


def describe_onnx(path: Path) -> Sidecar:
    """The description of an exported ONNX file: its sidecar, or else the copy inside the file.

    Raises:
        ModelFileError: The file is missing, damaged, or was not exported by etnet.
        EnvironmentFault: The sidecar is missing and onnxruntime, which reads the copy, too.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such ONNX file; make one with: etnet export RUN --output {path}")
    sidecar = read_sidecar(path)
    if sidecar is not None:
        return sidecar
    text = _metadata(path).get(METADATA_KEY)
    if text is None:
        raise ModelFileError(
            f"{path}: was not exported by etnet (its metadata have no entry '{METADATA_KEY}'), so its classes and "
            "image preparation are unknown; export a trained run with: etnet export RUN"
        )
    return decode_sidecar(text, origin=f"the metadata of {path}")


def _metadata(path: Path) -> dict[str, str]:
    try:
        import onnxruntime
    except ImportError:
        raise EnvironmentFault(
            f"{path} has no sidecar, and reading its metadata needs onnxruntime; install it with pip install "
            f"onnxruntime, or copy {path.name}.json beside it"
        ) from None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        raise ModelFileError(
            f"{path}: not a readable ONNX file ({str(error).splitlines()[0]}); export it again with: etnet export RUN"
        ) from None
    return dict(session.get_modelmeta().custom_metadata_map)
