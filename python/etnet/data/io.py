"""The only place that reads and writes image files: every format, depth and orientation becomes one kind of array."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from etnet.data.picture_files import file_bytes, open_picture, unreadable
from etnet.errors import DataError
from etnet.output import write_bytes
from etnet.types import UInt8Array

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".ppm", ".pgm")
"""Suffixes, in lower case, of the files that are taken from a folder."""

_EXIF_ORIENTATION = 0x0112
_FIRST_TURNED = 5
_PNG_EXIF_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_TIFF_WIDTH = 256
_TIFF_HEIGHT = 257
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_SAMPLE_FORMAT = 339
_TIFF_UNSIGNED = 1
_TIFF_SIGNED = 2

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredPicture:
    """A picture as its file holds it, upright and without alpha.

    Attributes:
        pixels: Values [H, W] or [H, W, 3].
        palette: RGB colours [256, 3], uint8, when the values are indices.
        bits: Bits per value in the file, which the array may exceed; 0 means those of the array.
    """

    pixels: Pixels
    palette: UInt8Array | None = None
    bits: int = 0

    @property
    def kind(self) -> str:
        """What the pixels are, such as `RGB 8-bit`."""
        colored = self.pixels.ndim == 3 if self.palette is None else not _is_grey(self.palette)
        if self.pixels.dtype.kind in "fi":
            number = "float" if self.pixels.dtype.kind == "f" else "signed"
            return f"{'RGB' if colored else 'grey'} {self.bits or self.pixels.dtype.itemsize * 8}-bit {number}"
        bits = 1 if self.pixels.dtype == np.bool_ else self.bits or self.pixels.dtype.itemsize * 8
        return f"{'RGB' if colored else 'grey'} {bits}-bit"


def read_image(path: Path | str, *, intensity_window: tuple[float, float] | None = None) -> UInt8Array:
    """Reads any supported picture as 8-bit RGB, upright.

    Grey is repeated to three channels, palettes are looked up, alpha is dropped (not blended), 1-bit becomes 0/255 and
    the EXIF orientation is applied. Unsigned 16-bit values are mapped from their full range (divided by 257) unless
    `intensity_window` is given; signed, 32-bit and floating-point values (CT) have no fixed range and need the window.

    Args:
        path: PNG, JPEG, TIFF (any compression), GIF, BMP, WebP, PPM or PGM file with one page.
        intensity_window: (low, high) mapped linearly to 0..255 and clipped; used only for more than 8 bits.

    Returns:
        RGB image [H, W, 3], uint8.

    Raises:
        DataError: The file is missing, empty, truncated, too large, of several pages, or not a picture.
    """
    path = Path(path)
    return image_from(read_stored(path), path, intensity_window=intensity_window)


def image_from(stored: StoredPicture, path: Path, *, intensity_window: tuple[float, float] | None = None) -> UInt8Array:
    """A stored picture as `read_image` returns it.

    Raises:
        DataError: Its values have no fixed range, and no window is given.
    """
    pixels = stored.pixels if stored.palette is None else stored.palette[stored.pixels]
    pixels = _to_uint8(pixels, path=path, window=intensity_window)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(pixels)


def read_mask_values(path: Path | str) -> npt.NDArray[np.int32]:
    """Reads the values of a mask as they are stored, upright.

    Grey files give their grey values (8, 16 or 32 bits), 1-bit files 0 and 1. A palette whose colours are all grey
    gives those grey values, any other palette gives the indices: a mask drawn with class colours holds class indices.
    RGB with three equal channels is grey; alpha is dropped and the EXIF orientation is applied, as for images.

    Args:
        path: File of one of the formats of `read_image`; JPEG is read, but its values are not exact.

    Returns:
        Values [H, W], int32.

    Raises:
        DataError: As `read_image`; also for colours outside a palette and for values that are not whole numbers.
    """
    path = Path(path)
    return mask_values_from(read_stored(path), path)


def mask_values_from(stored: StoredPicture, path: Path) -> npt.NDArray[np.int32]:
    """The values of a stored picture as `read_mask_values` returns them.

    Raises:
        DataError: There are colours outside a palette, or values that are not whole numbers.
    """
    pixels = stored.pixels
    if stored.palette is not None and _is_grey(stored.palette):
        pixels = stored.palette[pixels]
    if pixels.ndim == 3:
        if not _is_grey(pixels):
            raise DataError(_coloured_mask(path, pixels))
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f" and not np.array_equal(pixels, np.rint(pixels)):
        fraction = float(pixels[pixels != np.rint(pixels)][0])
        raise DataError(f"{path}: mask holds fractions such as {fraction}; expected whole numbers, one per class")
    return pixels.astype(np.int32)


def read_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of an upright picture, from the file's header alone."""
    path = Path(path)
    content = file_bytes(path)
    with open_picture(path, content) as image:
        try:
            width, height = _stored_size(image)
            turned = _orientation(image, content) >= _FIRST_TURNED
        except Exception as error:  # decoders meet damaged bytes with any kind of exception
            raise unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def write_png(path: Path | str, array: npt.NDArray[Any], palette: Sequence[Sequence[int]] | None = None) -> None:
    """Writes a PNG so that the name never stands for half a file.

    Args:
        path: File to write; an existing one is replaced.
        array: Grey or indices [H, W], uint8 or uint16, or RGB [H, W, 3], uint8.
        palette: RGB colours of the indices of a uint8 [H, W] array; the stored values stay the indices.

    Raises:
        EnvironmentFault: The folder is missing or read-only, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    image = Image.fromarray(np.ascontiguousarray(array))
    if palette is not None:
        image.putpalette([channel for color in palette for channel in color])
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", compress_level=4)
    write_bytes(path, encoded.getvalue())


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) before turning; of a TIFF, newer versions of Pillow tell the size after it."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    return image.size


def _orientation(image: Image.Image, content: bytes) -> int:
    # Asking a PNG without EXIF decodes all of it, in search of a block at the end.
    if image.format == "PNG" and not any(mark in content for mark in _PNG_EXIF_MARKS):
        return 1
    return int(image.getexif().get(_EXIF_ORIENTATION, 1) or 1)


def read_stored(path: Path) -> StoredPicture:
    """Reads any supported picture as it is stored; `image_from` and `mask_values_from` interpret it.

    Raises:
        DataError: As `read_image`.
    """
    content = file_bytes(path)
    with open_picture(path, content) as image:
        try:
            deep_color = _has_deep_color(image, content)
            orientation = _orientation(image, content)
            # Also when OpenCV reads the pixels: Pillow notices a truncated file, OpenCV fills the rest in.
            image.load()
            decoded = _decode_deep_color(content) if deep_color else _from_pillow(image)
        except Exception as error:  # decoders meet damaged bytes with any kind of exception
            raise unreadable(path, error) from error
        # Pillow and OpenCV turn TIFF files by themselves.
        upright = decoded.pixels if image.format == "TIFF" else _upright(decoded.pixels, orientation)
        decoded = StoredPicture(upright, decoded.palette, _bits(image, content))
    if decoded.pixels.size == 0:
        raise DataError(f"{path}: the picture has no pixels; remove it")
    check_numbers(decoded.pixels, path)
    return decoded


def check_numbers(values: Pixels, path: Path) -> None:
    """Refuse an image without a single number; that some are missing, such as around a round scan, is usual.

    Raises:
        DataError: Every value is NaN or infinite.
    """
    if values.dtype.kind == "f" and not any(np.isfinite(part).any() for part in values):
        raise DataError(f"{path}: every value is NaN or infinite; expected numbers; export it again or remove it")


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits per value as the header tells; 0 where it does not."""
    if image.format == "PNG":
        return content[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    return 0


def _has_deep_color(image: Image.Image, content: bytes) -> bool:
    """Whether there are several channels of 16 bits, which Pillow would cut to 8."""
    if image.format == "PNG":
        bit_depth, color_type = content[24], content[25]
        return bit_depth == 16 and color_type != 0
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return len(bits) > 1 and max(bits) > 8
    return False


def _decode_deep_color(content: bytes) -> StoredPicture:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("unsupported combination of channels and bits")
    if pixels.ndim == 3:
        pixels = pixels[..., 2::-1]
    return StoredPicture(pixels)


def _from_pillow(image: Image.Image) -> StoredPicture:
    mode = image.mode
    if mode == "P":
        return StoredPicture(np.asarray(image), _palette(image))
    if mode == "PA":
        return StoredPicture(np.asarray(image)[..., 0], _palette(image))
    if mode == "LA":
        return StoredPicture(np.asarray(image)[..., 0])
    if mode == "RGBA":
        return StoredPicture(np.asarray(image)[..., :3])
    if mode.startswith("I;16"):
        return StoredPicture(np.asarray(image).astype(np.uint16))
    if mode == "I" and image.format in ("PNG", "PPM"):
        return StoredPicture(np.asarray(image).astype(np.uint16))
    if mode in ("L", "I") and image.format == "TIFF":
        return StoredPicture(_with_sign(np.asarray(image), image))
    if mode in ("1", "L", "RGB", "I", "F"):
        return StoredPicture(np.asarray(image))
    return StoredPicture(np.asarray(image.convert("RGB")))


def _with_sign(pixels: Pixels, image: Image.Image) -> Pixels:
    """Pillow takes 8 bits of a TIFF for unsigned and 32 bits for signed, whatever the file says."""
    sample_format = image.tag_v2.get(_TIFF_SAMPLE_FORMAT, (_TIFF_UNSIGNED,))[0]  # type: ignore[attr-defined]
    if pixels.dtype == np.uint8 and sample_format == _TIFF_SIGNED:
        return pixels.view(np.int8)
    if pixels.dtype == np.int32 and sample_format == _TIFF_UNSIGNED:
        return pixels.view(np.uint32)
    return pixels


def _palette(image: Image.Image) -> UInt8Array:
    colors = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colors)] = colors
    return palette


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes an EXIF orientation 1..8: 5..8 are stored with rows and columns swapped."""
    if orientation >= _FIRST_TURNED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _to_uint8(pixels: Pixels, *, path: Path, window: tuple[float, float] | None) -> UInt8Array:
    if pixels.dtype == np.bool_:
        return np.asarray(np.where(pixels, 255, 0), dtype=np.uint8)
    if pixels.dtype == np.uint8:
        scaled = pixels
    elif window is not None:
        low, high = window
        # What is too large for a float becomes infinite, and white.
        with np.errstate(over="ignore"):
            shifted = np.nan_to_num(pixels.astype(np.float32), nan=low) - low
            scaled = np.rint(np.clip(shifted * (255.0 / (high - low)), 0.0, 255.0))
    elif pixels.dtype == np.uint16:
        scaled = (pixels.astype(np.uint32) + 128) // 257
    else:
        numbers = pixels[np.isfinite(pixels)]
        held = f"{numbers.min():g}..{numbers.max():g}" if numbers.size else "without a number"
        raise DataError(
            f"{path}: {pixels.dtype} values {held} have no fixed range; "
            "expected 8-bit or unsigned 16-bit values; name the range to show with data.intensity_window: [low, high]"
        )
    return np.asarray(scaled, dtype=np.uint8)


def _is_grey(colors: Pixels) -> bool:
    return bool(np.array_equal(colors[..., 0], colors[..., 1]) and np.array_equal(colors[..., 0], colors[..., 2]))


def _coloured_mask(path: Path, pixels: Pixels) -> str:
    coloured = (pixels[..., 0] != pixels[..., 1]) | (pixels[..., 0] != pixels[..., 2])
    color = tuple(int(channel) for channel in pixels[coloured][0])
    return (
        f"{path}: mask holds RGB colours such as {color}; expected one value per pixel; "
        "save it as a grey or palette image of class indices"
    )
