"""From an RGB image of any size to a prediction in that image's own geometry, on any backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from etnet.errors import CheckFailed, EnvironmentFault, ModelFileError
from etnet.inference.backends import Backend
from etnet.inference.preprocess import Geometry, fit, restore
from etnet.types import Contract, Float32Array, Prediction, UInt8Array


class Predictor:
    """Pads, runs and crops; the backend sees only sizes that the network accepts.

    Example:
        >>> predictor = Predictor.from_weights("runs/train/drive/weights/best.safetensors")  # doctest: +SKIP
        >>> predictor.predict(image).labels.shape == image.shape[:2]  # doctest: +SKIP
        True
    """

    def __init__(self, backend: Backend, contract: Contract) -> None:
        """Join a backend with the contract of its weights."""
        self.backend = backend
        self.contract = contract

    @classmethod
    def from_weights(cls, path: Path | str, *, device: str = "auto") -> Predictor:
        """Load a weights file or a run directory.

        Raises:
            ModelFileError: There are no usable weights at the path.
            EnvironmentFault: torch or the device is missing.
        """
        from etnet.manifest import read_weights_info, resolve_model

        weights = resolve_model(Path(path))
        contract = read_weights_info(weights).contract
        try:
            from etnet.inference.backends.torch_backend import TorchBackend
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise EnvironmentFault(
                f"{weights} needs torch, which is not installed here; install it with: pip install 'etnet[train]'"
            ) from error
        return cls(TorchBackend.from_file(weights, device=device), contract)

    def predict(self, image: UInt8Array) -> Prediction:
        """Predict one RGB image [H, W, 3], uint8, of any size."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[UInt8Array]) -> list[Prediction]:
        """Predict several RGB images [H, W, 3], uint8; those of one padded size share a run of the network.

        Raises:
            DataError: An array is no RGB image.
            ModelFileError: The network's outputs do not fit the contract.
            CheckFailed: The network gave numbers that are not finite.
        """
        fitted = [fit(image, self.contract) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (_, geometry) in enumerate(fitted):
            groups.setdefault(geometry.padded, []).append(index)
        predictions: dict[int, Prediction] = {}
        for members in groups.values():
            probabilities, edges = self._run(np.stack([fitted[index][0] for index in members]))
            for position, index in enumerate(members):
                edge = None if edges is None else edges[position]
                predictions[index] = _prediction(probabilities[position], edge, fitted[index][1])
        return [predictions[index] for index in range(len(images))]

    def _run(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array | None]:
        probabilities, edges = self.backend.run(batch)
        count, height, width = batch.shape[:3]
        expected = (count, self.contract.num_classes, height, width)
        if probabilities.shape != expected:
            raise ModelFileError(
                f"the network returned class probabilities of shape {list(probabilities.shape)} where its contract "
                f"with {self.contract.num_classes} classes asks for {list(expected)}; use another weights file"
            )
        if not np.isfinite(probabilities).all() or (edges is not None and not np.isfinite(edges).all()):
            raise CheckFailed(
                f"the network on {self.backend.name} returned numbers that are not finite; its weights are damaged or "
                "its training diverged, so train again or use another weights file"
            )
        return probabilities, edges


def _prediction(probabilities: Float32Array, edge: Float32Array | None, geometry: Geometry) -> Prediction:
    restored = restore(probabilities, geometry)
    return Prediction(
        labels=np.argmax(restored, axis=0).astype(np.uint8),
        probabilities=restored,
        edge=None if edge is None else restore(edge[None], geometry)[0],
    )
