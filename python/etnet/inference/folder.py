"""Prediction of many inputs: one bad file stops no other, and no file is ever half written.

Images are read in displayed geometry (EXIF orientation applied) and results have that geometry. A volume is predicted
slice by slice, and its mask and edges are volumes.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from etnet.data.io import write_png
from etnet.data.roi import window_around
from etnet.data.volumes import Plane
from etnet.errors import EnvironmentFault, EtnetError
from etnet.inference.input_images import InputImage, open_input
from etnet.inference.inputs import InputItem, Inputs
from etnet.inference.measurements import MeasuredImage, Measurements, measure_prediction, write_measurements
from etnet.inference.overlay import draw_overlay
from etnet.inference.predictor import ImagePredictor
from etnet.output import disk_faults, write_csv
from etnet.types import Contract, Prediction, UInt8Array

FAILED_COLUMNS = ("file", "reason")


@dataclass(frozen=True)
class ImageOutcome:
    """What was written for one input; paths are relative to the output folder.

    Attributes:
        file: The input's id: its name, its path below the folder, or the table's id.
        height: Rows of the image, or of every slice.
        width: Columns.
        slices: 1 for an image, the number of slices for a volume.
        mask: Class indices.
        edge: Probability of a boundary times 255; None for a network without edge guidance.
        overlay: The classes over the image, or over the slice of a volume with most of them; None when not asked for.
        class_share: Share of each class in all pixels.
        measurements: What is read off the mask; of a volume, whose slices are no images of their own, all None.
    """

    file: str
    height: int
    width: int
    slices: int
    mask: str
    edge: str | None
    overlay: str | None
    class_share: dict[str, float]
    measurements: Measurements


@dataclass
class FolderOutcome:
    """All images of a run: `done` were written, `failed` are (file, reason)."""

    done: list[ImageOutcome] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Counts, time and every image, for JSON."""
        return {
            "counts": {"done": len(self.done), "failed": len(self.failed)},
            "seconds": round(self.seconds, 3),
            "images": [vars(outcome) for outcome in self.done],
            "failed": [dict(zip(FAILED_COLUMNS, row, strict=True)) for row in self.failed],
        }


def predict_folder(
    predictor: ImagePredictor,
    inputs: Inputs,
    output: Path,
    *,
    overlay: bool = False,
    batch_size: int = 1,
    plane: Plane = "axial",
    on_image: Callable[[str], None] | None = None,
) -> FolderOutcome:
    """Write masks, edges and overlays of all images, `measurements.csv` and `failed.csv`.

    Args:
        predictor: Network with its contract.
        inputs: What `find_inputs` found.
        output: Existing folder for the results.
        overlay: Also draw overlays.
        batch_size: Images of one padded size that go through the network together.
        plane: The plane in which volumes are cut.
        on_image: Called with each input's id when it is done or has failed.

    Raises:
        EnvironmentFault: The disk refuses to write; what is complete stays.
    """
    outcome = FolderOutcome(failed=list(inputs.unreadable))
    start = time.perf_counter()
    writer = _Writer(output, predictor.contract, overlay=overlay)
    try:
        for batch in _batches(inputs, predictor.contract, batch_size, plane=plane):
            for item, result in zip(batch, _predict_apart(predictor, batch, batch_size), strict=True):
                if isinstance(result, str) or item.opened is None:
                    outcome.failed.append((item.source.id, str(result)))
                else:
                    outcome.done.append(writer.write(item.opened, result))
                if on_image is not None:
                    on_image(item.source.id)
    except BaseException:
        # On a full disk the first error is the one to report.
        with contextlib.suppress(EnvironmentFault):
            _write_tables(outcome, output)
        raise
    _write_tables(outcome, output)
    outcome.seconds = time.perf_counter() - start
    return outcome


def _write_tables(outcome: FolderOutcome, output: Path) -> None:
    write_csv(output / "failed.csv", FAILED_COLUMNS, outcome.failed)
    write_measurements(
        output / "measurements.csv",
        [MeasuredImage(item.file, item.height, item.width, item.measurements) for item in outcome.done],
    )


@dataclass(frozen=True)
class _Item:
    """One input on its way: opened, or the reason why it is not."""

    source: InputItem
    opened: InputImage | None
    reason: str = ""


def _read(source: InputItem, contract: Contract, plane: Plane) -> _Item:
    try:
        return _Item(source, open_input(source, intensity_window=contract.intensity_window, plane=plane))
    except EtnetError as error:
        return _Item(source, None, str(error))
    except MemoryError:
        return _Item(source, None, f"{source.path}: not enough memory to read this image; cut it into parts")


def _read_ahead(inputs: Inputs, contract: Contract, depth: int, *, plane: Plane) -> Iterator[_Item]:
    """Read in one thread while the network works, at most `depth` images ahead, so that memory stays bounded."""
    waiting: deque[Future[_Item]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="etnet-read") as reader:
        sources = iter(inputs.items)
        try:
            for source in islice(sources, depth):
                waiting.append(reader.submit(_read, source, contract, plane))
            while waiting:
                item = waiting.popleft().result()
                for source in islice(sources, 1):
                    waiting.append(reader.submit(_read, source, contract, plane))
                yield item
        finally:
            for future in waiting:
                future.cancel()


