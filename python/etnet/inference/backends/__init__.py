"""What every backend offers to the predictor; one file per runtime, each importing its runtime only when used."""

from __future__ import annotations

from typing import Protocol

from etnet.types import Float32Array, UInt8Array


class Backend(Protocol):
    """A network ready to run."""

    @property
    def name(self) -> str:
        """Runtime and device in a few words, for reports, such as `torch cpu`."""

    def run(self, images: UInt8Array) -> tuple[Float32Array, Float32Array | None]:
        """Predict a batch whose height and width already are what the network needs; normalisation happens inside.

        Args:
            images: RGB images [N, H, W, 3], uint8.

        Returns:
            Class probabilities [N, C, H, W], float32, in 0..1, and boundary probabilities [N, H, W], float32, in 0..1,
            or None for a network without edge guidance.
        """
