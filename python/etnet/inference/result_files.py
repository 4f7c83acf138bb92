"""Which files stand for one input, and how they are written: all of them or none."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from etnet.data.file_names import same_name_key
from etnet.data.io import write_png
from etnet.data.roi import window_around
from etnet.inference.input_images import InputImage
from etnet.inference.measurements import Measurements, measure_prediction, measure_volume
from etnet.inference.overlay import draw_overlay
from etnet.inference.results import ImageResult
from etnet.inference.uncertainty import boundary_uncertainty
from etnet.metrics.scale import PIXELS, millimetres
from etnet.output import disk_faults, write_bytes
from etnet.types import Contract, Float32Array, Prediction, UInt8Array

ProbabilityFormat = Literal["png", "npz"]

_Write = Callable[[Path], None]


@dataclass(frozen=True)
class OutputChoice:
    """What is written beside masks and measurements.

    Attributes:
        overlay: The classes over each image.
        edges: Probability of a boundary times 255, as 8-bit maps.
        probabilities: `png`: for each class but the background a 16-bit PNG of its probability times 65535; `npz`: one
            compressed NumPy file with `probabilities` [C, H, W], float16, and `class_names`. Of a volume always the
            latter, [C, S, H, W]. None writes none.
    """

    overlay: bool = False
    edges: bool = False
    probabilities: ProbabilityFormat | None = None


class ResultWriter:
    """Writes and measures what was predicted for one input; several threads may do so at once."""

    def __init__(self, output: Path, contract: Contract, choice: OutputChoice) -> None:
        """Write into an existing folder."""
        self._output = output
        self._contract = contract
        self._choice = choice

    def write(
        self,
        opened: InputImage,
        predictions: Sequence[Prediction],
        *,
        sha256: str,
        quality_flags: tuple[str, ...] = (),
    ) -> ImageResult:
        """Write the files of an input.

        Args:
            opened: The input.
            predictions: One for each of its slices.
            sha256: Of the input file.
            quality_flags: What may be wrong with the image.

        Raises:
            EnvironmentFault: The disk refuses; no file of this input is left.
        """
        contract, labels = self._contract, [prediction.labels for prediction in predictions]
        measurements = self._measure(opened, predictions)
        pending: dict[str, _Write] = {}
        mask = f"masks/{opened.item.output_name}{opened.mask_suffix}"
        pending[mask] = lambda path: opened.write_mask(path, labels, palette=contract.class_colors)
        edge = self._add_edges(pending, opened, predictions)
        probabilities = self._add_probabilities(pending, opened, predictions)
        overlay = self._add_overlay(pending, opened, predictions)
        self._write_all(pending)
        counts = np.sum([np.bincount(part.ravel(), minlength=contract.num_classes) for part in labels], axis=0)
        shares = (round(float(share), 6) for share in counts / np.sum(counts))
        return ImageResult(
            file=opened.item.id,
            sha256=sha256,
            table_spacing=opened.item.spacing,
            height=opened.size[0],
            width=opened.size[1],
            slices=opened.num_slices,
            mask=mask,
            edge=edge,
            probabilities=probabilities,
            overlay=overlay,
            class_share=dict(zip(contract.class_names, shares, strict=True)),
            measurements=measurements,
            uncertainty=self._uncertainty(predictions),
            quality_flags=quality_flags,
        )

    def _measure(self, opened: InputImage, predictions: Sequence[Prediction]) -> Measurements:
        spacing, contract = opened.spacing, self._contract
        if opened.slice_spacing is not None and spacing is not None:
            return measure_volume(
                np.stack([prediction.labels for prediction in predictions]),
                contract,
                spacing=(opened.slice_spacing, *spacing),
                values=opened.values(),
                source=opened.item.id,
            )
        scale = PIXELS if spacing is None else millimetres(*spacing, source=opened.item.id)
        return measure_prediction(predictions[0], contract, scale=scale)

    def _add_edges(
        self, pending: dict[str, _Write], opened: InputImage, predictions: Sequence[Prediction]
    ) -> str | None:
        edges = [prediction.edges for prediction in predictions if prediction.edges is not None]
        if not self._choice.edges or not edges:
            return None
        name = f"edges/{opened.item.output_name}{opened.mask_suffix}"
        pending[name] = lambda path: opened.write_mask(path, edges)
        return name

    def _add_probabilities(
        self, pending: dict[str, _Write], opened: InputImage, predictions: Sequence[Prediction]
    ) -> tuple[str, ...]:
        if self._choice.probabilities is None:
            return ()
        maps = [prediction.probabilities for prediction in predictions if prediction.probabilities is not None]
        names = self._contract.class_names
        if self._choice.probabilities == "npz" or opened.is_volume:
            array = np.stack([part.astype(np.float16) for part in maps], axis=1)
            array = array if opened.is_volume else array[:, 0]
            name = f"probabilities/{opened.item.output_name}.npz"
            pending[name] = lambda path: write_bytes(path, _npz(array, names))
            return (name,)
        # Names come from the header of the weights: as folders they hold no separator, and none is hidden or `..`.
        folders = [re.sub(r"^\.|[^\w.-]", "_", name)[:60] or "_" for name in names[1:]]
        if len({same_name_key(folder) for folder in folders}) < len(folders):
            folders = [f"{index}_{folder}" for index, folder in enumerate(folders, start=1)]
        files = tuple(f"probabilities/{folder}/{opened.item.output_name}.png" for folder in folders)
        for file, plane in zip(files, maps[0][1:], strict=True):
            pending[file] = _png_writer(plane)
        return files

    def _add_overlay(
        self, pending: dict[str, _Write], opened: InputImage, predictions: Sequence[Prediction]
    ) -> str | None:
        if not self._choice.overlay:
            return None
        name = f"overlays/{opened.item.output_name}.png"
        index = int(np.argmax([np.count_nonzero(prediction.labels) for prediction in predictions]))
        pending[name] = lambda path: write_png(path, self._draw(opened.pixels(index), predictions[index]))
        return name

    def _uncertainty(self, predictions: Sequence[Prediction]) -> float | None:
        """The mean over the slices that show a structure; None for a network without edge guidance."""
        # Slices beyond the structure agree on nothing being there, which says nothing of its border.
        shown = [prediction for prediction in predictions if prediction.labels.any()] or predictions
        found = (boundary_uncertainty(prediction, self._contract) for prediction in shown)
        scores = [one.score for one in found if one is not None]
        return round(float(np.mean(scores)), 6) if scores else None

    def _draw(self, image: UInt8Array, prediction: Prediction) -> UInt8Array:
        window = None
        if self._contract.roi is not None and prediction.center is not None:
            window = window_around(prediction.center, image.shape, self._contract.roi)
        uncertainty = boundary_uncertainty(prediction, self._contract)
        return draw_overlay(
            image,
            prediction.labels,
            self._contract,
            window=window,
            uncertainty=None if uncertainty is None else uncertainty.map,
        )

    def _write_all(self, pending: dict[str, _Write]) -> None:
        written: list[Path] = []
        try:
            for relative, write in pending.items():
                path = self._output / relative
                with disk_faults(path.parent):
                    path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                written.append(path)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise


def _npz(probabilities: npt.NDArray[np.float16], class_names: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, probabilities=probabilities, class_names=np.array(class_names))
    return buffer.getvalue()


def _png_writer(plane: Float32Array) -> _Write:
    return lambda path: write_png(path, np.rint(plane * np.float32(65535)).astype(np.uint16))