def _batches(inputs: Inputs, contract: Contract, batch_size: int, *, plane: Plane) -> Iterator[list[_Item]]:
    items = _read_ahead(inputs, contract, depth=batch_size + 1, plane=plane)
    while batch := list(islice(items, batch_size)):
        yield batch


def _predict_apart(predictor: ImagePredictor, batch: list[_Item], batch_size: int) -> list[list[Prediction] | str]:
    """The slices of each input of a batch; when it fails as a whole, one by one, so that only the guilty is lost."""
    pictures = [item.opened for item in batch if item.opened is not None and item.opened.num_slices == 1]
    predicted = iter(_predict_images(predictor, [picture.pixels() for picture in pictures]))
    results: list[list[Prediction] | str] = []
    for item in batch:
        if item.opened is None:
            results.append(item.reason)
        elif item.opened.num_slices == 1:
            results.append(_named(item.source, [next(predicted)]))
        else:
            results.append(_named(item.source, _predict_slices(predictor, item.opened, batch_size)))
    return results


def _predict_slices(predictor: ImagePredictor, volume: InputImage, batch_size: int) -> list[Prediction | str]:
    """All slices, or those up to the first that fails: half a mask is none."""
    predicted: list[Prediction | str] = []
    for start in range(0, volume.num_slices, batch_size):
        indices = range(start, min(start + batch_size, volume.num_slices))
        predicted += _predict_images(predictor, [volume.pixels(index) for index in indices])
        for index in indices:
            if isinstance(predicted[index], str):
                return [f"slice {index}: {predicted[index]}"]
    return predicted


def _predict_images(predictor: ImagePredictor, images: list[UInt8Array]) -> list[Prediction | str]:
    if not images:
        return []
    try:
        return list(predictor.predict_batch(images, probabilities=False))
    except (EtnetError, MemoryError):
        return [_predict_one(predictor, image) for image in images]


def _predict_one(predictor: ImagePredictor, image: UInt8Array) -> Prediction | str:
    try:
        return predictor.predict(image, probabilities=False)
    except EtnetError as error:
        return str(error)
    except MemoryError:
        return f"not enough memory for an image of {image.shape[0]}x{image.shape[1]} pixels"


def _named(source: InputItem, results: list[Prediction | str]) -> list[Prediction] | str:
    reasons = [result for result in results if isinstance(result, str)]
    return f"{source.path}: {reasons[0]}" if reasons else [one for one in results if isinstance(one, Prediction)]


class _Writer:
    """Writes the files of one input, all or none."""

    def __init__(self, output: Path, contract: Contract, *, overlay: bool) -> None:
        self._output = output
        self._contract = contract
        self._overlay = overlay

    def write(self, opened: InputImage, predictions: list[Prediction]) -> ImageOutcome:
        name = opened.item.output_name
        mask, edge = (f"{folder}/{name}{opened.mask_suffix}" for folder in ("masks", "edges"))
        picture = f"overlays/{name}.png"
        labels = [prediction.labels for prediction in predictions]
        edges = [prediction.edges for prediction in predictions if prediction.edges is not None]
        colors = self._contract.class_colors
        pending: list[tuple[str, Callable[[Path], None]]] = [
            (mask, lambda path: opened.write_mask(path, labels, palette=colors))
        ]
        if edges:
            pending.append((edge, lambda path: opened.write_mask(path, edges)))
        if self._overlay:
            pending.append((picture, lambda path: write_png(path, self._draw(opened, predictions))))
        self._write_all(pending)
        counts = np.sum([np.bincount(part.ravel(), minlength=self._contract.num_classes) for part in labels], axis=0)
        measured = measure_prediction(predictions[0], self._contract)
        return ImageOutcome(
            file=opened.item.id,
            height=opened.size[0],
            width=opened.size[1],
            slices=opened.num_slices,
            mask=mask,
            edge=edge if edges else None,
            overlay=picture if self._overlay else None,
            class_share={
                class_name: round(float(share), 6)
                for class_name, share in zip(self._contract.class_names, counts / np.sum(counts), strict=True)
            },
            measurements=measured if opened.mask_suffix == ".png" else dict.fromkeys(measured),
        )

    def _draw(self, opened: InputImage, predictions: list[Prediction]) -> UInt8Array:
        index = int(np.argmax([np.count_nonzero(prediction.labels) for prediction in predictions]))
        image, prediction = opened.pixels(index), predictions[index]
        window = None
        if self._contract.roi is not None and prediction.center is not None:
            window = window_around(prediction.center, image.shape, self._contract.roi)
        return draw_overlay(image, prediction.labels, self._contract, window=window)

    def _write_all(self, pending: list[tuple[str, Callable[[Path], None]]]) -> None:
        written: list[Path] = []
        try:
            for relative, write in pending:
                path = self._output / relative
                with disk_faults(path.parent):
                    path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                written.append(path)
        except EnvironmentFault:
            for path in written:
                path.unlink(missing_ok=True)
            raise
