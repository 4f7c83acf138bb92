"""Checkpoints: one safetensors file with a JSON header, complete or absent, never executable.

`best` holds the network; `last` also holds, under `training/`, the optimizer's moments and the state of torch's random
generators, so that a resumed run continues bit for bit. Where the recipe averages weights, the network in both files is
the averaged one, which is what everything but training reads; `last` holds the trained one under `training/`. The
learning rate and the order of samples are functions of the iteration (`schedule`, `data.loader`) and need no state of
their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from etnet.errors import DiskFault, ModelFileError
from etnet.manifest import TRAINING_PREFIX
from etnet.output import replacing

_RNG_CPU = f"{TRAINING_PREFIX}rng/cpu"
_RNG_CUDA = f"{TRAINING_PREFIX}rng/cuda"
_OPTIMIZER = f"{TRAINING_PREFIX}optimizer/"
_TRAINED = f"{TRAINING_PREFIX}network/"


def save_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors and header to `path` so that the old file stays until the new one is complete.

    Raises:
        DiskFault: The file cannot be written, for instance because the disk is full; the old one is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(plain, partial, dict(header))
        except SafetensorError as error:
            raise DiskFault(
                f"{path}: could not be written ({error}); the previous file was kept, free some space there"
            ) from error
        # safetensors makes files that only their owner can read; a model is for everyone whom the folder admits.
        partial.chmod(0o644)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())


def training_tensors(
    network: nn.Module, optimizer: torch.optim.Optimizer, *, average: nn.Module | None = None
) -> dict[str, Tensor]:
    """Everything a resumed run needs that is a tensor: network, optimizer moments, random generators.

    Args:
        network: The trained network.
        optimizer: Of its parameters.
        average: The network of averaged weights, where there is one; it takes the place of the trained one.
    """
    tensors = dict((network if average is None else average).state_dict())
    if average is not None:
        tensors.update({f"{_TRAINED}{name}": value for name, value in network.state_dict().items()})
    for index, moments in optimizer.state_dict()["state"].items():
        tensors.update({f"{_OPTIMIZER}{index}/{name}": value for name, value in moments.items()})
    tensors[_RNG_CPU] = torch.get_rng_state()
    device = next(network.parameters()).device
    if device.type == "cuda":
        tensors[_RNG_CUDA] = torch.cuda.get_rng_state(device)
    return tensors


def restore_training(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, *, average: nn.Module | None = None
) -> None:
    """Load what `training_tensors` gave into freshly built networks and optimizer.

    Args:
        path: A `last` file.
        network: Becomes the trained network.
        optimizer: Of its parameters.
        average: Becomes the network of averaged weights.

    Raises:
        ModelFileError: The file holds no training state (it is a `best` file), belongs to another network, or holds no
            averaged weights though they are asked for.
    """
    tensors = load_file(path)
    if _RNG_CPU not in tensors:
        raise ModelFileError(f"{path}: holds weights only; resume needs weights/last.safetensors")
    saved = {name: value for name, value in tensors.items() if not name.startswith(TRAINING_PREFIX)}
    trained = {name.removeprefix(_TRAINED): value for name, value in tensors.items() if name.startswith(_TRAINED)}
    if average is not None:
        if not trained:
            raise ModelFileError(f"{path}: holds no averaged weights; resume without training.ema_decay")
        _load(path, average, saved)
    _load(path, network, trained or saved)
    _restore_optimizer(tensors, optimizer)
    torch.set_rng_state(tensors[_RNG_CPU])
    device = next(network.parameters()).device
    if _RNG_CUDA in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors[_RNG_CUDA], device)


def _load(path: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelFileError(
            f"{path}: does not fit the recipe's network ({str(error).splitlines()[-1].strip()})"
        ) from None


def _restore_optimizer(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, moment = name.removeprefix(_OPTIMIZER).split("/")
            state.setdefault(int(index), {})[moment] = _laid_out_like(parameters[int(index)], value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment in the parameter's memory layout: element-wise kernels round differently when layouts are mixed."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
