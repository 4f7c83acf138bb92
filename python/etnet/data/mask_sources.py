"""Where a mask comes from: one file, or several that are joined when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from etnet.data.io import read_mask_values
from etnet.errors import DataError

Int32Array = npt.NDArray[np.int32]

STRAY_SHARE = 0.01
"""Share of a cup that may lie outside its disc, as resizing leaves it; more is a mistake."""

_ANNOTATORS = 4
THRESHOLD = 127
"""Grey above which a pixel of a black and white mask is white."""

_LISTED_VALUES = 6


class MaskRefused(DataError):
    """The content of a mask cannot be used.

    Attributes:
        path: The file that is to blame, of all that the mask is joined from.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class MaskSource(Protocol):
    """A mask that is read when it is needed.

    Attributes:
        path: The file that errors name.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""

    def read(self) -> Int32Array:
        """Stored values [H, W], int32.

        Raises:
            DataError: A file cannot be read, or the files do not fit each other.
        """

    def join(self, values: Sequence[Int32Array]) -> Int32Array:
        """What `read` returns, from the values [H, W] of each of `files` in their order.

        Raises:
            DataError: The files do not fit each other.
        """


@dataclass(frozen=True)
class MaskFile:
    """A mask in one file, with the values that are stored there."""

    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def read(self) -> Int32Array:
        """Stored values [H, W]; see `MaskSource`."""
        return read_mask_values(self.path)

    def join(self, values: Sequence[Int32Array]) -> Int32Array:
        """The values of the one file."""
        return values[0]


@dataclass(frozen=True)
class UnionMask:
    """One structure drawn in several files, such as left and right lung: 1 where any of them is bright, else 0."""

    files: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The first file."""
        return self.files[0]

    def read(self) -> Int32Array:
        """Values {0, 1} [H, W]; see `MaskSource`."""
        return self.join([read_mask_values(path) for path in self.files])

    def join(self, values: Sequence[Int32Array]) -> Int32Array:
        """Values {0, 1} [H, W].

        Raises:
            DataError: A file holds greys but no white, or the files differ in size.
        """
        joined = _bright(values[0], self.path)
        for path, stored in zip(self.files[1:], values[1:], strict=True):
            part = _bright(stored, path)
            _require_one_size(self.path, joined, path, part)
            joined |= part
        return joined.astype(np.int32)


@dataclass(frozen=True)
class SoftMapMask:
    """Optic disc and cup as two maps of how many of four annotators agree (Drishti-GS, Sivaswamy et al., ISBI 2014).

    Attributes:
        disc: Map of the disc, values of about 0, 64, 128, 191 and 255 for 0 to 4 annotators.
        cup: Map of the cup.
        min_annotators: From how many annotators on a pixel belongs to the structure.
    """

    disc: Path
    cup: Path
    min_annotators: int

    @property
    def path(self) -> Path:
        """The map of the disc."""
        return self.disc

    @property
    def files(self) -> tuple[Path, ...]:
        """Both maps."""
        return (self.disc, self.cup)

    def read(self) -> Int32Array:
        """Values {0 outside, 1 rim, 2 cup} [H, W]; see `join`."""
        return self.join([read_mask_values(path) for path in self.files])

    def join(self, values: Sequence[Int32Array]) -> Int32Array:
        """Values {0 outside, 1 rim, 2 cup} [H, W].

        Raises:
            DataError: The maps differ in size, the disc or the cup is empty, or the cup lies outside its disc.
        """
        disc, cup = (stored >= self._threshold() for stored in values)
        _require_one_size(self.disc, disc, self.cup, cup)
        for path, stored, structure, name in zip(self.files, values, (disc, cup), ("disc", "cup"), strict=True):
            if not structure.any():
                raise MaskRefused(path, self._nothing_agreed(stored, name))
        stray = int((cup & ~disc).sum()) / int(cup.sum())
        if stray > STRAY_SHARE:
            raise MaskRefused(
                self.cup,
                f"{stray:.0%} of the cup lie outside the disc of {self.disc.name}; expected a cup inside its disc; "
                "copy both maps of this image from the archive again",
            )
        return disc.astype(np.int32) + (cup & disc)

    def _threshold(self) -> float:
        return _agreement(self.min_annotators)

    def _nothing_agreed(self, stored: Int32Array, name: str) -> str:
        # With a damaged map, no number of annotators is low enough.
        lower = "lower data.min_annotators, " if stored.max(initial=0) >= _agreement(1) else ""
        return (
            f"{self.min_annotators} of {_ANNOTATORS} annotators agree on no pixel of the {name}; got values "
            f"{_held(stored)}, expected 0, 64, 128, 191, 255 that reach {self._threshold():.0f}; copy the map from the "
            f"archive again, {lower}or leave the image out"
        )


