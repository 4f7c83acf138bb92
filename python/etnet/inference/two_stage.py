"""Localize, then segment: two networks with the interface of one (paper Sec. 3, "first localize the disc centers")."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from etnet.inference.bundle import BundleDescription, is_bundle, read_bundle
from etnet.inference.localize import LocalizationRule, find_center
from etnet.inference.predictor import Predictor
from etnet.inference.preprocess import Center
from etnet.manifest import resolve_model
from etnet.types import Contract, Prediction, UInt8Array


class TwoStagePredictor:
    """Finds the centre of a structure in the whole image and segments the square around it.

    Example:
        >>> with TwoStagePredictor.load("glaucoma_bundle") as predictor:  # doctest: +SKIP
        ...     prediction = predictor.predict(image)
        >>> prediction.center, prediction.labels.shape == image.shape[:2]  # doctest: +SKIP
        ((871.2, 1190.5), True)
    """

    def __init__(
        self,
        localizer: Predictor,
        segmenter: Predictor,
        rule: LocalizationRule,
        *,
        description: BundleDescription | None = None,
    ) -> None:
        """Join a network that sees whole images with one that needs the centre of its region of interest."""
        self.localizer = localizer
        self.segmenter = segmenter
        self.rule = rule
        self.description = description
        self._stages: dict[str, float] | None = None

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> TwoStagePredictor:
        """Open a bundle's folder; the arguments are those of `Predictor.load` and hold for both networks.

        Raises:
            ModelFileError: The folder is no bundle, or one of its files is missing or was changed.
            UsageError: The backend does not exist or does not run one of the files.
            EnvironmentFault: The runtime or the device is missing.
        """
        described = read_bundle(Path(folder))
        with ExitStack() as opened:
            stages = []
            for model in (described.localizer, described.segmenter):
                stage = Predictor.load(model.path, backend=backend, device=device, threads=threads, options=options)
                stages.append(opened.enter_context(stage))
            opened.pop_all()
        return cls(stages[0], stages[1], described.bundle.rule, description=described)

    @property
    def contract(self) -> Contract:
        """Classes of the predictions, and the region of interest."""
        return self.segmenter.contract

    @property
    def runs_on(self) -> str:
        """Runtime and device of both networks in a few words."""
        names = (self.localizer.runs_on, self.segmenter.runs_on)
        return names[0] if names[0] == names[1] else f"{names[0]} (localizer) and {names[1]} (segmenter)"

    @property
    def needs_center(self) -> bool:
        """False: the first network finds it."""
        return False

    @property
    def concurrent_runs(self) -> int:
        """Threads that may predict at once with a gain."""
        return min(self.localizer.concurrent_runs, self.segmenter.concurrent_runs)

    def close(self) -> None:
        """Free what both backends hold."""
        self.localizer.close()
        self.segmenter.close()

    def __enter__(self) -> TwoStagePredictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def locate(self, image: UInt8Array) -> Center:
        """The centre (row, column) of the structure in an RGB image [H, W, 3], uint8, in pixels.

        Raises:
            LocalizationFailed: It was not found, or not for sure; the text says why.
            DataError: The array is no RGB image.
        """
        return self._locate_batch([image])[0]

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
        """Predict several RGB images [H, W, 3], uint8.

        Args:
            images: Images of any size.
            centers: Where to look, for instance at the true centre; None finds it, for one image or for all.
            probabilities: Whether `Prediction.probabilities` is wanted; without it prediction is faster.

        Returns:
            Predictions of the whole images with the centres that were taken. Outside the region of interest the
            background is certain.

        Raises:
            LocalizationFailed: In one of the images the structure was not found.
            DataError: An array is no RGB image, or a given centre lies outside its image.
        """
        given: list[Center | None] = [None] * len(images) if centers is None else list(centers)
        missing = [index for index, center in enumerate(given) if center is None]
        for index, center in zip(missing, self._locate_batch([images[index] for index in missing]), strict=True):
            given[index] = center
        return self.segmenter.predict_batch(images, centers=given, probabilities=probabilities)

    @contextmanager
    def timing(self) -> Iterator[dict[str, float]]:
        """Collect seconds as `Predictor.timing` does for the segmenter; `localize` is all of the first network's."""
        with self.segmenter.timing() as stages:
            self._stages = stages
            try:
                yield stages
            finally:
                self._stages = None

    def _locate_batch(self, images: Sequence[UInt8Array]) -> list[Center]:
        start = time.perf_counter()
        finds, roi = self.localizer.contract, self.contract.roi
        predictions = self.localizer.predict_batch(images, probabilities=False)
        centers = [find_center(prediction.labels, finds, self.rule, roi=roi) for prediction in predictions]
        if self._stages is not None:
            self._stages["localize"] = self._stages.get("localize", 0.0) + time.perf_counter() - start
        return centers


def open_predictor(
    path: Path | str,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Predictor | TwoStagePredictor:
    """Open whatever segments images: a bundle's folder, a run directory, a weights file, an ONNX file or an engine.

    See `Predictor.load` for the arguments and errors.
    """
    path = Path(path)
    if is_bundle(path):
        return TwoStagePredictor.load(path, backend=backend, device=device, threads=threads, options=options)
    model = resolve_model(path)
    return Predictor.load(model, backend=backend, device=device, threads=threads, options=options)
