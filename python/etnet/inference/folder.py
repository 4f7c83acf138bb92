"""Prediction of every image of a folder: one bad file stops no other, and no file is ever half written.

Images are read in displayed geometry (EXIF orientation applied) and results have that geometry. Only files directly in
the folder are taken; hidden files and other file types are skipped and counted.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from etnet.data.io import IMAGE_SUFFIXES, read_image, write_png
from etnet.data.roi import window_around
from etnet.errors import DataError, EnvironmentFault, EtnetError
from etnet.inference.measurements import MeasuredImage, Measurements, measure_prediction, write_measurements
from etnet.inference.overlay import draw_overlay
from etnet.inference.predictor import ImagePredictor
from etnet.output import disk_faults, write_csv
from etnet.types import Contract, Prediction, UInt8Array

FAILED_COLUMNS = ("file", "reason")


@dataclass(frozen=True)
class InputImages:
    """The images that a path stands for.

    Attributes:
        files: Image files, sorted by name.
        output_names: Stem of the results of each file, unique also where letter case does not count.
        skipped: Number of files that are no images by their suffix.
    """

    files: tuple[Path, ...]
    output_names: tuple[str, ...]
    skipped: int


@dataclass(frozen=True)
class ImageOutcome:
    """What was written for one image; paths are relative to the output folder."""

    file: str
    height: int
    width: int
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


def find_images(path: Path) -> InputImages:
    """List the images directly in a folder, or take a single file as it is.

    Raises:
        DataError: The path does not exist, or the folder holds no image.
    """
    if not path.exists():
        raise DataError(f"{path}: no such folder or image file")
    if path.is_file():
        return InputImages((path,), (path.stem,), 0)
    try:
        visible = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: the folder cannot be listed ({error.strerror})") from error
    files = tuple(entry for entry in visible if _is_image(entry))
    if not files:
        raise DataError(_no_image_sentence(path, len(visible)))
    return InputImages(files, assign_output_names([file.name for file in files]), len(visible) - len(files))


def assign_output_names(file_names: Sequence[str]) -> tuple[str, ...]:
    """Names for the results, one per input: the stem, or the full name where several inputs share a stem.

    Letter case does not distinguish names, because it does not on the file systems of macOS and Windows.

    >>> assign_output_names(["a.png", "b.jpg", "b.png"])
    ('a', 'b.jpg', 'b.png')
    """
    shared = Counter(Path(name).stem.lower() for name in file_names)
    taken: set[str] = set()
    assigned = []
    for name in file_names:
        stem = Path(name).stem
        wanted = stem if shared[stem.lower()] == 1 else name
        candidate, number = wanted, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{wanted}-{number}"
        taken.add(candidate.lower())
        assigned.append(candidate)
    return tuple(assigned)


def predict_folder(
    predictor: ImagePredictor,
    inputs: InputImages,
    output: Path,
    *,
    overlay: bool = False,
    batch_size: int = 1,
    on_image: Callable[[str], None] | None = None,
) -> FolderOutcome:
    """Write masks, edges and overlays of all images, `measurements.csv` and `failed.csv`.

    Args:
        predictor: Network with its contract.
        inputs: What `find_images` found.
        output: Existing folder for the results.
        overlay: Also draw overlays.
        batch_size: Images of one padded size that go through the network together.
        on_image: Called with each file name when it is done or has failed.

    Raises:
        EnvironmentFault: The disk refuses to write; what is complete stays.
    """
    outcome = FolderOutcome()
    start = time.perf_counter()
    writer = _Writer(output, predictor.contract, overlay=overlay)
    try:
        for batch in _batches(inputs, predictor.contract, batch_size):
            for item, result in zip(batch, _predict_apart(predictor, batch), strict=True):
                if isinstance(result, Prediction) and item.image is not None:
                    outcome.done.append(writer.write(item, item.image, result))
                else:
                    outcome.failed.append((item.file.name, str(result)))
                if on_image is not None:
                    on_image(item.file.name)
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
    """One input on its way: its pixels, or the reason why it has none."""

    file: Path
    name: str
    image: UInt8Array | None
    reason: str = ""


def _read(file: Path, name: str, contract: Contract) -> _Item:
    try:
        return _Item(file, name, read_image(file, intensity_window=contract.intensity_window))
    except EtnetError as error:
        return _Item(file, name, None, str(error))
    except MemoryError:
        return _Item(file, name, None, f"{file}: not enough memory to read this image; cut it into parts")


def _read_ahead(inputs: InputImages, contract: Contract, depth: int) -> Iterator[_Item]:
    """Read in one thread while the network works, at most `depth` images ahead, so that memory stays bounded."""
    waiting: deque[Future[_Item]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="etnet-read") as reader:
        pairs = iter(zip(inputs.files, inputs.output_names, strict=True))
        try:
            for file, name in islice(pairs, depth):
                waiting.append(reader.submit(_read, file, name, contract))
            while waiting:
                item = waiting.popleft().result()
                for file, name in islice(pairs, 1):
                    waiting.append(reader.submit(_read, file, name, contract))
                yield item
        finally:
            for future in waiting:
                future.cancel()


def _batches(inputs: InputImages, contract: Contract, batch_size: int) -> Iterator[list[_Item]]:
    items = _read_ahead(inputs, contract, depth=batch_size + 1)
    while batch := list(islice(items, batch_size)):
        yield batch


def _predict_apart(predictor: ImagePredictor, batch: list[_Item]) -> list[Prediction | str]:
    """Predict a batch; when it fails as a whole, image by image, so that only the guilty one is lost."""
    images = [item.image for item in batch if item.image is not None]
    try:
        predicted: list[Prediction | str] = list(predictor.predict_batch(images, probabilities=False))
    except (EtnetError, MemoryError):
        predicted = [_predict_one(predictor, image) for image in images]
    results = iter(predicted)
    return [item.reason if item.image is None else _named(item, next(results)) for item in batch]


def _predict_one(predictor: ImagePredictor, image: UInt8Array) -> Prediction | str:
    try:
        return predictor.predict(image, probabilities=False)
    except EtnetError as error:
        return str(error)
    except MemoryError:
        return f"not enough memory for an image of {image.shape[0]}x{image.shape[1]} pixels"


def _named(item: _Item, result: Prediction | str) -> Prediction | str:
    return f"{item.file}: {result}" if isinstance(result, str) else result


class _Writer:
    """Writes the files of one image, all or none."""

    def __init__(self, output: Path, contract: Contract, *, overlay: bool) -> None:
        self._output = output
        self._contract = contract
        self._overlay = overlay

    def write(self, item: _Item, image: UInt8Array, prediction: Prediction) -> ImageOutcome:
        mask = Path("masks") / f"{item.name}.png"
        edge = Path("edges") / f"{item.name}.png"
        picture = Path("overlays") / f"{item.name}.png"
        pending: list[tuple[Path, UInt8Array, tuple[tuple[int, int, int], ...] | None]] = [
            (mask, prediction.labels, self._contract.class_colors)
        ]
        if prediction.edges is not None:
            pending.append((edge, prediction.edges, None))
        if self._overlay:
            pending.append((picture, self._draw(image, prediction), None))
        self._write_all(pending)
        counts = np.bincount(prediction.labels.ravel(), minlength=self._contract.num_classes)
        return ImageOutcome(
            file=item.file.name,
            height=image.shape[0],
            width=image.shape[1],
            mask=mask.as_posix(),
            edge=edge.as_posix() if prediction.edges is not None else None,
            overlay=picture.as_posix() if self._overlay else None,
            class_share={
                name: round(float(count / prediction.labels.size), 6)
                for name, count in zip(self._contract.class_names, counts, strict=True)
            },
            measurements=measure_prediction(prediction, self._contract),
        )

    def _draw(self, image: UInt8Array, prediction: Prediction) -> UInt8Array:
        window = None
        if self._contract.roi is not None and prediction.center is not None:
            window = window_around(prediction.center, image.shape, self._contract.roi)
        return draw_overlay(image, prediction.labels, self._contract, window=window)

    def _write_all(self, pending: list[tuple[Path, UInt8Array, tuple[tuple[int, int, int], ...] | None]]) -> None:
        written: list[Path] = []
        try:
            for relative, array, palette in pending:
                path = self._output / relative
                with disk_faults(path.parent):
                    path.parent.mkdir(exist_ok=True)
                write_png(path, array, palette=palette)
                written.append(path)
        except EnvironmentFault:
            for path in written:
                path.unlink(missing_ok=True)
            raise


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _no_image_sentence(folder: Path, other_files: int) -> str:
    kinds = " ".join(sorted(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES))
    content = f"{other_files} file(s), none of them an image" if other_files else "no file"
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    fitting = [
        child.name for child in children if any(_is_image(entry) for entry in child.iterdir() if entry.is_file())
    ]
    if fitting:
        name = "images" if "images" in fitting else fitting[0]
        return f"{folder}: holds {content}, but its sub-folder {name} does; use {folder / name}"
    return f"{folder}: holds {content}; expected images with a suffix out of {kinds}"
