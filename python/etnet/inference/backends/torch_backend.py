"""The network in PyTorch, on CPU or one GPU. The only file of the inference layer that imports torch."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from etnet.errors import EnvironmentFault, UsageError
from etnet.inference.backends import NOT_FINITE, NetworkOutputs, OpenedModel
from etnet.inference.model_file import ModelDescription
from etnet.types import Contract, UInt8Array

if TYPE_CHECKING:
    from etnet.models.etnet import ETNet, ETNetOutput

Precision = Literal["float32", "bfloat16", "float16"]

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "could not allocate", "std::bad_alloc")


def resolve_device(device: str) -> torch.device:
    """The torch device meant by `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: The word is none of these.
        EnvironmentFault: A GPU is asked for and torch sees none, or not that one.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", device)
    if match is None:
        raise UsageError(f"device is '{device}'; expected auto, cpu, cuda or cuda:N")
    if device != "cpu":
        _check_cuda(int(match[1] or 0))
    return torch.device(device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch failed for want of memory; on a CPU only the text of the error tells."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        text in str(error).lower() for text in _OUT_OF_MEMORY
    )


def _check_cuda(index: int) -> None:
    if not torch.cuda.is_available():
        built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise EnvironmentFault(
            f"device cuda was asked for, but torch {torch.__version__} ({built_for}) sees no NVIDIA GPU; "
            "use --device cpu, or install a GPU driver and a torch build for it"
        )
    if index >= torch.cuda.device_count():
        raise EnvironmentFault(f"device cuda:{index} was asked for, but torch sees {torch.cuda.device_count()} GPU(s)")


class TorchBackend:
    """Runs an `ETNet` in evaluation mode."""

    def __init__(
        self, network: ETNet, contract: Contract, *, device: str = "auto", precision: Precision = "float32"
    ) -> None:
        """Move the network to the device; float32 by default so that a GPU gives the masks of a CPU."""
        self._device = resolve_device(device)
        self._precision = precision
        # NHWC is the faster layout of convolutions in both cuDNN and oneDNN.
        self._network = network.eval().to(device=self._device).to(memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(contract.mean, dtype=torch.float32, device=self._device).view(shape)
        self._std = torch.tensor(contract.std, dtype=torch.float32, device=self._device).view(shape)

    @classmethod
    def from_file(cls, path: Path, *, device: str = "auto", precision: Precision = "float32") -> TorchBackend:
        """Load a weights file written by training.

        Raises:
            ModelFileError: The file is damaged or was not written by etnet.
            EnvironmentFault: The device does not exist.
        """
        from etnet.manifest import read_weights_info
        from etnet.models.weights import load_network

        resolve_device(device)
        contract = read_weights_info(path).contract
        return cls(load_network(path), contract, device=device, precision=precision)

    @property
    def name(self) -> str:
        """Runtime and device in a few words."""
        return f"torch {self._device}"

    @property
    def input_size(self) -> None:
        """Any multiple of 16."""
        return None

    @property
    def max_batch(self) -> None:
        """As many as fit into memory."""
        return None

    def close(self) -> None:
        """Do nothing: the network's memory goes with its last reference, which may be a caller's."""

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch; see `Backend.run`.

        Raises:
            EnvironmentFault: The device has too little memory for this batch.
        """
        try:
            return self._run(images, probabilities=probabilities)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            count, height, width = images.shape[:3]
            raise EnvironmentFault(
                f"{self.name} has too little memory for {count} image(s) of {height}x{width} pixels; "
                "use a smaller --batch-size, smaller images, or another --device"
            ) from error

    def _run(self, images: UInt8Array, *, probabilities: bool) -> NetworkOutputs:
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2)
            # A permuted NHWC batch already is channels_last, and stays so.
            normalised = (batch.float() - self._mean) / self._std
            with self._autocast():
                output: ETNetOutput = self._network(normalised)
            logits = output.seg_logits.float()
            # argmax takes a NaN for the largest number, so that the largest one shows every NaN of its pixel.
            largest, labels = logits.max(dim=1)
            finite = torch.isfinite(largest)
            edges = None
            if output.edge_logits is not None:
                boundary = torch.softmax(output.edge_logits.float(), dim=1)[:, 1]
                finite &= torch.isfinite(boundary)
                edges = (boundary * 255).round().to(torch.uint8).cpu().numpy()
            labels = labels.to(torch.uint8).masked_fill_(~finite, NOT_FINITE)
            softmax = torch.softmax(logits, dim=1).contiguous().cpu().numpy() if probabilities else None
            return NetworkOutputs(labels.cpu().numpy(), edges, softmax)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self._precision))


def open_model(path: Path, *, device: str, threads: int | None) -> OpenedModel:
    """Open a weights file; see `open_backend`."""
    from etnet.manifest import read_weights_info

    if threads is not None:
        torch.set_num_threads(threads)
    backend = TorchBackend.from_file(path, device=device)
    return OpenedModel(backend, ModelDescription.of_weights(read_weights_info(path)))
