"""Batches for training: the whole run is one stream of samples, the same for any number of workers and any start."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.sample_cache import CachedDataset, CachePlace, local_processes
from etnet.data.transforms import TrainingSample, augment
from etnet.errors import DataError, EtnetError
from etnet.types import Sample, UInt8Array

_MAX_AUTO_WORKERS = 8
_SECONDS_AFTER_SIGTERM = 25


class Batch(NamedTuple):
    """Samples of one iteration.

    Attributes:
        ids: Name of the image behind each sample.
        images: RGB [N, 3, H, W], uint8, in channels-last memory: the order in which pictures are read.
        masks: Class indices [N, H, W], uint8, which the losses take as they are.
        edges: Boundary band [N, H, W], uint8, {0, 1} (and `ignore_index` where the mask has it).
    """

    ids: tuple[str, ...]
    images: torch.Tensor
    masks: torch.Tensor
    edges: torch.Tensor


@dataclass(frozen=True)
class StreamItem:
    """What stands at one position of the stream."""

    epoch: int
    index: int


@dataclass(frozen=True)
class SampleStream:
    """Every sample of a run in order: epoch after epoch, each a permutation, with no gap between them.

    Batches are cut from the stream without regard to epochs, so that every batch is full and a run has
    num_images * epochs / batch_size iterations (paper Sec. 2.3).

    Attributes:
        count: Number of images, at least 1.
        seed: Seed of the run.
    """

    count: int
    seed: int

    def item(self, position: int) -> StreamItem:
        """Epoch and data set index at a position, which is iteration * batch_size + place in the batch."""
        epoch, place = divmod(position, self.count)
        return StreamItem(epoch, int(_permutation(self.seed, epoch, self.count)[place]))

    def generator(self, item: StreamItem) -> np.random.Generator:
        """The source of all randomness in one sample."""
        return np.random.default_rng([self.seed, item.epoch, item.index])


def augment_by_recipe(sample: Sample, recipe: Recipe, *, generator: np.random.Generator) -> TrainingSample:
    """The crop that a run of this recipe trains on; see `augment`."""
    data = recipe.data
    return augment(
        sample,
        crop_size=data.crop_size,
        augmentation=recipe.augmentation,
        edge_width=data.edge_width,
        ignore_index=data.ignore_index,
        image_size=data.image_size,
        roi=data.roi,
        generator=generator,
    )


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    # The trailing words keep this apart from the generators of samples: seeds are padded with zeros.
    return np.random.default_rng([seed, epoch, 0, 1]).permutation(count)


def resolve_workers(workers: int | Literal["auto"], *, world_size: int = 1) -> int:
    """Number of loader processes; `auto` leaves one core to the training itself, and on two cores starts none.

    Of `world_size` training processes, those on this machine share its cores.
    """
    if workers != "auto":
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= local_processes(world_size)
    return 0 if cores <= 2 else min(_MAX_AUTO_WORKERS, cores - 1)


def build_training_loader(
    dataset: SegmentationDataset,
    recipe: Recipe,
    *,
    start_iteration: int,
    total_iterations: int,
    workers: int | Literal["auto"] = "auto",
    rank: int = 0,
    world_size: int = 1,
    cache_folder: Path | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> TrainingLoader:
    """A loader of the batches start_iteration .. total_iterations - 1; the same batches for any start and worker count.

    Args:
        dataset: Training samples.
        recipe: Crop, augmentation, batch size and seed.
        start_iteration: First batch, in 0..total_iterations.
        total_iterations: End of the run.
        workers: Loader processes; 0 loads in this one.
        rank: Number of the training process that loads.
        world_size: Training processes; each gets an equal part of every batch, or of each of the parts that
            `training.accumulate` computes it in, in the order of their ranks.
        cache_folder: For decoded images beyond `data.cache_memory`; made when it is needed, removed by the caller.
        warn: Told once if that folder takes no more; the batches are the same all the same.

    Raises:
        DataError: The data set is empty; also while iterating, when a file cannot be read.
    """
    if len(dataset) == 0:
        raise DataError("the training split holds no images; add some or lower data.validation_fraction")
    processes = resolve_workers(workers, world_size=world_size)
    place = CachePlace(cache_folder, workers=processes, local_processes=local_processes(world_size))
    cached = CachedDataset.by_recipe(dataset, recipe.data, place)
    source = _AugmentedStream(cached, SampleStream(len(dataset), recipe.training.seed), recipe)
    positions = _BatchPositions(
        start_iteration,
        total_iterations,
        recipe.training.batch_size,
        _places(recipe.training.batch_size, recipe.training.accumulate, rank=rank, world_size=world_size),
    )
    return TrainingLoader(source, positions, processes, warn=warn)


class TrainingLoader(DataLoader[Any]):
    """Yields `Batch`; what a worker could not read is raised here as the `EtnetError` that it was."""

    def __init__(
        self, source: _AugmentedStream, positions: Sampler[list[int]], workers: int, *, warn: Callable[[str], None]
    ) -> None:
        self._complaint, self._warn = source.dataset.complaint, warn
        super().__init__(
            source,
            batch_sampler=positions,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            # Its own generator: the loader draws a number when it starts, which must not move torch's global state.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # One pass is the whole run, so that the workers live as long as it does. They end when this reference does;
        # left to the collector of cycles, their queues would go first and the workers wait for ten seconds.
        batches = super().__iter__()
        failure: EtnetError | None = None
        warned = False
        try:
            for item in batches:
                if not warned and (complaint := self._complaint()):
                    warned = True
                    self._warn(complaint)
                if isinstance(item, EtnetError):
                    failure = item
                    break
                yield item.unpacked()
        finally:
            del batches
        if failure is not None:
            raise failure


class _PackedBatch(NamedTuple):
    """A batch on its way between processes, images [N, H, W, 3]; pinning turns the names into a list."""

    ids: Sequence[str]
    images: torch.Tensor
    masks: torch.Tensor
    edges: torch.Tensor

    def unpacked(self) -> Batch:
        return Batch(tuple(self.ids), self.images.permute(0, 3, 1, 2), self.masks, self.edges)


@dataclass(frozen=True)
class _BatchPositions(Sampler[list[int]]):
    start: int
    end: int
    batch_size: int
    places: Sequence[int]

    def __len__(self) -> int:
        return max(0, self.end - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.start, self.end):
            yield [iteration * self.batch_size + place for place in self.places]


def _places(batch_size: int, parts: int, *, rank: int, world_size: int) -> list[int]:
    """Places in a batch that a process takes: of each part its share, so that parts are cut alike by any processes."""
    share = batch_size // parts // world_size
    return [part * share * world_size + rank * share + place for part in range(parts) for place in range(share)]


@dataclass(frozen=True)
class _AugmentedStream(Dataset[Any]):
    dataset: CachedDataset
    stream: SampleStream
    recipe: Recipe

    def __getitem__(self, position: int) -> TrainingSample | EtnetError:
        item = self.stream.item(position)
        try:
            return augment_by_recipe(self.dataset.load(item.index), self.recipe, generator=self.stream.generator(item))
        except EtnetError as error:
            # Raised in the main process: a worker's exception would arrive wrapped in its traceback.
            return error


def _collate(samples: Sequence[TrainingSample | EtnetError]) -> _PackedBatch | EtnetError:
    good: list[TrainingSample] = []
    for sample in samples:
        if isinstance(sample, EtnetError):
            return sample
        good.append(sample)
    return _PackedBatch(
        tuple(sample.id for sample in good),
        _stacked([sample.image for sample in good]),
        _stacked([sample.mask for sample in good]),
        _stacked([sample.edge for sample in good]),
    )


def _stacked(arrays: Sequence[UInt8Array]) -> torch.Tensor:
    # In a worker this writes into shared memory at once.
    stacked: torch.Tensor = default_collate([torch.from_numpy(array) for array in arrays])
    return stacked


def _start_worker(_worker_id: int) -> None:
    cv2.setNumThreads(0)
    # So does SIGTERM reach the workers when torchrun or Slurm stops a run: they serve until the last step is saved, but
    # are gone when the launcher's patience of 30 seconds ends.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(_SECONDS_AFTER_SIGTERM))
    # Ctrl-C reaches every process of the terminal; the training process decides when the workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
