"""From an RGB image of any size to a prediction in that image's own geometry, on any backend."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from etnet.errors import CheckFailed, DataError, ModelFileError
from etnet.inference.backends import NOT_FINITE, Backend, MeasurableBackend, NetworkOutputs, open_backend
from etnet.inference.decision import Decision, MostProbable
from etnet.inference.model_file import ModelDescription
from etnet.inference.preprocess import (
    Center,
    Geometry,
    fit,
    paste_plane,
    paste_probabilities,
    region_contract,
    restore,
    restore_labels,
)
from etnet.manifest import resolve_model
from etnet.types import Contract, Prediction, UInt8Array


class Described(Protocol):
    """What says of a model where it comes from."""

    def to_dict(self) -> dict[str, Any]:
        """What `summary.json` says about the model."""


class ImagePredictor(Protocol):
    """What segments images: one network (`Predictor`), or two of which the first finds where the second looks."""

    @property
    def contract(self) -> Contract:
        """Classes and image preparation."""

    @property
    def description(self) -> Described | None:
        """Where the model comes from; None for one that came from no file."""

    @property
    def runs_on(self) -> str:
        """Runtime and device in a few words, for reports, such as `torch cpu`."""

    @property
    def needs_center(self) -> bool:
        """Whether every image comes with the centre of its region of interest."""

    @property
    def concurrent_runs(self) -> int:
        """Threads that may predict at once with a gain."""

    def predict(self, image: UInt8Array, *, center: Center | None = None, probabilities: bool = True) -> Prediction:
        """Predict one RGB image [H, W, 3], uint8, of any size."""

    def predict_batch(
        self,
        images: Sequence[UInt8Array],
        *,
        centers: Sequence[Center | None] | None = None,
        probabilities: bool = True,
    ) -> list[Prediction]:
        """Predict several RGB images [H, W, 3], uint8; see `Predictor.predict_batch`."""

    def timing(self) -> AbstractContextManager[dict[str, float]]:
        """Collect the seconds of each stage of the predictions inside the block."""

    def close(self) -> None:
        """Free what the backends hold."""


class Predictor:
    """Pads, runs and crops; the backend sees only sizes that the network accepts.

    Example:
        >>> predictor = Predictor.load("runs/train/drive")  # doctest: +SKIP
        >>> predictor.predict(image).labels.shape == image.shape[:2]  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        backend: Backend,
        contract: Contract,
        *,
        description: ModelDescription | None = None,
        decision: Decision | None = None,
    ) -> None:
        """Join a backend with the contract of its weights.

        Args:
            backend: What runs the network.
            contract: Classes and image preparation.
            description: Of the file that the network came from.
            decision: How probabilities become labels; None takes the most probable class.
        """
        self.backend = backend
        self.contract = contract
        self.description = description
        self.decision = decision or MostProbable()
        self._stages: dict[str, float] | None = None

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """Open a run directory, a weights file, an ONNX file or an engine.

        Args:
            path: What to open; of a run directory, its best weights.
            backend: `torch`, `onnxruntime`, `openvino`, `tensorrt`, or `auto`, which chooses by the kind of file;
                `predictor.backend.name` says what was chosen.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: Processor threads of the runtime; None leaves it to the runtime.
            options: Options of that backend alone, such as `precision` of `torch`; see its `open_model`.

        Raises:
            ModelFileError: There is no usable model at the path.
            UsageError: The backend does not exist or does not run this kind of file.
            EnvironmentFault: The runtime or the device is missing.
        """
        model = resolve_model(Path(path))
        opened = open_backend(model, backend=backend, device=device, threads=threads, options=options)
        return cls(opened.backend, opened.description.contract, description=opened.description)

    def close(self) -> None:
        """Free what the backend holds."""
        self.backend.close()

    @property
    def runs_on(self) -> str:
        """Runtime and device in a few words, for reports, such as `torch cpu`."""
        return self.backend.name

    @property
    def needs_center(self) -> bool:
        """Whether every image comes with the centre of its region of interest."""
        return self.contract.roi is not None

    @property
    def concurrent_runs(self) -> int:
        """Threads that may predict at once with a gain."""
        return self.backend.concurrent_runs

    def of_regions(self) -> Predictor:
        """The same network for images that already are the region of interest; itself where there is none.

        Such images are resized to the region's size, and no centre is given.
        """
        if self.contract.roi is None:
            return self
        contract = region_contract(self.contract)
        return Predictor(self.backend, contract, description=self.description, decision=self.decision)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        """Predict several RGB images [H, W, 3], uint8; those of one padded size share a run of the network.

        Args:
            images: Images of any size.
            centers: (row, column) of the region of interest of each image, in pixels, the middle of the first pixel at
                (0.5, 0.5); for a network with a region of interest, and only for such.
            probabilities: Whether `Prediction.probabilities` is wanted; without it prediction is faster.

        Returns:
            Predictions of the whole images. Outside the region of interest the background is certain.

        Raises:
            DataError: An array is no RGB image, the model's fixed size is not that of the image, or a centre lies
                outside its image.
            UsageError: A centre is missing, or there is no use for it.
            ModelFileError: The network's outputs do not fit the contract.
            CheckFailed: The network gave numbers that are not finite.
        """
        given: Sequence[Center | None] = [None] * len(images) if centers is None else centers
        with self._stage("pre"):
            fitted = [fit(image, self.contract, center=at) for image, at in zip(images, given, strict=True)]
        for _, geometry in fitted:
            self._require_fitting_size(geometry)
        predictions: dict[int, Prediction] = {}
        for members in self._runs([geometry for _, geometry in fitted]):
            # Labels of a resized image come from its probabilities at its own size.
            resized = any(fitted[index][1].resized != fitted[index][1].source for index in members)
            needed = probabilities or resized or not self.decision.is_most_probable
            with self._stage("pre"):
                batch = np.stack([fitted[index][0] for index in members])
            outputs = self._run(batch, probabilities=needed)
            with self._stage("post"):
                for position, index in enumerate(members):
                    geometry, center = fitted[index][1], given[index]
                    found = self._prediction(outputs, position, geometry, probabilities=probabilities)
                    predictions[index] = replace(found, center=center)
        return [predictions[index] for index in range(len(images))]

    @contextmanager
    def timing(self) -> Iterator[dict[str, float]]:
        """Collect the seconds of each stage of the predictions inside the block, into the dictionary it yields.

        `pre` and `post` fit images and restore their geometry; `copy_in`, `compute` and `copy_out` are the backend's,
        or `compute` alone where it does not copy. Telling them apart makes a GPU wait, so that the sum is more than a
        prediction takes otherwise.
        """
        self._stages = {}
        try:
            yield self._stages
        finally:
            self._stages = None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._stages is not None:
            self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start

    def _runs(self, geometries: Sequence[Geometry]) -> Iterator[list[int]]:
        """Indices of the images that go through the network together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, geometry in enumerate(geometries):
            groups.setdefault(geometry.padded, []).append(index)
        for members in groups.values():
            step = self.backend.max_batch or len(members)
            yield from (members[start : start + step] for start in range(0, len(members), step))

    def _require_fitting_size(self, geometry: Geometry) -> None:
        fixed = self.backend.input_size
        # Padding a smaller image further would change the network's global context, and with it the mask.
        if fixed is not None and geometry.padded != fixed:
            needed = "{}x{}".format(*geometry.padded)
            raise DataError(
                f"the image has {geometry.size[0]}x{geometry.size[1]} pixels (height x width) and needs a network "
                f"input of {needed}, but this model takes only {fixed[0]}x{fixed[1]}; export one for this size with: "
                f"etnet export RUN --size {needed} (or --dynamic for all sizes)"
            )

    def _run(self, batch: UInt8Array, *, probabilities: bool) -> NetworkOutputs:
        outputs = self._outputs(batch, probabilities=probabilities)
        count, height, width = batch.shape[:3]
        classes = self.contract.num_classes
        expected = (count, classes, height, width)
        if outputs.probabilities is not None and outputs.probabilities.shape != expected:
            raise ModelFileError(
                f"the network returned class probabilities of shape {list(outputs.probabilities.shape)} where its "
                f"contract with {classes} classes asks for {list(expected)}; use another model file"
            )
        if outputs.labels.shape != (count, height, width):
            raise ModelFileError(
                f"the network returned labels of shape {list(outputs.labels.shape)} for images of shape "
                f"{list(batch.shape)}; use another model file"
            )
        highest = int(outputs.labels.max(initial=0))
        if highest == NOT_FINITE:
            raise CheckFailed(
                f"the network on {self.backend.name} returned numbers that are not finite; its weights are damaged or "
                "its training diverged, so train again or use another model file"
            )
        if highest >= classes:
            raise ModelFileError(
                f"the network returned class {highest}, but its contract has {classes} classes; use another model file"
            )
        return outputs

    def _outputs(self, batch: UInt8Array, *, probabilities: bool) -> NetworkOutputs:
        if self._stages is None:
            return self.backend.run(batch, probabilities=probabilities)
        if not isinstance(self.backend, MeasurableBackend):
            with self._stage("compute"):
                return self.backend.run(batch, probabilities=probabilities)
        outputs, seconds = self.backend.run_in_stages(batch, probabilities=probabilities)
        for name, value in seconds.items():
            self._stages[name] = self._stages.get(name, 0.0) + value
        return outputs

    def _prediction(
        self, outputs: NetworkOutputs, position: int, geometry: Geometry, *, probabilities: bool
    ) -> Prediction:
        restored = None if outputs.probabilities is None else restore(outputs.probabilities[position], geometry)
        exact = geometry.resized == geometry.source and self.decision.is_most_probable
        if exact or restored is None:
            labels = restore_labels(outputs.labels[position], geometry)
        else:
            labels = self.decision.labels(restored)
        edges = None
        if outputs.edges is not None:
            boundary = np.rint(restore(outputs.edges[position][None].astype(np.float32), geometry)[0]).astype(np.uint8)
            edges = paste_plane(boundary, geometry)
        return Prediction(
            labels=paste_plane(labels, geometry),
            probabilities=paste_probabilities(restored, geometry) if restored is not None and probabilities else None,
            edges=edges,
        )
