"""Opening a picture: what is no file, is damaged, holds several pages or announces too much is refused."""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from etnet.data.decoder_warnings import own_warning_filters
from etnet.errors import DataError

MOST_PIXELS = 1 << 29
"""Pixels of the largest image, such as 23,000 x 23,000: 1.6 GB as RGB. What announces more is taken for an attack."""

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM")
_PAGED_FORMATS = ("TIFF", "GIF", "WEBP", "PNG")
_TIFF_MARKS = (b"II*\0", b"MM\0*")


def file_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: It cannot be opened, is no file, or is empty.
    """
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}); check the path") from error
    if not content:
        raise DataError(f"{path}: the file is empty (0 bytes); copy it again or remove it")
    return content


def check_file(path: Path) -> None:
    """Refuse what is no file before it is opened: a pipe and some devices never end, or never begin.

    Raises:
        DataError: There is nothing of this name, or a folder, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}); check the path") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder, not a file; name the files in it")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is a pipe, socket or device, not a file; save its content as a file, or remove it")


def unreadable(path: Path, reason: object) -> DataError:
    """The error for a file that no decoder understands, with the decoder's own words."""
    text = " ".join(str(reason).split()).replace("<_io.BytesIO object", "data").rstrip(".")[:160]
    return DataError(
        f"{path}: cannot be read as a picture ({text}); expected a complete PNG, JPEG, TIFF, GIF, BMP or WebP file; "
        "save it again or remove it"
    )


def open_picture(path: Path, content: bytes) -> Image.Image:
    """The picture with its header read and checked; pixels are not decoded yet.

    Raises:
        DataError: The content is no picture, announces more than `MOST_PIXELS`, or holds several pages.
    """
    try:
        image = _opened(content)
        pages = getattr(image, "n_frames", 1) if image.format in _PAGED_FORMATS else 1
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: the header announces more than {MOST_PIXELS} pixels; expected at most that many; "
            "cut the image into parts"
        ) from error
    except UnidentifiedImageError as error:
        reason = "the content is not of a known format"
        if content.startswith(_TIFF_MARKS):
            reason = "a TIFF header that is damaged, or of pixels of an unsupported kind such as 64-bit numbers"
        raise unreadable(path, reason) from error
    except Exception as error:  # decoders meet damaged bytes with any kind of exception
        raise unreadable(path, error) from error
    if pages > 1:
        raise DataError(f"{path}: the file holds {pages} pages; expected one; save each page as its own file")
    return image


def _opened(content: bytes) -> Image.Image:
    with own_warning_filters():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        # Pillow's limit is global; the block is for one thread at a time.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS
        try:
            return Image.open(io.BytesIO(content), formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
