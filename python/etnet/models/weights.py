"""Starting weights of the encoder (paper Sec. 2.3: "ResNet-50 pretrained on ImageNet").

From timm's published weights, or from a file in timm's or torchvision's naming; files are never unpickled.
"""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from etnet.config.schema import encoder_weights_path
from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.manifest import TRAINING_PREFIX, read_weights_info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etnet.models.network import Backbone, SegmentationNetwork

NESTED_KEYS = ("state_dict", "model", "model_state_dict")
"""Where training programs put the weights inside a checkpoint."""

PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.features.", "body.encoder.model.", "encoder.", "backbone.")
"""What wrappers put before the names of a backbone's tensors, outermost first."""

COUNTER = "num_batches_tracked"
"""A counter of batch normalisation that older files lack and nothing here reads."""

HUB_PATIENCE_S = 8.0


@dataclass(frozen=True)
class EncoderWeightsReport:
    """Which tensors of the encoder were set, by their names in the encoder.

    Attributes:
        source: Where the weights come from: `none`, a timm name, or a file.
        loaded: Tensors set from the source.
        missing: Tensors that the source lacks; they keep their random start.
        unexpected: Entries of the source that the encoder has no place for, such as the classification head.
        note: A warning about the weights, or nothing; of a network without an encoder, that it has none.
    """

    source: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    note: str = ""

    def summary(self) -> str:
        """What was loaded and what did not match, in one or two lines."""
        if not self.loaded:
            return self.note or "Encoder starts from random weights."
        lines = f"Encoder starts from {self.source}: {len(self.loaded)} tensors loaded"
        lines += f", {_named(self.missing, 'missing and left random')}, {_named(self.unexpected, 'not used')}."
        return f"{lines}\n{self.note}" if self.note else lines


NO_ENCODER = EncoderWeightsReport(
    "none", note="The network has no encoder: it starts from random weights, whatever model.encoder_weights says."
)


def load_encoder_weights(model: SegmentationNetwork, source: str) -> EncoderWeightsReport:
    """Set the encoder's weights before training.

    Args:
        model: Network whose encoder is changed in place; on an error it is left as it was. One without an encoder is
            not changed.
        source: `none` (keep the random start), `imagenet` (timm's published weights for the encoder's name, from the
            local cache or the network) or a file: `.safetensors`, or any other suffix for what `torch.save` wrote,
            read without unpickling code.

    Returns:
        What was loaded and what did not match.

    Raises:
        ModelFileError: The file is missing, damaged, holds code, or is of another network.
        EnvironmentFault: `imagenet` without a network and without a cached copy.
        UsageError: `imagenet` for an encoder without published weights.
    """
    if model.encoder is None:
        return NO_ENCODER
    if source == "none":
        return EncoderWeightsReport(source)
    path = encoder_weights_path(source)
    return _load_published(model.encoder) if path is None else _load_from_file(model.encoder, path)


def read_tensors(path: Path) -> dict[str, Any]:
    """Read the names and tensors of a weights file, on the CPU.

    Args:
        path: `.safetensors`, or any other suffix for a file of `torch.save`.

    Returns:
        Entries of the file; of a checkpoint that nests its weights, the nested ones. Values may be no tensors.

    Raises:
        ModelFileError: The file is missing, damaged, or needs code to be run for reading it.
    """
    if not path.is_file():
        raise ModelFileError(
            f"{path}: no such weights file; expected a .safetensors or .pth file. Set model.encoder_weights to one, "
            "to imagenet or to none."
        )
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        # Bytes that are no weights reach torch's unpickler, where they can raise nearly anything.
        raise ModelFileError(f"{path}: {_reading_failed(error)}") from error
    nested = content
    while isinstance(nested, dict):
        content = nested
        nested = next((content[key] for key in NESTED_KEYS if isinstance(content.get(key), dict)), None)
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: holds a {type(content).__name__}; expected a state_dict of named tensors.")
    return content


