"""Test-time augmentation by mirror images: the network sees each image four times, and the results are averaged.

A backend around a backend, so that it works with every runtime, with tiles and with regions of interest alike: what is
mirrored is exactly what the network would have seen.
"""

from __future__ import annotations

import numpy as np

from etnet.inference.backends import NOT_FINITE, NetworkOutputs
from etnet.inference.decision import MostProbable
from etnet.inference.wrapped import WrappedBackend
from etnet.types import BoolArray, Float32Array, UInt8Array

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
"""Axes of [N, H, W] that are mirrored: none, columns, rows, both."""


class FlipAveragingBackend(WrappedBackend):
    """Averages the probabilities of regions and edges over an image and its three mirror images.

    Takes four times as long; of the network's outputs, one is in memory at a time.
    """

    @property
    def name(self) -> str:
        """Runtime and device of the backend, and what is done with them."""
        return f"{self.backend.name}, mean of 4 flips"

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch [N, H, W, 3], uint8; see `Backend.run`."""
        total, edge_total, broken = self._run_mirrored(images, FLIPS[0])
        for axes in FLIPS[1:]:
            maps, edges, failed = self._run_mirrored(images, axes)
            total += maps
            if edge_total is not None and edges is not None:
                edge_total += edges
            broken |= failed
        total /= len(FLIPS)
        labels = np.stack([MostProbable().labels(maps) for maps in total])
        labels[broken] = NOT_FINITE
        mean_edges = None if edge_total is None else np.rint(edge_total / len(FLIPS)).astype(np.uint8)
        return NetworkOutputs(labels, mean_edges, total if probabilities else None)

    def _run_mirrored(
        self, images: UInt8Array, axes: tuple[int, ...]
    ) -> tuple[Float32Array, Float32Array | None, BoolArray]:
        """Probabilities, edges and failed pixels of mirrored images, mirrored back."""
        outputs = self.backend.run(np.ascontiguousarray(np.flip(images, axes)), probabilities=True)
        if outputs.probabilities is None:
            raise ValueError(f"{self.backend.name} was asked for probabilities and gave none")
        # Maps have their rows and columns one axis later than labels, behind the classes.
        maps = np.array(np.flip(outputs.probabilities, tuple(axis + 1 for axis in axes)), np.float32)
        edges = None if outputs.edges is None else np.flip(outputs.edges, axes).astype(np.float32)
        return maps, edges, np.flip(outputs.labels == NOT_FINITE, axes).copy()
