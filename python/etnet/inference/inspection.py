"""What a model file is, where it comes from, and whether it can run on this machine; nothing is loaded or run."""

from __future__ import annotations

import importlib.util
import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from etnet.inference.backends import BACKENDS, choose_backend
from etnet.inference.bundle import BundleDescription, read_bundle
from etnet.inference.model_file import ModelDescription
from etnet.manifest import read_weights_info, resolve_model
from etnet.onnx_sidecar import describe_onnx
from etnet.sidecar import file_sha256
from etnet.trt.plan import Obstacle, examine, read_plan

Kind = Literal["weights", "onnx", "engine"]


@dataclass(frozen=True)
class Link:
    """A file in the chain from weights over ONNX to engine.

    Attributes:
        kind: What it is.
        name: File name.
        sha256: Its SHA-256 when the next file was made from it.
        found: `here`, `changed` where the file of that name nearby has other bytes, or `not here`.
    """

    kind: Kind
    name: str
    sha256: str
    found: str


@dataclass(frozen=True)
class Inspection:
    """A model file as found.

    Attributes:
        kind: What it is.
        description: What it says about itself.
        backend: What runs it.
        runs_here: Whether that is possible on this machine.
        where: On what it would run; empty where it cannot.
        problem: Why it cannot run here; empty where it can.
        remedy: What to do, with the command; empty where nothing is to be done.
        chain: The file and those it was made from, the weights first.
    """

    kind: Kind
    description: ModelDescription
    backend: str
    runs_here: bool
    where: str
    problem: str
    remedy: str
    chain: tuple[Link, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        contract, sidecar = self.description.contract, self.description.sidecar
        values: dict[str, Any] = {
            "kind": self.kind,
            **self.description.to_dict(),
            "contract": asdict(contract),
            "runs_here": self.runs_here,
            "backend": self.backend,
            "where": self.where or None,
            "problem": self.problem or None,
            "remedy": self.remedy or None,
            "chain": [asdict(link) for link in self.chain],
        }
        if sidecar is not None:
            told = json.loads(sidecar.to_json())
            values |= {name: told[name] for name in ("input", "outputs", "versions", "verification", "engine")}
        return values


@dataclass(frozen=True)
class BundleInspection:
    """A bundle as found.

    Attributes:
        description: What it says about itself.
        localizer: Its first model as found.
        segmenter: Its second one.
    """

    description: BundleDescription
    localizer: Inspection
    segmenter: Inspection

    @property
    def runs_here(self) -> bool:
        """Whether both models can run on this machine."""
        return self.localizer.runs_here and self.segmenter.runs_here

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            **self.description.to_dict(),
            "runs_here": self.runs_here,
            "versions": self.description.bundle.versions,
            "localizer": self.localizer.to_dict(),
            "segmenter": self.segmenter.to_dict(),
        }


def inspect_bundle(folder: Path) -> BundleInspection:
    """Look at a bundle and its two models.

    Raises:
        ModelFileError: A file is missing or damaged, or was changed since the bundle was made.
    """
    described = read_bundle(folder)
    stages = (inspect_model(model.path) for model in (described.localizer, described.segmenter))
    return BundleInspection(described, *stages)


def inspect_model(path: Path) -> Inspection:
    """Look at a run directory, a weights file, an ONNX file or an engine.

    Raises:
        ModelFileError: The file is missing, damaged, not from etnet, or has no description.
    """
    model = resolve_model(path)
    backend = choose_backend(model)
    if backend == "tensorrt":
        return _engine(model)
    return _onnx(model) if model.suffix.lower() == ".onnx" else _weights(model)


def _weights(path: Path) -> Inspection:
    description = ModelDescription.of_weights(read_weights_info(path))
    chain = (Link("weights", path.name, description.sha256, "here"),)
    return _runnable("weights", description, "torch", chain)


def _onnx(path: Path) -> Inspection:
    sidecar = describe_onnx(path)
    description = ModelDescription.of_deployed(path, sidecar)
    chain = (_weights_link(path, description), Link("onnx", path.name, description.sha256, "here"))
    return _runnable("onnx", description, "onnxruntime", chain)


def _engine(path: Path) -> Inspection:
    sidecar = read_plan(path)
    description = ModelDescription.of_deployed(path, sidecar)
    chain = [_weights_link(path, description)]
    if sidecar.engine is not None:
        chain.append(_link("onnx", [path.with_name(sidecar.engine.onnx)], sidecar.engine.onnx_sha256))
    chain.append(Link("engine", path.name, description.sha256, "here"))
    found = examine(path, sidecar)
    if isinstance(found, Obstacle):
        return Inspection("engine", description, "tensorrt", False, "", found.problem, found.remedy, tuple(chain))
    where = f"{found.gpu.name} with {found.library.title}"
    return Inspection("engine", description, "tensorrt", True, where, "", "", tuple(chain))


def _runnable(kind: Kind, description: ModelDescription, backend: str, chain: tuple[Link, ...]) -> Inspection:
    entry = BACKENDS[backend]
    if importlib.util.find_spec(backend) is None:
        problem = f"{backend} is not installed here"
        return Inspection(kind, description, backend, False, "", problem, f"install it with: {entry.install}", chain)
    where = "the processor with ONNX Runtime" if backend == "onnxruntime" else "the processor or a GPU with PyTorch"
    sidecar = description.sidecar
    remedy = ""
    if sidecar is not None and sidecar.quantized_for == "tensorrt":
        where += ", slowly: its integers are made for TensorRT"
        model = shlex.quote(str(description.path))
        remedy = f"build an engine with: etnet build-engine {model} --backend tensorrt-rtx"
    return Inspection(kind, description, backend, True, where, "", remedy, chain)


def _weights_link(path: Path, description: ModelDescription) -> Link:
    name = description.source.weights
    folders = (path.parent, path.parent / "weights")
    return _link("weights", [folder / name for folder in folders], description.source.weights_sha256)


def _link(kind: Kind, candidates: list[Path], sha256: str) -> Link:
    there = [path for path in candidates if path.is_file()]
    if not there:
        return Link(kind, candidates[0].name, sha256, "not here")
    same = any(file_sha256(path) == sha256 for path in there)
    return Link(kind, candidates[0].name, sha256, "here" if same else "changed")
