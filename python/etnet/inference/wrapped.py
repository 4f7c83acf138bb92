"""A predictor around a predictor, and a backend around a backend, which pass on everything that they do not change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from etnet.inference.backends import Backend, NetworkOutputs
from etnet.inference.predictor import Described, ImagePredictor
from etnet.inference.preprocess import Center
from etnet.types import Contract, Prediction, UInt8Array


class WrappedPredictor:
    """Base of such predictors; `predict_batch` is what they replace."""

    def __init__(self, inner: ImagePredictor) -> None:
        """Wrap a predictor, which is closed with this one."""
        self.inner = inner

    @property
    def contract(self) -> Contract:
        """Classes and image preparation."""
        return self.inner.contract

    @property
    def description(self) -> Described | None:
        """Where the model comes from; None for one that came from no file."""
        return self.inner.description

    @property
    def runs_on(self) -> str:
        """Runtime and device in a few words."""
        return self.inner.runs_on

    @property
    def needs_center(self) -> bool:
        """Whether every image comes with the centre of its region of interest."""
        return self.inner.needs_center

    @property
    def concurrent_runs(self) -> int:
        """Threads that may predict at once with a gain."""
        return self.inner.concurrent_runs

    def predict(self, image: UInt8Array, *, center: Center | None = None, probabilities: bool = True) -> Prediction:
        """Predict one RGB image [H, W, 3], uint8, of any size; see `predict_batch`."""
        return self.predict_batch([image], centers=[center], probabilities=probabilities)[0]

    def predict_batch(
        self,
        images: Sequence[UInt8Array],
        *,
        centers: Sequence[Center | None] | None = None,
        probabilities: bool = True,
    ) -> list[Prediction]:
        """Predict several RGB images [H, W, 3], uint8; see `Predictor.predict_batch`."""
        return self.inner.predict_batch(images, centers=centers, probabilities=probabilities)

    def timing(self) -> AbstractContextManager[dict[str, float]]:
        """Collect the seconds of each stage of the predictions inside the block."""
        return self.inner.timing()

    def close(self) -> None:
        """Free what the backends hold."""
        self.inner.close()


class WrappedBackend:
    """Base of backends around a backend; `run` is what they replace."""

    def __init__(self, backend: Backend) -> None:
        """Wrap a backend, which is closed with this one."""
        self.backend = backend

    @property
    def name(self) -> str:
        """Runtime and device of the backend."""
        return self.backend.name

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The only (height, width) that the network takes; None where it is free."""
        return self.backend.input_size

    @property
    def max_batch(self) -> int | None:
        """Most images in one run; None without a limit."""
        return self.backend.max_batch

    @property
    def concurrent_runs(self) -> int:
        """Threads that may run the network at once."""
        return self.backend.concurrent_runs

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch [N, H, W, 3], uint8; see `Backend.run`."""
        return self.backend.run(images, probabilities=probabilities)

    def close(self) -> None:
        """Free what the backend holds."""
        self.backend.close()
