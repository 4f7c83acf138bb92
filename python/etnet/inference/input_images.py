"""One way to look at any input: slices of RGB, their spacing, and how the mask is written back in its geometry.

A picture and a DICOM file are one slice, and their mask is a PNG of their size; a volume is as many slices as its plane
has, and its mask is a volume with its header. What segments them need not know the difference:

    opened = open_input(item, intensity_window=contract.intensity_window)
    labels = [predict(opened.pixels(index)) for index in range(opened.num_slices)]
    opened.write_mask(folder / f"{item.output_name}{opened.mask_suffix}", labels, palette=contract.class_colors)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.data.dicom import read_dicom
from etnet.data.io import read_image, write_png
from etnet.data.volumes import Plane, Volume, open_volume, volume_suffix
from etnet.inference.inputs import InputItem, is_medical
from etnet.types import UInt8Array

Palette = Sequence[Sequence[int]]


@dataclass(frozen=True)
class InputImage(ABC):
    """An opened input; reading it again gives the same.

    Attributes:
        item: Where it came from.
        size: (height, width) of every slice.
        num_slices: Number of slices; 1 for pictures.
        spacing: Distance in mm between rows and between columns of a slice; None when it is not known.
        slice_spacing: Distance in mm between slices; None for pictures.
        mask_suffix: Suffix of the mask's file.
    """

    item: InputItem
    size: tuple[int, int]
    num_slices: int
    spacing: tuple[float, float] | None
    slice_spacing: float | None
    mask_suffix: str

    @property
    def is_volume(self) -> bool:
        """Whether the mask is a volume too, also with one slice."""
        return self.slice_spacing is not None

    @abstractmethod
    def pixels(self, index: int = 0) -> UInt8Array:
        """A slice as RGB [H, W, 3], uint8, as `etnet.data.io.read_image` gives pictures."""

    def values(self) -> npt.NDArray[Any] | None:
        """Values [S, H, W] of a volume in the file's unit, such as Hounsfield units; None for pictures."""
        return None

    @abstractmethod
    def write_mask(self, path: Path, slices: Sequence[UInt8Array], *, palette: Palette | None = None) -> None:
        """Write an 8-bit map of all slices, such as their classes or edges, as one file, whole or not at all.

        Args:
            path: File with the suffix `mask_suffix`; its folder exists.
            slices: Values [H, W], uint8, of every slice.
            palette: RGB colours of the values; pictures alone have a place for them.

        Raises:
            EnvironmentFault: The disk refuses; nothing is left behind.
        """


def open_input(item: InputItem, *, intensity_window: tuple[float, float] | None, plane: Plane = "axial") -> InputImage:
    """Open any input.

    Args:
        item: What `find_inputs` found.
        intensity_window: The contract's (low, high); see `read_image` and `read_dicom`.
        plane: The plane in which volumes are cut.

    Raises:
        DataError: The file cannot be read, with the reason; no sentence quotes text from inside a medical file.
        EnvironmentFault: A package of the extra `medical` is missing.
    """
    if volume_suffix(item.path) is not None:
        return _volume(item, open_volume(item.path, plane=plane), intensity_window)
    if is_medical(item.path):
        image = read_dicom(item.path, intensity_window=intensity_window)
        return _picture(item, image.pixels, item.spacing or image.spacing)
    return _picture(item, read_image(item.path, intensity_window=intensity_window), item.spacing)


@dataclass(frozen=True)
class _Picture(InputImage):
    """One slice that is in memory."""

    image: UInt8Array

    def pixels(self, index: int = 0) -> UInt8Array:
        if index != 0:
            raise IndexError(f"{self.item.path}: has one slice, asked for number {index}")
        return self.image

    def write_mask(self, path: Path, slices: Sequence[UInt8Array], *, palette: Palette | None = None) -> None:
        (values,) = slices
        write_png(path, values, palette=palette)


@dataclass(frozen=True)
class _Volume(InputImage):
    """Slices of a volume, each turned into RGB when it is asked for."""

    volume: Volume
    window: tuple[float, float] | None

    def pixels(self, index: int = 0) -> UInt8Array:
        return self.volume.pixels(index, intensity_window=self.window)

    def values(self) -> npt.NDArray[Any]:
        return np.stack([self.volume.values(index) for index in range(self.num_slices)])

    def write_mask(self, path: Path, slices: Sequence[UInt8Array], *, palette: Palette | None = None) -> None:
        del palette  # these formats hold no colours
        self.volume.write_mask(path, np.stack(slices))


def _picture(item: InputItem, image: UInt8Array, spacing: tuple[float, float] | None) -> InputImage:
    return _Picture(
        item=item,
        size=(image.shape[0], image.shape[1]),
        num_slices=1,
        spacing=spacing,
        slice_spacing=None,
        mask_suffix=".png",
        image=image,
    )


def _volume(item: InputItem, volume: Volume, window: tuple[float, float] | None) -> InputImage:
    opened = _Volume(
        item=item,
        size=volume.slice_shape,
        num_slices=len(volume),
        spacing=item.spacing or volume.spacing,
        slice_spacing=volume.slice_spacing,
        mask_suffix=volume.mask_suffix,
        volume=volume,
        window=window,
    )
    opened.pixels(0)  # where values have no known range, this says so before anything is written
    return opened
