"""Samples that are decoded and resized once in a run, and kept in memory or on disk."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from etnet.config.data_section import CacheLimit, DataSection
from etnet.data.dataset import SegmentationDataset
from etnet.data.resize import resize_image, resize_mask
from etnet.data.sample_tiers import SUFFIX, FileTier, Flag, MemoryTier, Pair
from etnet.environment.hardware import machine
from etnet.types import Sample

GIBIBYTE = 2**30
AUTO_SHARE = 4
"""`auto` takes one part in so many of what is free when the run starts."""


@dataclass(frozen=True)
class CachePlace:
    """Where samples may be kept, and with whom the limits are shared.

    Attributes:
        folder: For samples beyond the memory limit; None keeps none on disk. It is made when it is needed.
        workers: Loader processes of this training process; 0 where it loads itself.
        local_processes: Training processes on this machine, each with loaders of its own.
    """

    folder: Path | None = None
    workers: int = 0
    local_processes: int = 1


@dataclass
class CachedDataset:
    """The images and masks of a data set at the size that training begins from, each decoded once while there is room.

    What is returned equals, byte for byte, what decoding and resizing give. The field of view and reference values are
    left out. Where processes are not forked, only the files are shared, and nothing is kept in memory.

    Attributes:
        dataset: Where samples come from.
        image_size: (height, width) to which they are resized; None keeps their size.
        memory: Asked first; None keeps nothing in memory.
        files: Asked second; None keeps nothing on disk.
    """

    dataset: SegmentationDataset
    image_size: tuple[int, int] | None = None
    memory: MemoryTier | None = None
    files: FileTier | None = None
    _keys: dict[int, str] = field(default_factory=dict, repr=False)

    @classmethod
    def by_recipe(cls, dataset: SegmentationDataset, data: DataSection, place: CachePlace) -> CachedDataset:
        """A cache within the recipe's limits.

        Args:
            dataset: Where samples come from.
            data: Image size and limits.
            place: Where, and shared with whom.
        """
        files = None if place.folder is None else _file_tier(place.folder, data.cache_disk, place)
        return cls(dataset, data.image_size, _memory_tier(len(dataset), data.cache_memory, place), files)

    @property
    def ids(self) -> tuple[str, ...]:
        """A unique name per sample."""
        return self.dataset.ids

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Sample:
        """Reads one pair, or returns the one read before; callers must not write into its arrays."""
        pair = self._find(index)
        if pair is None:
            # Taken before decoding: a file that changes meanwhile is not kept as what it is now.
            key = self._key(index)
            pair = self._decode(index)
            if not (self.memory and self.memory.keep(index, pair)) and self.files and key:
                self.files.keep(key, pair)
        return Sample(self.ids[index], pair.image, pair.mask)

    def image_path(self, index: int) -> Path:
        """Where the image of a sample lies."""
        return self.dataset.image_path(index)

    def source_key(self, index: int) -> str:
        """Names what a sample is decoded from; see `SegmentationDataset`."""
        return self.dataset.source_key(index)

    def complaint(self) -> str | None:
        """Why samples are decoded anew though there is a limit left, if so; the same for all processes."""
        if self.files is None or not self.files.refused.is_set():
            return None
        return (
            f"{self.files.folder}: no more decoded images can be kept there (the disk is full or cannot be "
            "written), so those beyond data.cache_memory are decoded every time; the result is the same, but training "
            "may be slower; free some space, raise data.cache_memory, or set data.cache_disk: 0"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Processes that are not forked do not inherit the mapping, and a copy of its content would help nobody.
        return self.__dict__ | {"memory": None}

    def _find(self, index: int) -> Pair | None:
        pair = None if self.memory is None else self.memory.find(index)
        if pair is None and self.files is not None and (key := self._key(index)):
            pair = self.files.find(key)
        return pair

    def _decode(self, index: int) -> Pair:
        sample = self.dataset.load(index)
        if self.image_size is None:
            return Pair(sample.image, sample.mask)
        return Pair(resize_image(sample.image, self.image_size), resize_mask(sample.mask, self.image_size))

    def _key(self, index: int) -> str | None:
        """Names everything that the decoded sample depends on; None where its files cannot be looked at."""
        if self.files is None:
            return None
        if index not in self._keys:
            try:
                source = self.dataset.source_key(index)
            except OSError:
                return None
            parts = (source, self.image_size, _decoders())
            self._keys[index] = hashlib.sha256(repr(parts).encode()).hexdigest()
        return self._keys[index]


@contextmanager
def removed_at_the_end(folder: Path) -> Iterator[None]:
    """Remove the folder of a cache, if there is one, however the block ends."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local_processes(world_size: int) -> int:
    """How many of the training processes run on this machine; all of them where torchrun does not tell."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(int(told), world_size) if told.isdecimal() and int(told) else world_size


def _memory_tier(count: int, limit: CacheLimit, place: CachePlace) -> MemoryTier | None:
    free = (machine().available_memory_bytes or 0) if limit == "auto" else 0
    size = _bytes(limit, free) // place.local_processes
    if not size:
        return None
    lock: AbstractContextManager[object] = multiprocessing.Lock() if place.workers else threading.Lock()
    while size:
        try:
            return MemoryTier(count, size, lock=lock)
        except (OSError, OverflowError):  # more than the system maps at once: the limit is an upper bound
            size //= 2
    return None


def _file_tier(folder: Path, limit: CacheLimit, place: CachePlace) -> FileTier | None:
    try:
        # Left by a run that was killed, and good for the one that continues it.
        held = sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}"))
        # As if they were not there yet: they must not count twice, as used and as kept.
        free = shutil.disk_usage(folder.parent).free + held if limit == "auto" else 0
    except OSError:
        return None
    size = max(0, _bytes(limit, free) - held)
    if not size and not held:
        return None
    refused: Flag = multiprocessing.Event() if place.workers else threading.Event()
    return FileTier(folder, size // (place.local_processes * max(1, place.workers)), refused)


def _bytes(limit: CacheLimit, free: int) -> int:
    return free // AUTO_SHARE if limit == "auto" else int(limit * GIBIBYTE)


def _decoders() -> tuple[str, ...]:
    """Versions of what turns files into arrays: two decoders of JPEG may differ in the last bit."""
    from etnet import __version__

    return (__version__, PIL.__version__, cv2.__version__, np.__version__)
