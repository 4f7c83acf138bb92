"""DICOM images with one frame (X-ray, CT slices, photographs) as 8-bit RGB, without anything that names the patient.

Only the tags in `_TAGS` are taken out of a file, so no identifier can reach a result, a log or an error; sentences
quote numbers and transfer syntaxes, never the text of a decoder. Parts and sections are those of the DICOM standard.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import shlex
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.data.decoder_warnings import silenced
from etnet.data.inflated_size import RAW, inflated_bytes
from etnet.data.io import StoredPicture, check_numbers, image_from
from etnet.data.medical_packages import import_for
from etnet.data.picture_files import MOST_PIXELS, check_file, file_bytes
from etnet.errors import DataError
from etnet.types import UInt8Array

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Suffixes, in lower case, of DICOM files; many have none, and `is_dicom` tells by the content."""

_MARK_AT = 128
_MARK = b"DICM"
_TAGS = [
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("PixelSpacing", "ImagerPixelSpacing", "EstimatedRadiographicMagnificationFactor", "NominalScannedPixelSpacing"),
]
_GREY = ("MONOCHROME1", "MONOCHROME2")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LONGEST_GROUP = 1 << 16
_MOST_INFLATED = 1 << 30
"""Bytes that a deflated file may hold: twice those of the largest colour image of 16 bits that is read."""
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


@dataclass(frozen=True)
class DicomImage:
    """One DICOM image as the network and the measurements take it.

    Attributes:
        pixels: RGB image [H, W, 3], uint8, bright as a radiologist sees it (MONOCHROME1 is inverted).
        spacing: Distance between rows and between columns in mm; None when the file does not tell it.
    """

    pixels: UInt8Array
    spacing: tuple[float, float] | None


def is_dicom(path: Path) -> bool:
    """Whether the content of a file is marked as DICOM (part 10, section 7.1); False where it cannot be read."""
    try:
        check_file(path)
        with path.open("rb") as stream:
            stream.seek(_MARK_AT)
            return stream.read(len(_MARK)) == _MARK
    except (OSError, DataError):
        return False


def read_dicom(path: Path | str, *, intensity_window: tuple[float, float] | None = None) -> DicomImage:
    """Reads a DICOM file with one frame.

    Stored values become values of the modality (rescale slope and intercept or a table; Hounsfield units for CT; part
    3, section C.11.1). Grey images of more than 8 bits are shown through `intensity_window`; without one through the
    first window or table of values of interest in the file (section C.11.2); without any, unsigned values over the full
    range of their bits. Then MONOCHROME1, whose low values are white, is inverted. Colours become RGB.

    The spacing is PixelSpacing, or NominalScannedPixelSpacing of a scanned film, or ImagerPixelSpacing divided by the
    magnification where the file holds one: alone, it is that of the detector and not of the patient (section 10.7.1.3).

    Args:
        path: The file.
        intensity_window: (low, high) in units of the modality, mapped linearly to 0..255 and clipped.

    Raises:
        DataError: The file is not DICOM, holds no pixels or several frames, is compressed in a way that no installed
            decoder reads, is damaged, has a spacing that is not positive, or its values have no known range.
        EnvironmentFault: pydicom is not installed.
    """
    path = Path(path)
    import_for(path, "pydicom.pixels")
    content = file_bytes(path)
    if content[_MARK_AT : _MARK_AT + len(_MARK)] != _MARK:
        raise DataError(f"{path}: is no DICOM file (DICM is missing at byte {_MARK_AT}); export it again or remove it")
    with silenced("pydicom"):
        _check_inflated_size(content, path)
        dataset = _parse(content, path)
        _check_frames(dataset, path)
        spacing = _spacing(dataset, path)
        values = _decode(dataset, path)
        try:
            shown, window = _displayed(dataset, values, path, recipe_window=intensity_window)
        except Exception as error:  # tables and windows of damaged files fail in any way
            raise DataError(
                f"{path}: its rescaling, window or colour table cannot be applied ({type(error).__name__}); expected "
                "those of the DICOM standard; export the image again"
            ) from None
    pixels = image_from(StoredPicture(shown), path, intensity_window=window)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return DicomImage(np.ascontiguousarray(255 - pixels) if inverted else pixels, spacing)


