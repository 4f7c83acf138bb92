"""Reads every file of a data set once, in parallel, and keeps what the rules need: sizes, values, fingerprints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from etnet.data.dataset import require_same_size
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.io import StoredPicture, image_from, mask_values_from, read_stored
from etnet.data.mask_sources import MaskRefused, MaskSource
from etnet.data.mask_values import MaskSummary, distinct_values
from etnet.errors import DataError

_MAX_THREADS = 8
_COUNTED = 65536

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used, in the words in which training refuses it."""

    rule: str
    path: Path
    sentence: str


@dataclass(frozen=True)
class PairFacts:
    """What was seen in the files of one sample.

    Attributes:
        id: Name of the sample.
        image: Its image file.
        size: (width, height) of the image; None where it cannot be read.
        depth: Kind of its pixels, such as `RGB 8-bit`.
        digest: Fingerprint of its pixels.
        extremes: (lowest, highest) value of an image of more than 8 bits; None for others.
        mask: Size and distinct values of its mask; None where it cannot be read.
        stored: Pixels by stored value, for each mask file.
        faults: What keeps the sample from being used.
    """

    id: str
    image: Path
    size: tuple[int, int] | None
    depth: str
    digest: bytes
    extremes: tuple[float, float] | None
    mask: MaskSummary | None
    stored: tuple[Mapping[int, int], ...]
    faults: tuple[Fault, ...]


def read_pairs(
    pairs: FoundPairs,
    *,
    intensity_window: tuple[float, float] | None,
    progress: Callable[[], None] | None = None,
) -> list[PairFacts]:
    """Reads images, masks and fields of view; a thread holds one sample at a time.

    Args:
        pairs: Matched files.
        intensity_window: That of the recipe.
        progress: Called after every sample.
    """

    def read(index: int) -> PairFacts:
        return _read_pair(pairs, index, intensity_window)

    facts: list[PairFacts] = []
    pool = ThreadPoolExecutor(max_workers=min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        for one in pool.map(read, range(len(pairs.ids))):
            facts.append(one)
            if progress is not None:
                progress()
    finally:
        # Ctrl-C must not wait for hundreds of files.
        pool.shutdown(cancel_futures=True)
    return facts


def _read_pair(pairs: FoundPairs, index: int, window: tuple[float, float] | None) -> PairFacts:
    faults: list[Fault] = []
    path, source = pairs.images[index], pairs.masks[index]
    picture = _picture(path, faults)
    if picture is not None:
        _attempt("no-intensity-window", path, faults, lambda: image_from(picture, path, intensity_window=window))
    stored, mask = _read_mask(source, faults)
    if picture is not None and mask is not None:
        _same_size(source.path, mask.shape, path, picture, faults)
    if pairs.fields_of_view is not None:
        view_path = pairs.fields_of_view[index]
        view = _picture(view_path, faults)
        if view is not None and picture is not None:
            _same_size(view_path, view.pixels.shape, path, picture, faults)
    return PairFacts(
        id=pairs.ids[index],
        image=path,
        size=None if picture is None else (picture.pixels.shape[1], picture.pixels.shape[0]),
        depth="" if picture is None else picture.kind,
        digest=b"" if picture is None else _digest(picture),
        extremes=None if picture is None else _extremes(picture),
        mask=mask,
        stored=stored,
        faults=tuple(faults),
    )


def _picture(path: Path, faults: list[Fault]) -> StoredPicture | None:
    return _attempt("unreadable-file", path, faults, lambda: read_stored(path))


def _read_mask(source: MaskSource, faults: list[Fault]) -> tuple[tuple[Mapping[int, int], ...], MaskSummary | None]:
    values: list[npt.NDArray[np.int32]] = []
    for path in source.files:
        one = _attempt("unreadable-file", path, faults, partial(_values_of, path))
        if one is not None:
            values.append(one)
    stored = tuple(_counts(one) for one in values)
    if len(values) < len(source.files):
        return stored, None
    joined = _attempt("mask-content", source.path, faults, lambda: source.join(values))
    if joined is None:
        return stored, None
    return stored, MaskSummary(source.path, (joined.shape[0], joined.shape[1]), distinct_values(joined))


def _values_of(path: Path) -> npt.NDArray[np.int32]:
    return mask_values_from(read_stored(path), path)


def _same_size(path: Path, shape: Sequence[int], image: Path, picture: StoredPicture, faults: list[Fault]) -> None:
    _attempt(
        "size-mismatch",
        path,
        faults,
        lambda: require_same_size(path, shape, image_path=image, image_shape=picture.pixels.shape),
    )


def _attempt(rule: str, path: Path, faults: list[Fault], action: Callable[[], _Result]) -> _Result | None:
    """The action's result; a refusal is noted as a fault of the file."""
    try:
        return action()
    except DataError as error:
        faults.append(Fault(rule, error.path if isinstance(error, MaskRefused) else path, str(error)))
        return None


def _counts(values: npt.NDArray[np.int32]) -> Mapping[int, int]:
    """Pixels by value."""
    if values.min() >= 0 and values.max() < _COUNTED:
        # Much faster than the sort of `np.unique`.
        counts = np.bincount(values.ravel())
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _extremes(picture: StoredPicture) -> tuple[float, float] | None:
    pixels = picture.pixels
    return None if pixels.dtype.itemsize == 1 else (float(np.nanmin(pixels)), float(np.nanmax(pixels)))


def _digest(picture: StoredPicture) -> bytes:
    """Fingerprint of the pixels: the same for one picture saved in two lossless formats."""
    pixels = picture.pixels if picture.palette is None else picture.palette[picture.pixels]
    shape = f"{pixels.shape} {pixels.dtype.str}".encode()
    return hashlib.blake2b(np.ascontiguousarray(pixels).view(np.uint8).data, digest_size=16, key=shape[:64]).digest()
