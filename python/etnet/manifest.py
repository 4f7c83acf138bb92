"""What a weights file says about itself, read without torch; and which file a run directory stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from etnet.config.load import recipe_from_values
from etnet.config.schema import Recipe
from etnet.errors import EnvironmentFault, EtnetError, ModelFileError
from etnet.sidecar import file_sha256
from etnet.types import Contract, TrainingRange

METADATA_KEY = "etnet"
FORMAT_VERSION = 1
BUNDLE_FILE = "bundle.json"
"""Describes a folder with the two networks of a localized segmentation; see `etnet.inference.bundle`."""
TRAINING_PREFIX = "training/"
"""Tensors under this prefix are the state of a training run (optimizer, random generators), not the network."""


@dataclass(frozen=True)
class WeightsInfo:
    """The header of a weights file.

    Attributes:
        path: The file.
        contract: Classes and image preparation.
        recipe: The recipe that trained it.
        iteration: Optimizer steps done.
        epoch: Passes over the training images done.
        etnet_version: Version of etnet that wrote the file.
        data_root: The data folder it was trained on, as given to the command.
        training_state: `training_ids`, the images trained on; in `last` also the plain values needed to resume.
    """

    path: Path
    contract: Contract
    recipe: Recipe
    iteration: int
    epoch: int
    etnet_version: str
    data_root: str
    training_state: Mapping[str, Any]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return file_sha256(self.path)


def encode_header(
    *,
    recipe: Recipe,
    iteration: int,
    epoch: int,
    data_root: str,
    training_state: Mapping[str, Any] | None = None,
    training_range: TrainingRange | None = None,
) -> dict[str, str]:
    """The safetensors metadata that `read_weights_info` reads back."""
    from etnet import __version__

    header = {
        "format": FORMAT_VERSION,
        "etnet_version": __version__,
        "contract": asdict(replace(recipe.contract(), training_range=training_range)),
        "recipe": recipe.model_dump(mode="json"),
        "iteration": iteration,
        "epoch": epoch,
        "data_root": data_root,
        "training_state": dict(training_state or {}),
    }
    return {METADATA_KEY: json.dumps(header)}


def read_weights_info(path: Path) -> WeightsInfo:
    """Read the header of a weights file written by `etnet train`.

    Raises:
        ModelFileError: The file is missing, damaged, or was not written by etnet.
        EnvironmentFault: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise EnvironmentFault(
            "reading weights needs safetensors; install it with pip install 'etnet[train]'"
        ) from None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such weights file") from None
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}); train again or copy it anew"
        ) from None
    if METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{path}: not written by etnet train; if it holds encoder weights, give it as model.encoder_weights"
        )
    return _decode_header(path, metadata[METADATA_KEY])


def _decode_header(path: Path, text: str) -> WeightsInfo:
    try:
        header = json.loads(text)
        if header["format"] != FORMAT_VERSION:
            raise ModelFileError(
                f"{path}: file format {header['format']} of etnet {header['etnet_version']}; "
                f"this etnet reads format {FORMAT_VERSION}, install the other version"
            )
        recipe = recipe_from_values(header["recipe"], origin=f"the recipe in {path}")
        return WeightsInfo(
            path=path,
            # Files of before the contract held the width say it in their recipe.
            contract=_contract({"edge_width": recipe.data.edge_width, **header["contract"]}),
            recipe=recipe,
            iteration=header["iteration"],
            epoch=header["epoch"],
            etnet_version=header["etnet_version"],
            data_root=header["data_root"],
            training_state=header["training_state"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path}: the etnet header is damaged ({error!r}); train again or copy the file anew"
        ) from None
    except EtnetError as error:
        raise ModelFileError(str(error)) from None


_CONTRACT = TypeAdapter(Contract)


def _contract(values: dict[str, Any]) -> Contract:
    return _CONTRACT.validate_python(values)


def resolve_model(path: Path) -> Path:
    """The weights file that MODEL stands for: itself, or `weights/best` (else `weights/last`) of a run directory.

    Raises:
        ModelFileError: There is no such file, or the directory holds no weights.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise ModelFileError(f"{path}: no such run directory or weights file; etnet train prints where it puts its run")
    for name in ("best", "last"):
        candidate = path / "weights" / f"{name}.safetensors"
        if candidate.is_file():
            return candidate
    if (path / BUNDLE_FILE).is_file():
        raise ModelFileError(
            f"{path}: is a bundle of two networks, which etnet infer, evaluate and inspect take (in Python "
            "etnet.open_predictor); here name one of the two model files in it"
        )
    raise ModelFileError(
        f"{path}: holds no weights/best.safetensors or weights/last.safetensors; is it a run directory?"
    )


def newest_run(root: Path = Path("runs/train")) -> Path | None:
    """The run directory under `root` whose weights were written last, or None."""
    weights = [file for name in ("best", "last") for file in root.glob(f"*/weights/{name}.safetensors")]
    if not weights:
        return None
    return max(weights, key=lambda file: file.stat().st_mtime).parents[1]
