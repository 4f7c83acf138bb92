"""Inputs through reader threads, the network and writer threads, with a bounded number of them under way.

    read (hash, decode, check)  ->  batches of one size  ->  predict  ->  write (masks, measurements)

Reading runs ahead of the network and writing lags behind it, both by a bounded number of images, so that memory does
not grow with the number of inputs. While more than `MOST_PIXELS_UNDER_WAY` are decoded, none is read: what there is
goes to the disk first. The inputs that the reader threads have begun by then come on top.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from etnet.data.metaimage_header import read_metaimage_header
from etnet.data.picture_files import check_file
from etnet.data.volumes import Plane
from etnet.errors import DataError, EnvironmentFault, EtnetError, OutOfMemory
from etnet.inference.input_images import InputImage, open_input
from etnet.inference.inputs import InputItem
from etnet.inference.predictor import ImagePredictor
from etnet.inference.preprocess import plan
from etnet.inference.quality import quality_flags
from etnet.inference.result_files import ResultWriter
from etnet.inference.results import Failure, ImageResult, Result
from etnet.sidecar import file_sha256
from etnet.types import Contract, Prediction, UInt8Array

MOST_PIXELS_UNDER_WAY = 1 << 28
"""Pixels of decoded images beyond which no further one is read: about 800 MB of RGB."""

_MOST_JOBS = 8
_BATCHES_COLLECTED = 4

Finished = Callable[[InputItem, str], "ImageResult | None"]


@dataclass(frozen=True)
class Work:
    """How the work is spread; the results do not depend on it.

    Attributes:
        batch_size: Images of one size that go through the network together.
        jobs: Threads that read, and as many that write; None takes half of the processor's, at most 8.
        plane: The plane in which volumes are cut.
        probabilities: Whether class probabilities are wanted.
    """

    batch_size: int = 1
    jobs: int | None = None
    plane: Plane = "axial"
    probabilities: bool = False

    @property
    def threads(self) -> int:
        """Reader threads, and writer threads."""
        return self.jobs or min(_MOST_JOBS, max(1, (os.cpu_count() or 1) // 2))


@dataclass(frozen=True)
class Step:
    """One input has come to its end.

    Attributes:
        result: What became of it.
        is_new: False for a result of an earlier run that was kept.
    """

    result: Result
    is_new: bool = True


@dataclass(frozen=True)
class _Read:
    """An input that waits for the network."""

    opened: InputImage
    sha256: str
    quality_flags: tuple[str, ...]

    @property
    def item(self) -> InputItem:
        return self.opened.item

    @property
    def pixels(self) -> int:
        return math.prod(self.opened.size) * self.opened.num_slices


class Pipeline:
    """Segments a stream of inputs; one bad input stops no other."""

    def __init__(self, predictor: ImagePredictor, writer: ResultWriter, work: Work, *, finished: Finished) -> None:
        """Join the stages.

        Args:
            predictor: Network with its contract.
            writer: Writes the files of an input.
            work: How the work is spread.
            finished: Called with an input and its SHA-256; its result where it is complete already, else None.
        """
        self._predictor = predictor
        self._writer = writer
        self._work = work
        self._finished = finished
        self._under_way = _Gauge()
        self._is_stopped = threading.Event()
        self._predicting: deque[tuple[list[_Read], Future[list[list[Prediction] | str]]]] = deque()
        self._writing: deque[Future[Result]] = deque()

    def run(self, items: Iterable[InputItem]) -> Generator[Step, None, None]:
        """Segment the inputs; every one comes out once, in about the order in which they were given.

        Raises:
            EnvironmentFault: The disk refuses or the device fails; what is complete stays.
        """
        jobs = self._work.threads
        with ExitStack() as threads:
            self._readers = threads.enter_context(_pool("read", jobs))
            self._networks = threads.enter_context(_pool("predict", self._predictor.concurrent_runs))
            self._writers = threads.enter_context(_pool("write", jobs))
            try:
                yield from self._steps(items)
            except BaseException:
                self._is_stopped.set()
                for pool in (self._readers, self._networks, self._writers):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _steps(self, items: Iterable[InputItem]) -> Iterator[Step]:
        batches = _Batches(self._predictor.contract, self._work.batch_size)
        waiting: deque[Future[_Read | Step]] = deque()
        for item in items:
            while not self._may_read(waiting):
                # With nothing to wait for, all there is room for is on its way to the disk.
                yield from self._accept(waiting.popleft(), batches) if waiting else self._drain(batches)
            waiting.append(self._readers.submit(self._read, item))
        while waiting:
            yield from self._accept(waiting.popleft(), batches)
        yield from self._drain(batches)

    def _may_read(self, waiting: deque[Future[_Read | Step]]) -> bool:
        """Whether another input may be read ahead; one that is being read has a size that is not known yet."""
        if len(waiting) >= self._work.batch_size + self._work.threads:
            return False
        is_full = self._under_way.pixels > MOST_PIXELS_UNDER_WAY
        return not is_full and sum(not read.done() for read in waiting) < self._work.threads

    def _accept(self, reading: Future[_Read | Step], batches: _Batches) -> Iterator[Step]:
        read = reading.result()
        if not isinstance(read, _Read):
            yield read
            return
        for batch in batches.add(read):
            yield from self._predict(batch)

    def _drain(self, batches: _Batches) -> Iterator[Step]:
        for batch in batches.rest():
            yield from self._predict(batch)
        yield from self._collect(predicting=0, writing=0)

    def _read(self, item: InputItem) -> _Read | Step:
        try:
            check_file(item.path)  # a pipe or a device has no end to hash
            sha256 = input_sha256(item.path)
            kept = self._finished(item, sha256)
            if kept is not None:
                return Step(kept, is_new=False)
            contract = self._predictor.contract
            opened = open_input(item, intensity_window=contract.intensity_window, plane=self._work.plane)
            # Of a volume, the slice in the middle stands for all.
            flags = quality_flags(opened.pixels(opened.num_slices // 2), contract)
        except EtnetError as error:
            return Step(Failure(item.id, str(error)))
        except MemoryError:
            return Step(Failure(item.id, f"{item.path}: not enough memory to read this image; cut it into parts"))
        except Exception as error:  # one bad input stops no other, also one that nobody thought of
            return Step(Failure(item.id, _unexpected(item, "read", error)))
        read = _Read(opened, sha256, flags)
        self._under_way.add(read.pixels)
        return read

    def _predict(self, batch: list[_Read]) -> Iterator[Step]:
        self._predicting.append((batch, self._networks.submit(self._predict_apart, batch)))
        # One batch waits behind those that are computed, so that the network has work when it is done.
        yield from self._collect(predicting=self._predictor.concurrent_runs, writing=2 * self._work.threads)

    def _collect(self, *, predicting: int, writing: int) -> Iterator[Step]:
        """Pass on what is done, until at most so many batches are predicted and so many images written."""
        while len(self._predicting) > predicting:
            batch, predicted = self._predicting.popleft()
            for read, predictions in zip(batch, predicted.result(), strict=True):
                self._writing.append(self._writers.submit(self._write, read, predictions))
        while self._writing and (len(self._writing) > writing or self._writing[0].done()):
            yield Step(self._writing.popleft().result())

    def _write(self, read: _Read, predictions: list[Prediction] | str) -> Result:
        try:
            if isinstance(predictions, str):
                return Failure(read.item.id, predictions)
            return self._writer.write(read.opened, predictions, sha256=read.sha256, quality_flags=read.quality_flags)
        except EnvironmentFault:
            raise
        except EtnetError as error:
            return Failure(read.item.id, str(error))
        except MemoryError:
            return Failure(read.item.id, f"{read.item.path}: not enough memory to write its mask; cut it into parts")
        except Exception as error:  # one bad input stops no other, also one that nobody thought of
            return Failure(read.item.id, _unexpected(read.item, "measured and written", error))
        finally:
            self._under_way.add(-read.pixels)

    def _predict_apart(self, batch: list[_Read]) -> list[list[Prediction] | str]:
        """The slices of each input, or the reason why it has none; when all fail together, they are tried apart."""
        pictures = [read.opened for read in batch if read.opened.num_slices == 1]
        predicted = iter(self._predict_images([picture.pixels() for picture in pictures]))
        results: list[list[Prediction] | str] = []
        for read in batch:
            slices = [next(predicted)] if read.opened.num_slices == 1 else self._predict_slices(read.opened)
            results.append(_named(read.item, slices))
        return results

    def _predict_slices(self, volume: InputImage) -> list[Prediction | str]:
        """All slices, or those up to the first that fails: half a mask is none."""
        predicted: list[Prediction | str] = []
        step = self._work.batch_size
        for start in range(0, volume.num_slices, step):
            if self._is_stopped.is_set():
                return ["the run was stopped"]
            indices = range(start, min(start + step, volume.num_slices))
            predicted += self._predict_images([volume.pixels(index) for index in indices])
            for index in indices:
                if isinstance(predicted[index], str):
                    return [f"slice {index}: {predicted[index]}"]
        return predicted

    def _predict_images(self, images: list[UInt8Array]) -> list[Prediction | str]:
        if not images:
            return []
        try:
            return list(self._predictor.predict_batch(images, probabilities=self._work.probabilities))
        except (EtnetError, MemoryError) as error:
            _require_image_error(error)
        return [self._predict_one(image) for image in images]

    def _predict_one(self, image: UInt8Array) -> Prediction | str:
        try:
            return self._predictor.predict(image, probabilities=self._work.probabilities)
        except EtnetError as error:
            _require_image_error(error)
            return str(error)
        except MemoryError:
            return f"not enough memory for an image of {image.shape[0]}x{image.shape[1]} pixels"


def input_sha256(path: Path) -> str:
    """SHA-256 of an input; of a `.mhd` header and of the voxels in the file that it names.

    Of a header that names no file of voxels, which is refused when it is opened, it is that of the header alone.

    Raises:
        DataError: It cannot be read, or is a pipe, whose end would be waited for.
    """
    check_file(path)
    try:
        own = file_sha256(path)
        if path.suffix.lower() != ".mhd":
            return own
        try:
            voxels, _ = read_metaimage_header(path).voxel_file()
        except DataError:
            return own
        return own if voxels == path else hashlib.sha256((own + file_sha256(voxels)).encode()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}); check the path") from error


class _Gauge:
    """A number that several threads change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pixels = 0

    def add(self, pixels: int) -> None:
        with self._lock:
            self.pixels += pixels


