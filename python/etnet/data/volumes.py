"""NIfTI and MetaImage volumes, seen as a stack of slices in a chosen plane, and masks written back in their geometry.

Slices are turned as radiologists look at them, from the orientation in the header: axial slices from the feet to the
head with the front up, coronal ones from back to front, sagittal ones from right to left with the head up; the
patient's right is on the left of axial and coronal slices. Oblique volumes take the nearest of these directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from etnet.data.decoder_warnings import silenced
from etnet.data.io import StoredPicture, check_numbers, image_from
from etnet.data.medical_packages import import_for
from etnet.data.picture_files import check_file, file_bytes
from etnet.data.volume_formats import VOLUME_FORMATS, StoredVolume, VolumeHeader
from etnet.errors import DataError
from etnet.types import UInt8Array

Plane = Literal["axial", "coronal", "sagittal"]

VOLUME_SUFFIXES = tuple(VOLUME_FORMATS)
"""Suffixes, in lower case, of the files that `open_volume` reads."""

_DIRECTIONS: dict[str, str] = {"axial": "SPL", "coronal": "AIL", "sagittal": "LIP"}
"""Towards which side of the patient slices, rows and columns run."""

_MOST_BYTES = 2**32
"""About 1000 slices of 1400x1400 pixels of 16 bits."""


@dataclass(frozen=True)
class Volume:
    """An open volume; its slices are made when they are asked for.

    Attributes:
        path: The file.
        plane: The plane of the slices.
        mask_suffix: Suffix of the mask, as `write_mask` needs it.
        spacing: Distance in mm between rows and between columns of a slice.
        slice_spacing: Distance in mm between slices.
    """

    path: Path
    plane: Plane
    mask_suffix: str
    spacing: tuple[float, float]
    slice_spacing: float
    _stored: StoredVolume
    _slices: npt.NDArray[Any]
    _back: npt.NDArray[Any]

    def __len__(self) -> int:
        return int(self._slices.shape[0])

    @property
    def slice_shape(self) -> tuple[int, int]:
        """(height, width) of every slice."""
        return int(self._slices.shape[1]), int(self._slices.shape[2])

    def values(self, index: int) -> npt.NDArray[Any]:
        """Values [H, W] of a slice in the file's unit, such as Hounsfield units."""
        return self._stored.scaled(self._slices[index])

    def pixels(self, index: int, *, intensity_window: tuple[float, float] | None = None) -> UInt8Array:
        """A slice as RGB [H, W, 3], uint8; see `etnet.data.io.read_image` for the window.

        Raises:
            DataError: The values have no fixed range, and no window is given.
        """
        return image_from(StoredPicture(self.values(index)), self.path, intensity_window=intensity_window)

    def write_mask(self, path: Path, slices: UInt8Array) -> None:
        """Write a mask in the geometry of the volume.

        Args:
            path: File to write, with the suffix `mask_suffix`; an existing one is replaced.
            slices: Class indices [S, H, W] in the order and orientation of the slices, uint8.

        Raises:
            EnvironmentFault: The disk refuses; nothing is left behind.
        """
        if slices.shape != self._slices.shape:
            raise ValueError(f"mask of {slices.shape} for a volume of {self._slices.shape} (slices, rows, columns)")
        orientations = import_for(self.path, "nibabel.orientations")
        self._stored.write_mask(path, np.ascontiguousarray(orientations.apply_orientation(slices, self._back)))


def volume_suffix(path: Path | str) -> str | None:
    """The suffix, in lower case, by which a file name is a volume's; None for other names.

    >>> volume_suffix("lung.NII.gz"), volume_suffix("lung.png")
    ('.nii.gz', None)
    """
    name = Path(path).name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), None)


def open_volume(path: Path | str, *, plane: Plane = "axial") -> Volume:
    """Open a volume of numbers.

    Args:
        path: `.nii`, `.nii.gz`, `.mha` or `.mhd` file with three dimensions and one value per voxel.
        plane: The plane of the slices.

    Raises:
        DataError: The file is missing, damaged, too large, of another shape, or has a spacing or orientation that is
            no number or not positive.
        EnvironmentFault: nibabel or SimpleITK is not installed.
    """
    path = Path(path)
    suffix = volume_suffix(path)
    if suffix is None:
        raise DataError(f"{path}: is no volume by its name; expected a suffix out of {' '.join(VOLUME_SUFFIXES)}")
    file_format = VOLUME_FORMATS[suffix]
    orientations = import_for(path, "nibabel.orientations")
    import_for(path, file_format.package)
    _check_not_empty(path)
    with silenced("nibabel.global"):
        header = file_format.read_header(path)
        _check_header(path, header)
        present = orientations.io_orientation(header.affine) if np.isfinite(header.affine).all() else None
        if present is None or np.isnan(present).any():
            raise DataError(f"{path}: the header's orientation has no direction for some axis; export the volume again")
        stored = file_format.read_voxels(path)
    check_numbers(stored.voxels, path)
    wanted = orientations.axcodes2ornt(_DIRECTIONS[plane])
    slices = orientations.apply_orientation(stored.voxels, orientations.ornt_transform(present, wanted))
    axes = [int(np.flatnonzero(present[:, 0] == axis)[0]) for axis in wanted[:, 0]]
    return Volume(
        path=path,
        plane=plane,
        mask_suffix=file_format.mask_suffix,
        spacing=(header.spacing[axes[1]], header.spacing[axes[2]]),
        slice_spacing=header.spacing[axes[0]],
        _stored=stored,
        _slices=slices,
        _back=orientations.ornt_transform(wanted, present),
    )


def _check_not_empty(path: Path) -> None:
    check_file(path)
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError:
        empty = True
    if empty:
        file_bytes(path)  # says which of the two it is


def _check_header(path: Path, header: VolumeHeader) -> None:
    shape, spacing = header.shape, header.spacing
    if len(shape) != 3 or min(shape) < 1:
        size = "x".join(str(length) for length in shape)
        raise DataError(
            f"{path}: the volume has {size} voxels; expected three dimensions; save each time or "
            "direction as its own file"
        )
    if math.prod(shape) * header.voxel_bytes > _MOST_BYTES:
        size = "x".join(str(length) for length in shape)
        raise DataError(
            f"{path}: the header announces {size} voxels of {header.voxel_bytes} bytes; expected at most {_MOST_BYTES} "
            "bytes; cut the volume, or save it with fewer bits"
        )
    if len(spacing) != 3 or not all(math.isfinite(value) and value > 0 for value in spacing):
        given = ", ".join(f"{value:g}" for value in spacing)
        raise DataError(
            f"{path}: the voxel spacing is [{given}] mm; expected three positive numbers; correct the header"
        )
