"""What a deployed model (an ONNX file, an engine) says about itself: its contract, inputs, precision and origin.

The sidecar of `model.onnx` is `model.onnx.json`. An ONNX file carries the same text, less the fields that describe the
file itself, in its metadata under `METADATA_KEY`, so that it is complete without its sidecar. A plan file stays plain,
because `trtexec` must be able to load it, and is used only with its sidecar. Weights, ONNX and plan are chained by
SHA-256. Reading needs neither torch nor any runtime.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from etnet.errors import ModelFileError
from etnet.output import write_bytes
from etnet.types import Contract

METADATA_KEY = "etnet"
FORMAT_VERSION = 1
OUTPUTS = ("labels", "edges", "probabilities")

NetworkPrecision = Literal["fp32", "fp16", "int8"]
QuantizedFor = Literal["processor", "tensorrt"]


@dataclass(frozen=True)
class InputSpec:
    """The input `image`, uint8 RGB [N, H, W, 3].

    Attributes:
        height: Fixed height in pixels; None accepts any multiple of the contract's `size_multiple`.
        width: The same for the width.
        batch: Smallest, best and largest number of images in a run. An ONNX file takes any number; the engine built
            from it takes these.
        size_profile: For an engine with free size: (height, width) at least, at best and at most; None where the size
            is fixed, and in ONNX files.
    """

    height: int | None
    width: int | None
    batch: tuple[int, int, int] = (1, 1, 8)
    size_profile: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """The fixed (height, width); None where the size is free."""
        return None if self.height is None or self.width is None else (self.height, self.width)


@dataclass(frozen=True)
class Source:
    """The trained weights that a model was made from.

    Attributes:
        weights: File name of the weights.
        weights_sha256: SHA-256 of the weights file, hexadecimal.
        recipe: Name of the recipe that trained them.
        epoch: Passes over the training images done.
        etnet_version: Version of etnet that exported the model.
    """

    weights: str
    weights_sha256: str
    recipe: str
    epoch: int
    etnet_version: str


@dataclass(frozen=True)
class EngineSpec:
    """What only an engine has.

    Attributes:
        library: `tensorrt` or `tensorrt-rtx`.
        library_version: Exact version of the library that built it; another one refuses it unless `compatibility` says
            otherwise.
        onnx_sha256: SHA-256 of the ONNX file that it was built from.
        onnx: Name of that file.
        gpu: Name of the GPU it was built on; None where it was built without one.
        compute_capability: (major, minor) of that GPU; None without one.
        targets: Compute capabilities it was built for without a GPU, such as `sm86`; empty with one.
        cuda_version: CUDA version of the library that built it; None where it does not tell.
        driver_version: Driver version; None without a GPU.
        compatibility: Compatibility flags set, such as `version` or `hardware:ampere_plus`.
        layer_precisions: Share of the layers in each precision, 0..1; empty where the library does not tell.
        settings: Other settings of the build, such as workspace and optimisation level.
    """

    library: Literal["tensorrt", "tensorrt-rtx"]
    library_version: str
    onnx_sha256: str
    onnx: str = "model.onnx"
    gpu: str | None = None
    compute_capability: tuple[int, int] | None = None
    targets: tuple[str, ...] = ()
    cuda_version: str | None = None
    driver_version: str | None = None
    compatibility: tuple[str, ...] = ()
    layer_precisions: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sidecar:
    """A deployed model's description.

    Attributes:
        contract: Classes and image preparation, as in the weights.
        input: What the model takes.
        outputs: Its outputs: `labels` uint8 [N, H, W], `edges` uint8 [N, H, W] (boundary probability * 255; missing for
            a network without edge guidance), `probabilities` float32 [N, C, H, W].
        precision: Precision of the network inside.
        source: The weights.
        versions: Versions of the packages that made the file.
        verification: Figures of the comparison with PyTorch; None where none was made.
        quantized_for: Of an int8 file, the kind of runtime whose integers it holds: unsigned activations for
            processors, signed ones around zero for TensorRT; None for other precisions.
        engine: What only an engine has; None for ONNX.
        file_sha256: SHA-256 of the model file; None inside the file's own metadata.
        file_bytes: Length of the model file; None inside the file's own metadata.
        format: Version of this description.
    """

    contract: Contract
    input: InputSpec
    outputs: tuple[str, ...]
    precision: NetworkPrecision
    source: Source
    versions: dict[str, str] = field(default_factory=dict)
    verification: dict[str, Any] | None = None
    quantized_for: QuantizedFor | None = None
    engine: EngineSpec | None = None
    file_sha256: str | None = None
    file_bytes: int | None = None
    format: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The description as indented JSON text."""
        return _ADAPTER.dump_json(self, indent=2).decode()