class _Batches:
    """Collects inputs whose network input has one size."""

    def __init__(self, contract: Contract, size: int) -> None:
        self._contract = contract
        self._size = size
        self._groups: dict[tuple[int, ...], list[_Read]] = {}

    def add(self, read: _Read) -> Iterator[list[_Read]]:
        """Take an input, and give the batches that are due."""
        if read.opened.num_slices > 1:
            yield [read]
            return
        key = self._network_size(read.opened.size)
        self._groups.setdefault(key, []).append(read)
        if len(self._groups[key]) >= self._size:
            yield self._groups.pop(key)
        elif sum(map(len, self._groups.values())) > _BATCHES_COLLECTED * self._size:
            # Of many sizes, the one that waits longest.
            yield self._groups.pop(next(iter(self._groups)))

    def rest(self) -> Iterator[list[_Read]]:
        """The batches that were not filled."""
        while self._groups:
            yield self._groups.pop(next(iter(self._groups)))

    def _network_size(self, size: tuple[int, int]) -> tuple[int, ...]:
        return () if self._contract.roi is not None else plan(size, self._contract).padded


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"etnet-{name}")


def _require_image_error(error: BaseException) -> None:
    """Raise what concerns the device, and with it every image to come."""
    if isinstance(error, EnvironmentFault) and not isinstance(error, OutOfMemory):
        raise error


def _unexpected(item: InputItem, what: str, error: Exception) -> str:
    # Without the error's own words, which may quote a patient's name.
    return f"{item.path}: could not be {what} ({type(error).__name__}); please report this with the kind of the file"


def _named(item: InputItem, results: Sequence[Prediction | str]) -> list[Prediction] | str:
    reasons = [result for result in results if isinstance(result, str)]
    return f"{item.path}: {reasons[0]}" if reasons else [one for one in results if isinstance(one, Prediction)]
