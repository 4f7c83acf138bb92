"""Where decoded samples are kept for all processes of a run: in shared memory, and beyond its limit in files.

Memory is one anonymous mapping that loader processes inherit, so that each sample is there once, whoever decoded it. It
has no name: nothing of it stays behind, however the processes end, and the size of /dev/shm is no limit.

A file holds one sample and is mapped to be read, so that the operating system keeps one copy of it for all processes
and drops it before memory runs short. It gets its name when it is whole; the name says what it was decoded from, and a
check sum finds what a crash of the machine left of it.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from etnet.errors import EnvironmentFault
from etnet.output import disk_faults, replacing
from etnet.types import UInt8Array

SUFFIX = ".sample"
_HEADER = struct.Struct("<8sQQQ")
_MAGIC = b"etnet\0s1"
_ALIGNMENT = 64
_ABSENT, _BEGUN, _THERE = range(3)


class Pair(NamedTuple):
    """An image [H, W, 3] and its mask [H, W], uint8; those that a tier returns cannot be written to."""

    image: UInt8Array
    mask: UInt8Array


class Flag(Protocol):
    """An event of `threading`, or one of `multiprocessing` that all processes see."""

    def set(self) -> None: ...  # noqa: D102

    def is_set(self) -> bool: ...  # noqa: D102


class MemoryTier:
    """Samples in memory that forked processes share, first come first kept.

    In shuffled epochs every sample is as likely to come next as any other, so that replacing would gain nothing.

    Args:
        count: Samples of the data set.
        limit_bytes: Memory for them; pages are taken when they are written.
        lock: Shared by the processes.

    Raises:
        OSError: The operating system refuses so large a mapping.
    """

    def __init__(self, count: int, limit_bytes: int, *, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._room = limit_bytes
        self._bytes: UInt8Array = np.frombuffer(mmap.mmap(-1, limit_bytes), np.uint8)
        # State, offset, height and width of each sample; the last row counts the bytes taken.
        rows = np.frombuffer(mmap.mmap(-1, (count + 1) * 4 * 8), np.int64)
        self._rows: npt.NDArray[np.int64] = rows.reshape(count + 1, 4)
        self._seen: dict[int, Pair] = {}

    def find(self, index: int) -> Pair | None:
        """The sample, if any process has kept it."""
        if (seen := self._seen.get(index)) is not None:
            return seen
        # The lock also makes what was written before its last release visible to this processor.
        with self._lock:
            state, offset, height, width = self._rows[index].tolist()
        return self._view(index, offset, height, width) if state == _THERE else None

    def keep(self, index: int, pair: Pair) -> bool:
        """Keep a sample; False where there is no room for it, or another process keeps it just now."""
        height, width = pair.mask.shape
        size = -(-(pair.image.nbytes + pair.mask.nbytes) // _ALIGNMENT) * _ALIGNMENT
        with self._lock:
            offset = int(self._rows[-1, 1])
            if self._rows[index, 0] != _ABSENT or offset + size > self._room:
                return False
            self._rows[-1, 1] += size
            self._rows[index] = (_BEGUN, offset, height, width)
        for name, part in zip(Pair._fields, _parts(self._bytes[offset:], height, width), strict=True):
            part[:] = getattr(pair, name)
        with self._lock:
            self._rows[index, 0] = _THERE
        return True

    def _view(self, index: int, offset: int, height: int, width: int) -> Pair:
        pair = _parts(self._bytes[offset:], height, width)
        for part in pair:
            part.flags.writeable = False
        self._seen[index] = pair
        return pair


@dataclass
class FileTier:
    """Samples in files of a folder, which is made with the first of them.

    Attributes:
        folder: Where they lie; the folder above it must exist.
        limit_bytes: Space that this process may take.
        refused: Set when the disk does not take a sample; nothing is written from then on.
    """

    folder: Path
    limit_bytes: int
    refused: Flag
    _taken: int = 0
    _checked: set[str] = field(default_factory=set, repr=False)

    def find(self, key: str) -> Pair | None:
        """The sample, if a whole file of it is there."""
        path = self._path(key)
        try:
            with path.open("rb") as stream:
                content = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (OSError, ValueError):  # a file of no bytes cannot be mapped
            return None
        pair = self._open(content, check=key not in self._checked)
        if pair is not None:
            self._checked.add(key)
        return pair

    def keep(self, key: str, pair: Pair) -> bool:
        """Write a sample; False where there is no room for it, or the disk refuses."""
        size = _ALIGNMENT + pair.image.nbytes + pair.mask.nbytes
        if self.refused.is_set() or self._taken + size > self.limit_bytes:
            return False
        parts = [np.ascontiguousarray(part) for part in pair]
        checksum = zlib.crc32(parts[1].data, zlib.crc32(parts[0].data))
        path = self._path(key)
        try:
            with disk_faults(self.folder):
                self.folder.mkdir(exist_ok=True)
            with replacing(path) as partial, partial.open("wb") as stream:
                stream.write(_HEADER.pack(_MAGIC, *pair.mask.shape, checksum).ljust(_ALIGNMENT, b"\0"))
                for part in parts:
                    stream.write(part.data)
        except EnvironmentFault:
            self.refused.set()
            return False
        self._taken += size
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    @staticmethod
    def _open(content: UInt8Array, *, check: bool) -> Pair | None:
        if len(content) < _ALIGNMENT:
            return None
        magic, height, width, checksum = _HEADER.unpack_from(content.data)
        body = content[_ALIGNMENT:]
        if magic != _MAGIC or len(body) != 4 * height * width or (check and zlib.crc32(body.data) != checksum):
            return None
        return _parts(body, height, width)


def _parts(content: UInt8Array, height: int, width: int) -> Pair:
    """The arrays in the bytes of a sample: the image, then the mask."""
    pixels = height * width
    return Pair(
        content[: 3 * pixels].reshape(height, width, 3), content[3 * pixels : 4 * pixels].reshape(height, width)
    )
