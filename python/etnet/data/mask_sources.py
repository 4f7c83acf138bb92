"""Where a mask comes from: one file, or several that are joined when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from etnet.data.io import read_mask_values
from etnet.errors import DataError

Int32Array = npt.NDArray[np.int32]

STRAY_SHARE = 0.01
"""Share of a cup that may lie outside its disc, as resizing leaves it; more is a mistake."""

_ANNOTATORS = 4
_HALF = 127


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
        joined = _bright(read_mask_values(self.files[0]))
        for path in self.files[1:]:
            part = _bright(read_mask_values(path))
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
        """Values {0 outside, 1 rim, 2 cup} [H, W].

        Raises:
            DataError: As `MaskSource.read`; also for an empty disc or cup, and for a cup outside its disc.
        """
        disc, cup = self._agreed(self.disc), self._agreed(self.cup)
        _require_one_size(self.disc, disc, self.cup, cup)
        for path, structure, name in ((self.disc, disc, "disc"), (self.cup, cup, "cup")):
            if not structure.any():
                raise DataError(
                    f"{path}: {self.min_annotators} of {_ANNOTATORS} annotators agree on no pixel of the {name}; "
                    f"expected values of 0, 64, 128, 191, 255 that reach {self._threshold():.0f}; copy the map from "
                    "the archive again, lower data.min_annotators, or leave the image out"
                )
        stray = int((cup & ~disc).sum()) / int(cup.sum())
        if stray > STRAY_SHARE:
            raise DataError(
                f"{self.cup}: {stray:.0%} of the cup lie outside the disc of {self.disc.name}; expected a cup inside "
                "its disc; copy both maps of this image from the archive again"
            )
        return disc.astype(np.int32) + (cup & disc)

    def _agreed(self, path: Path) -> npt.NDArray[np.bool_]:
        agreed: npt.NDArray[np.bool_] = read_mask_values(path) >= self._threshold()
        return agreed

    def _threshold(self) -> float:
        """Halfway between the values of this and of one annotator fewer."""
        return (self.min_annotators - 0.5) / _ANNOTATORS * 255


def _bright(values: Int32Array) -> npt.NDArray[np.bool_]:
    """Above the middle grey; a 1-bit file, or class indices, above 0."""
    bright: npt.NDArray[np.bool_] = values > (_HALF if values.max(initial=0) > 1 else 0)
    return bright


def _require_one_size(
    first: Path, first_map: npt.NDArray[np.bool_], second: Path, second_map: npt.NDArray[np.bool_]
) -> None:
    if first_map.shape != second_map.shape:
        sizes = [f"{part.shape[1]}x{part.shape[0]}" for part in (second_map, first_map)]
        raise DataError(
            f"{second}: the mask is {sizes[0]} pixels; expected {sizes[1]} as in {first.name}; "
            "copy both from the archive again"
        )
