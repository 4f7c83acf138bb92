"""What all runtimes of ONNX files share: the description of the file, and what it can be given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from etnet.errors import EnvironmentFault, ModelFileError, OutOfMemory, UsageError
from etnet.sidecar import InputSpec, Sidecar
from etnet.types import UInt8Array

Resource = TypeVar("Resource")

_OUT_OF_MEMORY = ("failed to allocate", "bad_alloc", "bad allocation", "out of memory", "cannot allocate memory")


class OnnxFileBackend:
    """What back-ends of ONNX files say of themselves in the same words.

    Attributes:
        sidecar: Description of the file.
    """

    sidecar: Sidecar

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The only (height, width) that the file takes; None for any multiple of the contract's `size_multiple`."""
        return self.sidecar.input.size

    @property
    def max_batch(self) -> None:
        """As many as fit into memory."""
        return None

    @property
    def concurrent_runs(self) -> int:
        """One: the runtime already spreads a run over the processors."""
        return 1


def require_outputs(path: Path, names: Sequence[str], sidecar: Sidecar) -> None:
    """Refuse a graph whose outputs are not those of its description.

    Raises:
        ModelFileError: Says which outputs there are.
    """
    if tuple(names) != sidecar.outputs:
        raise ModelFileError(
            f"{path}: the graph gives {', '.join(names)}, its description says {', '.join(sidecar.outputs)}; "
            "export the model again"
        )


def require_processor(device: str, runtime: str) -> None:
    """Refuse every device but the processor.

    Raises:
        UsageError: The word is no device.
        EnvironmentFault: A GPU is asked for.
    """
    if re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", device) is None:
        raise UsageError(f"device is '{device}'; expected auto, cpu, cuda or cuda:N")
    if device.startswith("cuda"):
        raise EnvironmentFault(
            f"{runtime} runs on the processor only; use --device cpu, or for a GPU make an engine from the same file "
            "with: etnet build-engine MODEL"
        )


def require_batch(images: UInt8Array, accepted: InputSpec, *, multiple: int) -> None:
    """Refuse a batch that the graph cannot take.

    Args:
        images: Candidate for [N, H, W, 3], uint8.
        accepted: Fixed sizes of the file.
        multiple: Height and width must be multiples of this where they are not fixed.

    Raises:
        UsageError: Says what the batch is and what would fit.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise UsageError(f"images have shape {images.shape} and type {images.dtype}; expected [N, H, W, 3] uint8 RGB")
    height, width = images.shape[1:3]
    padded = "x".join(str(-(-side // multiple) * multiple) for side in (height, width))
    if accepted.size is not None and (height, width) != accepted.size:
        raise UsageError(
            f"images have {height}x{width} pixels (height x width), but this model takes only "
            f"{accepted.size[0]}x{accepted.size[1]}; export one with: etnet export RUN --size {padded}"
        )
    if height % multiple or width % multiple:
        raise UsageError(
            f"images have {height}x{width} pixels (height x width); expected multiples of {multiple}: "
            f"pad them to {padded}"
        )


def require_open(resource: Resource | None) -> Resource:
    """What a backend runs with, unless it was closed.

    Raises:
        UsageError: The backend is closed.
    """
    if resource is None:
        raise UsageError("this model was closed; load it again to run it")
    return resource


def refuse_out_of_memory(error: Exception, images: UInt8Array, name: str) -> None:
    """Raise the sentence for too little memory; return when the error says something else.

    Raises:
        OutOfMemory: The runtime had too little memory for this batch.
    """
    if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _OUT_OF_MEMORY):
        count, height, width = images.shape[:3]
        raise OutOfMemory(
            f"{name} has too little memory for {count} image(s) of {height}x{width} pixels; "
            "use a smaller --batch-size or smaller images"
        ) from error
