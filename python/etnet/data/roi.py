"""The square around a structure that is segmented instead of the whole image (paper Sec. 3, "localize").

Centres are (row, column) in continuous pixel coordinates: the middle of the pixel at index 0 is 0.5. A square has whole
pixels, so that cutting and pasting never shift anything by a fraction. It may reach beyond the image, which is then
continued by reflection.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from etnet.config.schema import RoiSection
from etnet.data.resize import resize_image
from etnet.types import BoolArray, Float32Array, RegionOfInterest, UInt8Array


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
    moments = cv2.moments(structure.view(np.uint8), binaryImage=True)
    if not moments["m00"]:
        return None
    return moments["m01"] / moments["m00"] + 0.5, moments["m10"] / moments["m00"] + 0.5


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
    rows = _reflected(window.top, window.side, image.shape[0])
    columns = _reflected(window.left, window.side, image.shape[1])
    square = np.ascontiguousarray(image[rows[:, None], columns])
    return resize_image(square, (size, size))


def paste(maps: Float32Array, window: Window, shape: tuple[int, ...]) -> Float32Array:
    """Put maps [C, side, side], float32, of a square into an image of shape (height, width, ...).

    Returns:
        Maps [C, H, W], float32; 0 outside the square.
    """
    rows, columns = window.visible(shape)
    whole = np.zeros((len(maps), *shape[:2]), np.float32)
    top, left = rows.start - window.top, columns.start - window.left
    whole[:, rows, columns] = maps[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    return whole


def _reflected(start: int, count: int, extent: int) -> npt.NDArray[np.intp]:
    """Indices start .. start+count-1, outside of the image mirrored at its border pixels (REFLECT_101 of OpenCV)."""
    period = max(2 * (extent - 1), 1)
    indices = np.arange(start, start + count) % period
    reflected: npt.NDArray[np.intp] = np.minimum(indices, period - indices) if extent > 1 else np.zeros_like(indices)
    return reflected
