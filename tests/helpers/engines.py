"""Engine files for tests: a description that is right, around bytes that no library would load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from etnet.sidecar import EngineSpec, InputSpec, Sidecar, file_sha256, write_sidecar
from etnet.trt.driver import Gpu
from helpers.onnx_graphs import describe

A10 = Gpu(0, "NVIDIA A10", (8, 6))
BUILT_ON_A10 = EngineSpec(
    "tensorrt", "10.13.2", "cd" * 32, gpu="NVIDIA A10", compute_capability=(8, 6), layer_precisions={"fp16": 0.96}
)


def engine_sidecar(
    size: tuple[int, int] | None = (16, 32),
    *,
    profile: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None,
    num_classes: int = 2,
    engine: EngineSpec = BUILT_ON_A10,
) -> Sidecar:
    """The description of an engine for one to four images."""
    height, width = size or (None, None)
    described = describe("fp16", size, num_classes)
    return replace(described, input=InputSpec(height, width, (1, 2, 4), profile), engine=engine)


def write_engine_file(path: Path, sidecar: Sidecar | None = None) -> Path:
    """A file with the name of an engine, and its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"plan")
    described = replace(sidecar or engine_sidecar(), file_sha256=file_sha256(path), file_bytes=path.stat().st_size)
    write_sidecar(path, described)
    return path
