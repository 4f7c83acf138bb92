"""The square around a structure that is segmented instead of the whole image (paper Sec. 3, "localize").

Centres are (row, column) in continuous pixel coordinates: the middle of the pixel at index 0 is 0.5. A square has whole
pixels, so that cutting and pasting never shift anything by a fraction. It may reach beyond the image, which is then
continued by reflection.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from etnet.config.data_section import RoiSection
from etnet.data.resize import resize_image, resize_mask
from etnet.errors import DataError
from etnet.types import BoolArray, RegionOfInterest, Sample, UInt8Array

Scalar = TypeVar("Scalar", bound=np.generic)


class Window(NamedTuple):
    """A square of whole pixels: rows top .. top+side-1 and columns left .. left+side-1, also outside the image."""

    top: int
    left: int
    side: int

    def inside(self, shape: tuple[int, ...]) -> BoolArray:
        """Pixels [H, W], bool, of an image of this shape that lie in the square."""
        rows, columns = self.visible(shape)
        inside = np.zeros(shape[:2], np.bool_)
        inside[rows, columns] = True
        return inside

    def visible(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of an image of this shape that lie in the square."""
        rows, columns = (
            slice(min(max(start, 0), extent), min(max(start + self.side, 0), extent))
            for start, extent in zip((self.top, self.left), shape[:2], strict=True)
        )
        return rows, columns


def mask_center(mask: UInt8Array, *, ignore_index: int | None = None) -> tuple[float, float] | None:
    """Centre of gravity (row, column) of all classes but the background; None where there is only background.

    Args:
        mask: Class indices [H, W], uint8.
        ignore_index: Value that is no class.

    Example:
        >>> mask = np.zeros((8, 8), np.uint8)
        >>> mask[2:4, 5:7] = 1
        >>> mask_center(mask)
        (3.0, 6.0)
    """
    structure = mask > 0
    if ignore_index is not None:
        structure &= mask != ignore_index
    pixels = structure.view(np.uint8)
    # A structure fills a small part of its image; the sums are whole numbers, so that shifting them is exact.
    left, top, width, height = cv2.boundingRect(pixels)
    if not width:
        return None
    moments = cv2.moments(pixels[top : top + height, left : left + width], binaryImage=True)
    count = moments["m00"]
    return (moments["m01"] + top * count) / count + 0.5, (moments["m10"] + left * count) / count + 0.5


def require_center(sample_id: str, mask: UInt8Array, *, ignore_index: int | None = None) -> tuple[float, float]:
    """The true centre of a sample's region of interest, as `mask_center` gives it.

    Raises:
        DataError: The mask has nothing to centre it on.
    """
    center = mask_center(mask, ignore_index=ignore_index)
    if center is None:
        raise no_center(sample_id)
    return center


def no_center(sample_id: str, *, others: int = 0) -> DataError:
    """The error for a sample, and a number of others, whose mask has nothing to centre the region of interest on."""
    more = f" (and {others} more)" if others else ""
    return DataError(
        f"{sample_id}{more}: its mask holds only background, so there is no centre for the region of interest; "
        "leave the image out, or train without data.roi"
    )


def true_center(
    sample: Sample, roi: RegionOfInterest | RoiSection | None, *, ignore_index: int | None = None
) -> tuple[float, float] | None:
    """The true centre (row, column) for a network with this region of interest; None for one that needs none.

    Raises:
        DataError: The mask has nothing to centre the region on.
    """
    return None if roi is None else require_center(sample.id, sample.mask, ignore_index=ignore_index)


def window_around(center: tuple[float, float], shape: tuple[int, ...], roi: RegionOfInterest | RoiSection) -> Window:
    """The square around a centre in an image of shape (height, width, ...).

    Example:
        >>> window_around((50.0, 70.0), (100, 200), RegionOfInterest(side=0.2, size=512))
        Window(top=30, left=50, side=40)
    """
    side = max(1, round(roi.side * shape[1]))
    return Window(round(center[0] - side / 2), round(center[1] - side / 2), side)


def cut(image: UInt8Array, window: Window, size: int) -> UInt8Array:
    """The square of an RGB image [H, W, 3], resized to [size, size, 3], uint8."""
    return resize_image(_square(image, window), (size, size))


def cut_mask(mask: UInt8Array, window: Window, size: int) -> UInt8Array:
    """The square of class indices [H, W], resized to [size, size], uint8, by the nearest pixel."""
    return resize_mask(_square(mask, window), (size, size))


def paste(maps: npt.NDArray[Scalar], window: Window, shape: tuple[int, ...]) -> npt.NDArray[Scalar]:
    """Put maps [C, side, side] of a square into an image of shape (height, width, ...).

    Returns:
        Maps [C, H, W] of the same type; 0 outside the square.
    """
    rows, columns = window.visible(shape)
    whole = np.zeros((len(maps), *shape[:2]), maps.dtype)
    top, left = rows.start - window.top, columns.start - window.left
    whole[:, rows, columns] = maps[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    return whole


def _square(pixels: UInt8Array, window: Window) -> UInt8Array:
    """The pixels [side, side, ...] of a square, reflected where it reaches beyond the image."""
    rows = _reflected(window.top, window.side, pixels.shape[0])
    columns = _reflected(window.left, window.side, pixels.shape[1])
    return np.ascontiguousarray(pixels[rows[:, None], columns])


def _reflected(start: int, count: int, extent: int) -> npt.NDArray[np.intp]:
    """Indices start .. start+count-1, outside of the image mirrored at its border pixels (REFLECT_101 of OpenCV)."""
    period = max(2 * (extent - 1), 1)
    indices = np.arange(start, start + count) % period
    reflected: npt.NDArray[np.intp] = np.minimum(indices, period - indices) if extent > 1 else np.zeros_like(indices)
    return reflected
