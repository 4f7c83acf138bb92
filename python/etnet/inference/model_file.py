"""What a model file says about itself, whichever kind it is: weights, ONNX or engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from etnet.manifest import WeightsInfo, read_weights_info
from etnet.onnx_sidecar import describe_onnx
from etnet.sidecar import Sidecar, Source, file_sha256
from etnet.types import Contract


@dataclass(frozen=True)
class ModelDescription:
    """A model file's own description.

    Attributes:
        path: The file.
        contract: Classes and image preparation.
        source: The trained weights behind it.
        precision: Precision of the network inside: `fp32`, `fp16` or `int8`.
        sidecar: All that a deployed model says; None for weights.
    """

    path: Path
    contract: Contract
    source: Source
    precision: str
    sidecar: Sidecar | None = None

    @classmethod
    def of_file(cls, path: Path) -> ModelDescription:
        """Describe a weights file or an ONNX file, without loading it.

        Raises:
            ModelFileError: The file is missing, damaged, or not from etnet.
            EnvironmentFault: A package that reads such files is missing.
        """
        if path.suffix.lower() == ".onnx":
            return cls.of_deployed(path, describe_onnx(path))
        return cls.of_weights(read_weights_info(path))

    @classmethod
    def of_weights(cls, info: WeightsInfo) -> ModelDescription:
        """Describe a weights file by its header."""
        source = Source(info.path.name, info.sha256, info.recipe.name, info.epoch, info.etnet_version)
        return cls(info.path, info.contract, source, "fp32")

    @classmethod
    def of_deployed(cls, path: Path, sidecar: Sidecar) -> ModelDescription:
        """Describe an ONNX file or an engine by its sidecar."""
        return cls(path, sidecar.contract, sidecar.source, sidecar.precision, sidecar)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        if self.sidecar is None:
            return self.source.weights_sha256
        return self.sidecar.file_sha256 or file_sha256(self.path)

    def to_dict(self) -> dict[str, Any]:
        """What `summary.json` says about the model."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "precision": self.precision,
            "weights_sha256": self.source.weights_sha256,
            "recipe": self.source.recipe,
            "epoch": self.source.epoch,
            "class_names": list(self.contract.class_names),
            "class_colors": [list(color) for color in self.contract.class_colors],
        }