_ADAPTER = TypeAdapter(Sidecar)


def sidecar_path(model: Path) -> Path:
    """The sidecar's own path.

    >>> sidecar_path(Path("lungs/model.onnx")).name
    'model.onnx.json'
    """
    return model.with_name(f"{model.name}.json")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sidecar(model: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of a model file, whole or not at all.

    Raises:
        EnvironmentFault: The disk refuses.
    """
    write_bytes(sidecar_path(model), sidecar.to_json().encode() + b"\n")


def decode_sidecar(text: str | bytes, *, origin: str) -> Sidecar:
    """Read a description from its JSON text; `origin` names it in errors.

    Raises:
        ModelFileError: The text is damaged or of another format version.
    """
    # Before the fields are looked at: those of another format are no damage.
    written_as, by = _format_of(text)
    if written_as != FORMAT_VERSION:
        raise ModelFileError(
            f"{origin}: format {written_as} of etnet {by}; this etnet reads format {FORMAT_VERSION}, export the model "
            "again"
        )
    try:
        sidecar = _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise ModelFileError(
            f"{origin}: the description of the model is damaged ({place}: {first['msg']}); export the model again"
        ) from None
    contradiction = _contradiction(sidecar)
    if contradiction:
        raise ModelFileError(
            f"{origin}: the description of the model is damaged ({contradiction}); export the model again"
        )
    return sidecar


def _format_of(text: str | bytes) -> tuple[object, str]:
    """Format version, and version of etnet, that a description names; this format where it names none."""
    try:
        content = json.loads(text)
        return content.get("format", FORMAT_VERSION), content.get("source", {}).get(
            "etnet_version", "of unknown version"
        )
    except (ValueError, AttributeError):
        return FORMAT_VERSION, ""


def _contradiction(sidecar: Sidecar) -> str:
    """What no export or build writes though the types allow it; empty where there is nothing of the kind."""
    names = [("source.weights", sidecar.source.weights)]
    if sidecar.engine is not None:
        names.append(("engine.onnx", sidecar.engine.onnx))
    for place, name in names:
        # A name with folders in it would point out of the model's own.
        if not name or Path(name).name != name:
            return f"{place}: '{name}' is no file name"
    if not set(sidecar.outputs) <= set(OUTPUTS):
        return f"outputs: expected names of {', '.join(OUTPUTS)}"
    if not 1 <= sidecar.input.batch[0] <= sidecar.input.batch[1] <= sidecar.input.batch[2]:
        return "input.batch: not in ascending order from 1"
    return ""


def read_sidecar(model: Path) -> Sidecar | None:
    """The description beside a model file, checked against the file's length and SHA-256; None where there is none.

    Raises:
        ModelFileError: The model is missing, the sidecar is damaged, or it belongs to other bytes.
    """
    path = sidecar_path(model)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    sidecar = decode_sidecar(text, origin=str(path))
    try:
        length, digest = model.stat().st_size, file_sha256(model)
    except OSError as error:
        raise ModelFileError(f"{model}: cannot be read ({error.strerror})") from None
    if (length, digest) != (sidecar.file_bytes, sidecar.file_sha256):
        raise ModelFileError(
            f"{model}: its bytes are not those that {path.name} describes ({length} bytes, SHA-256 {digest[:12]}...; "
            f"expected {sidecar.file_bytes} bytes, {str(sidecar.file_sha256)[:12]}...); copy both files anew or make "
            "the model again"
        )
    return sidecar