@dataclass(frozen=True)
class DiscCupMask:
    """Optic disc and cup in one file, where a value each stands for rim and cup (REFUGE, Orlando et al. 2020).

    Attributes:
        path: The file.
        rim: Value of the disc outside the cup.
        cup: Value of the cup.
    """

    path: Path
    rim: int
    cup: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def read(self) -> Int32Array:
        """Stored values [H, W]; see `join`."""
        return self.join([read_mask_values(self.path)])

    def join(self, values: Sequence[Int32Array]) -> Int32Array:
        """Stored values [H, W].

        Raises:
            DataError: There is no rim or no cup, or the cup lies away from the rim.
        """
        rim, cup = values[0] == self.rim, values[0] == self.cup
        for structure, name, value in ((rim, "rim", self.rim), (cup, "cup", self.cup)):
            if not structure.any():
                raise DataError(
                    f"{self.path}: holds no {name} of the optic disc (value {value}), but {_held(values[0])}; copy the "
                    "mask from the archive again, give its values in data.mask_values, or leave the image out"
                )
        stray = _share_apart(cup, rim)
        if stray > STRAY_SHARE:
            raise DataError(
                f"{self.path}: {stray:.0%} of the cup lie outside the disc; expected a cup inside its disc; copy the "
                "mask from the archive again, or leave the image out"
            )
        return values[0]


def _share_apart(cup: npt.NDArray[np.bool_], rim: npt.NDArray[np.bool_]) -> float:
    """Share of the cup in pieces that touch no pixel of the rim."""
    # A disc fills about a hundredth of a photograph.
    left, top, width, height = cv2.boundingRect((cup | rim).view(np.uint8))
    box = np.s_[top : top + height, left : left + width]
    cup, rim = np.ascontiguousarray(cup[box]), np.ascontiguousarray(rim[box])
    count, pieces = cv2.connectedComponents(cup.view(np.uint8), connectivity=8)
    near_rim = cv2.dilate(rim.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    areas = np.bincount(pieces.ravel(), minlength=count)
    apart = sorted(set(range(1, count)) - set(np.unique(pieces[near_rim & cup]).tolist()))
    return float(areas[apart].sum() / areas[1:].sum())


def _agreement(annotators: int) -> float:
    """Halfway between the values of so many annotators and of one fewer."""
    return (annotators - 0.5) / _ANNOTATORS * 255


def _held(values: Int32Array) -> str:
    """The lowest of the different values, listed."""
    held = np.unique(values).tolist()
    return ", ".join(map(str, held[:_LISTED_VALUES])) + (", ..." if len(held) > _LISTED_VALUES else "")


def _bright(values: Int32Array, path: Path) -> npt.NDArray[np.bool_]:
    """Above the middle grey; a 1-bit file, or class indices, above 0."""
    highest = values.max(initial=0)
    if 1 < highest <= THRESHOLD:
        raise MaskRefused(
            path,
            f"mask holds values {_held(values)}, of which none is above {THRESHOLD}, so that nothing would be "
            "labelled; expected 0 and 255, or 0 and 1; copy the mask from the archive again, or save it as black and "
            "white",
        )
    bright: npt.NDArray[np.bool_] = values > (THRESHOLD if highest > 1 else 0)
    return bright


def _require_one_size(
    first: Path, first_map: npt.NDArray[np.bool_], second: Path, second_map: npt.NDArray[np.bool_]
) -> None:
    if first_map.shape != second_map.shape:
        sizes = [f"{part.shape[1]}x{part.shape[0]}" for part in (second_map, first_map)]
        raise MaskRefused(
            second,
            f"the mask is {sizes[0]} pixels; expected {sizes[1]} as in {first.name}; copy both from the archive again",
        )