def _reading_failed(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return (
            "holds Python objects besides tensors, which could run code and are not loaded; save the state_dict alone "
            "with torch.save, or as .safetensors."
        )
    return (
        f"cannot be read as a weights file ({_described(error)}); "
        "it is damaged or of another format, expected .safetensors or what torch.save writes."
    )


def _load_from_file(encoder: Backbone, path: Path) -> EncoderWeightsReport:
    wanted = encoder.features.state_dict()
    offered = _in_encoder_names(read_tensors(path), wanted)
    matching = {name: value for name, value in offered.items() if name in wanted and isinstance(value, Tensor)}
    _check_fit(encoder, matching, wanted, path)
    encoder.features.load_state_dict({**wanted, **matching})
    return EncoderWeightsReport(
        source=str(path),
        loaded=tuple(name for name in wanted if name in matching),
        missing=tuple(name for name in wanted if name not in matching and not name.endswith(COUNTER)),
        unexpected=tuple(str(name) for name in offered if name not in matching),
    )


def _check_fit(encoder: Backbone, matching: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    own = [name for name in wanted if not name.endswith(COUNTER)]
    found = sum(name in matching for name in own)
    if 2 * found < len(own):
        raise ModelFileError(
            f"{path}: holds {found} of the {len(own)} tensors of the encoder {encoder.name}; expected at least half of "
            f"them, named as in timm or torchvision ({own[0]}, ...). Is it of another network? Check model.encoder."
        )
    for name, value in matching.items():
        if value.shape != wanted[name].shape:
            raise ModelFileError(
                f"{path}: {name} has shape {list(value.shape)}; the encoder {encoder.name} needs "
                f"{list(wanted[name].shape)}. It is of another network: check model.encoder."
            )
        if not torch.isfinite(value).all():
            raise ModelFileError(f"{path}: {name} holds values that are not finite; use an undamaged weights file.")


def _in_encoder_names(content: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> dict[str, Any]:
    """Strip the wrappers' prefixes and spell names as timm's feature extractor does (`stages.0.` as `stages_0.`)."""
    names = dict(content)
    for prefix in PREFIXES:
        names = {str(name).removeprefix(prefix): value for name, value in names.items()}
    flattened = {name: name.replace(".", "_", 1) for name in names}
    return {flattened[name] if flattened[name] in wanted else name: value for name, value in names.items()}


def _load_published(encoder: Backbone) -> EncoderWeightsReport:
    published = timm.get_pretrained_cfg(encoder.name)
    if published is None or not published.has_weights:
        raise UsageError(
            f"model.encoder_weights=imagenet: timm has no published weights for {encoder.name}; "
            "use model.encoder_weights=none or a FILE."
        )
    tagged = f"{published.architecture}.{published.tag}" if published.tag else encoder.name
    if published.hf_hub_id and not _is_cached(published.hf_hub_id) and not _hub_answers():
        raise _no_network(tagged, "the Hugging Face hub does not answer")
    try:
        pretrained = timm.create_model(encoder.name, pretrained=True, **encoder.options)
    except Exception as error:
        # The hub client raises errors of whichever HTTP library it uses; all mean that the weights did not arrive.
        raise _no_network(tagged, f"{_described(error)}") from error
    weights = pretrained.state_dict()
    encoder.features.load_state_dict(weights)
    return EncoderWeightsReport(source=f"timm {tagged}", loaded=tuple(weights), note=_normalisation_note(published))


def _normalisation_note(published: Any) -> str:
    mean = tuple(round(value, 3) for value in published.mean)
    if mean == (0.485, 0.456, 0.406):
        return ""
    return f"These weights were trained with the image mean {mean}; etnet normalises with (0.485, 0.456, 0.406)."


def _is_cached(repo_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repo_id, name), str) for name in names)


def _hub_answers() -> bool:
    """Ask the hub once: its client retries a dead connection for minutes before it gives up."""
    from huggingface_hub import constants, get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_PATIENCE_S)
        except Exception:
            # Any failure means no answer; its kind depends on the HTTP library that the client uses.
            return
        answered.set()

    # In a thread, because resolving a name without a network can outlast every timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE_S)
    return answered.is_set()


def _no_network(tagged: str, cause: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"model.encoder_weights=imagenet: the weights {tagged} are not in the local cache and could not be fetched "
        f"({cause}). Start from random weights with --set model.encoder_weights=none, or name a file with "
        "--set model.encoder_weights=FILE (.pth or .safetensors)."
    )


def _named(names: tuple[str, ...], what: str, *, shown: int = 2) -> str:
    if not names:
        return f"none {what}"
    listed = ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
    return f"{len(names)} {what} ({listed})"


def _described(error: BaseException) -> str:
    """Kind of an error and the first sentence of what it says."""
    sentence = (str(error).splitlines() or [""])[0].split(". ")[0][:160]
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__


def load_network(path: Path) -> SegmentationNetwork:
    """Rebuild the network of a weights file written by `etnet train`.

    Args:
        path: `best.safetensors` or `last.safetensors` of a run.

    Returns:
        The network on the CPU with the file's weights, in evaluation mode.

    Raises:
        ModelFileError: The file is missing, damaged, or was not written by etnet.
        EnvironmentFault: The package that the network comes from is not installed.
    """
    from etnet.models.registry import build_model

    info = read_weights_info(path)
    network = build_model(info.recipe.model, info.contract.num_classes)
    tensors = {name: value for name, value in load_file(path).items() if not name.startswith(TRAINING_PREFIX)}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelFileError(
            f"{path}: its tensors do not fit the network of its recipe ({str(error).splitlines()[-1].strip()}); "
            "copy the file anew or train again"
        ) from None
    return network.eval()