def _check_inflated_size(content: bytes, path: Path) -> None:
    """Refuse a deflated file (part 5, section A.5) that unpacks to more than any image: pydicom unpacks all of it."""
    first_element = _MARK_AT + len(_MARK)
    # The group that names the transfer syntax begins with its own length: tag, type, two bytes, and four of length.
    (length,) = struct.unpack_from("<I", content.ljust(first_element + 12, b"\0"), first_element + 8)
    start = first_element + 12 + length
    if _DEFLATED not in content[first_element : min(start, first_element + _LONGEST_GROUP)]:
        return
    stream = io.BytesIO(content)
    stream.seek(start)
    try:
        inflated = inflated_bytes(stream, wrapper=RAW, most=_MOST_INFLATED)
    except (zlib.error, EOFError) as error:
        raise _damaged(path, error) from None
    if inflated > _MOST_INFLATED:
        raise DataError(
            f"{path}: the deflated DICOM file unpacks to more than {_MOST_INFLATED} bytes; expected one image; "
            "export it again without compression"
        )


def _parse(content: bytes, path: Path) -> Any:
    pydicom = import_for(path, "pydicom")
    try:
        return pydicom.dcmread(io.BytesIO(content), specific_tags=list(_TAGS))
    # The decoder's text may quote the file, and so a patient's name: it is neither shown nor chained.
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: the DICOM file is damaged or incomplete ({type(error).__name__}); copy or export it again"
    )


def _check_frames(dataset: Any, path: Path) -> None:
    try:
        has_pixels = any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
        frames, rows, columns = (dataset.get(name) for name in ("NumberOfFrames", "Rows", "Columns"))
        frames, rows, columns = int(frames or 1), int(rows or 0), int(columns or 0)
    except Exception as error:
        raise _damaged(path, error) from None
    if not has_pixels or rows < 1 or columns < 1:
        raise DataError(f"{path}: the DICOM file holds no pixels (it may be a report or a plan); remove it")
    if frames > 1:
        raise DataError(
            f"{path}: the DICOM file holds {frames} frames; expected one; save each frame as its own file, or the "
            "series as a NIfTI or MetaImage volume"
        )
    if rows * columns > MOST_PIXELS:
        raise DataError(
            f"{path}: the header announces {rows}x{columns} pixels; expected at most {MOST_PIXELS}; cut the "
            "image into parts"
        )


def _decode(dataset: Any, path: Path) -> npt.NDArray[Any]:
    """Stored values [H, W], or RGB [H, W, 3]."""
    pixels = import_for(path, "pydicom.pixels")
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
    except AttributeError as error:
        raise _damaged(path, error) from None
    try:
        readable = not syntax.is_compressed or pixels.get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):  # a private or unknown way of compression
        readable = False
    if not readable:
        missing = importlib.util.find_spec("gdcm") is None
        remedy = "pip install 'etnet[medical]'" if missing else f"gdcmconv --raw {shlex.quote(str(path))} OUTPUT.dcm"
        raise DataError(
            f"{path}: is compressed as {_syntax_name(syntax)}, which no installed decoder reads; "
            f"{'install decoders' if missing else 'decompress it first, for instance'} with: {remedy}"
        )
    try:
        values: npt.NDArray[Any] = pixels.pixel_array(dataset, decoding_plugin=_plugin(dataset, pixels.get_decoder))
    except MemoryError:
        raise
    except Exception as error:  # decoders meet damaged bytes with any kind of exception
        raise _damaged(path, error) from None
    check_numbers(values, path)
    return values


