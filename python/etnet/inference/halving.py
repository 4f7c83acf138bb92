"""Smaller batches where the device's memory does not hold the wanted ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.errors import OutOfMemory
from etnet.inference.backends import Backend, NetworkOutputs
from etnet.inference.wrapped import WrappedBackend
from etnet.types import UInt8Array


class HalvingBackend(WrappedBackend):
    """Halves the batch when the device runs out of memory, and keeps to the smaller size for images of that size."""

    def __init__(self, backend: Backend, on_smaller_batch: Callable[[int], None] | None = None) -> None:
        """Wrap a backend, which is closed with this one.

        Args:
            backend: What runs the network.
            on_smaller_batch: Told the new size the first time that a batch is halved.
        """
        super().__init__(backend)
        self._on_smaller_batch = on_smaller_batch
        self._lock = threading.Lock()
        self._most: dict[tuple[int, ...], int] = {}
        self._told = False

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch [N, H, W, 3], uint8; see `Backend.run`.

        Raises:
            OutOfMemory: There is too little memory for a single image.
        """
        parts: list[NetworkOutputs] = []
        done = 0
        while done < len(images):
            size = min(self._most.get(images.shape[1:], len(images)), len(images) - done)
            outputs = self._try(images[done : done + size], probabilities=probabilities)
            if outputs is not None:
                parts.append(outputs)
                done += size
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _try(self, images: UInt8Array, *, probabilities: bool) -> NetworkOutputs | None:
        """The outputs; None when the batch was too large, whose memory is free again after the return."""
        try:
            return self.backend.run(images, probabilities=probabilities)
        except (OutOfMemory, MemoryError):
            if len(images) == 1:
                raise
        self._halve(images.shape[1:], len(images) // 2)
        return None

    def _halve(self, shape: tuple[int, ...], smaller: int) -> None:
        with self._lock:
            self._most[shape] = min(self._most.get(shape, smaller), smaller)
            is_first, self._told = not self._told, True
        if is_first and self._on_smaller_batch is not None:
            self._on_smaller_batch(smaller)


def _joined(parts: list[NetworkOutputs]) -> NetworkOutputs:
    edges = [part.edges for part in parts]
    probabilities = [part.probabilities for part in parts]
    return NetworkOutputs(
        np.concatenate([part.labels for part in parts]), _all_or_none(edges), _all_or_none(probabilities)
    )


def _all_or_none(parts: list[Any]) -> npt.NDArray[Any] | None:
    return None if any(part is None for part in parts) else np.concatenate(parts)