def _plugin(dataset: Any, get_decoder: Callable[[Any], Any]) -> str:
    """The decoder to take, or nothing for the first that is able to.

    Of a damaged JPEG 2000 image, GDCM prints on stderr and takes the memory that the image inside announces, whatever
    the header around it says; Pillow does neither, but cannot read colours of more than 8 bits.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _JPEG_2000 or (int(dataset.SamplesPerPixel) > 1 and int(dataset.BitsStored) > 8):
        return ""
    return "pillow" if "pillow" in get_decoder(syntax).available_plugins else ""


def _syntax_name(syntax: Any) -> str:
    if syntax.name != str(syntax):
        return f"{syntax.name} ({syntax})"
    # Where the header is damaged, this is any text of the file.
    return f"transfer syntax {syntax}" if re.fullmatch(r"[0-9.]{1,64}", syntax) else "an unknown transfer syntax"


def _displayed(
    dataset: Any, values: npt.NDArray[Any], path: Path, *, recipe_window: tuple[float, float] | None
) -> tuple[npt.NDArray[Any], tuple[float, float] | None]:
    """What `image_from` takes: values, and the range to show where they are not 8-bit already."""
    processing = import_for(path, "pydicom.pixels")
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colors = processing.apply_color_lut(values, dataset)
        return colors, (0.0, float(np.iinfo(colors.dtype).max))
    bits = int(dataset.BitsStored)
    full_range = (0.0, float(2**bits - 1))
    if dataset.PhotometricInterpretation not in _GREY:
        return values, full_range
    rescaled = processing.apply_modality_lut(values, dataset).astype(np.float32)
    if recipe_window is not None and (bits > 8 or _has_unit(dataset)):
        return rescaled, recipe_window
    if dataset.get("VOILUTSequence"):
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return processing.apply_voi_lut(processing.apply_modality_lut(values, dataset), dataset).astype(np.float32), (
            0.0,
            2.0**depth - 1,
        )
    if _numbers(dataset, "WindowCenter") and _numbers(dataset, "WindowWidth"):
        # Values far below and above any window show which outputs stand for black and white.
        low, high = processing.apply_voi_lut(np.array([-np.inf, np.inf]), dataset)
        return processing.apply_voi_lut(rescaled, dataset), (float(low), float(high))
    if values.dtype.kind != "u":
        return rescaled, None
    # Of stored values: a rescaling with a positive slope keeps what is black and what is white.
    return values.astype(np.float32), full_range


def _has_unit(dataset: Any) -> bool:
    """Whether stored values are turned into others, such as Hounsfield units."""
    slope, intercept = _numbers(dataset, "RescaleSlope") or (1.0,), _numbers(dataset, "RescaleIntercept") or (0.0,)
    return bool(dataset.get("ModalityLUTSequence")) or (slope, intercept) != ((1.0,), (0.0,))


def _spacing(dataset: Any, path: Path) -> tuple[float, float] | None:
    magnification = 1.0
    for name in ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing"):
        found = _numbers(dataset, name)
        if name == "ImagerPixelSpacing":
            factor = _numbers(dataset, "EstimatedRadiographicMagnificationFactor")
            if not factor:
                return None
            magnification = factor[0]
        if not found:
            continue
        if len(found) != 2 or not all(math.isfinite(value) and value > 0 for value in (*found, magnification)):
            given = ", ".join(f"{value:g}" for value in found)
            raise DataError(
                f"{path}: {name} is [{given}] mm; expected two positive numbers, the distance between rows and between "
                "columns; correct the file or remove it"
            )
        return found[0] / magnification, found[1] / magnification
    return None


def _numbers(dataset: Any, name: str) -> tuple[float, ...]:
    """The values of a tag; NaN stands for what is no number, nothing for an absent or empty tag."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom refuses values that are no numbers when they are first looked at
        return (math.nan,)
    if value is None or value == "":
        return ()
    try:
        return tuple(float(item) for item in value) if hasattr(value, "__len__") else (float(value),)
    except (TypeError, ValueError):
        return (math.nan,)
