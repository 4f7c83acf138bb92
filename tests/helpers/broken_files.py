"""Files that cannot be segmented, as disks, networks, scanners and hostile people make them, each written by code.

`KINDS` names every way to be broken, with words of the reason that a user must be told. Those of medical formats carry
the identifiers of `helpers.medical`, which no reason may repeat.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from PIL import Image
from pydicom.encaps import encapsulate

from helpers.medical import (
    identified,
    save_dicom,
    write_dicom,
    write_jpeg2000_dicom,
    write_metaimage,
    write_nifti,
)

Writer = Callable[[Path, int], object]

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_MPEG2 = "1.2.840.10008.1.2.4.100"
_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class BrokenKind:
    """One way to be broken.

    Attributes:
        name: What it is.
        suffix: Suffix of its files.
        write: Writes such a file; the number makes files of one kind differ.
        words: What its reason has to say.
    """

    name: str
    suffix: str
    write: Writer
    words: tuple[str, ...]

    def write_to(self, folder: Path, seed: int = 0) -> Path:
        path = folder / f"{self.name.replace(' ', '_')}_{seed}{self.suffix}"
        self.write(path, seed)
        return path


def write_broken(folder: Path, *, of_each: int) -> list[tuple[BrokenKind, Path]]:
    """Some files of every kind."""
    folder.mkdir(parents=True, exist_ok=True)
    return [(kind, kind.write_to(folder, seed)) for kind in KINDS for seed in range(of_each)]


def _grey(seed: int, *, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (40 + seed, 48)).astype(dtype)


def _color(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40 + seed, 48, 3)).astype(np.uint8)


def _content(array: np.ndarray, **options: object) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(array).save(encoded, **options)
    return encoded.getvalue()


def _truncated_picture(image_format: str) -> Writer:
    def write(path: Path, seed: int) -> None:
        content = _content(_color(seed), format=image_format)
        path.write_bytes(content[: len(content) * (3 + 2 * (seed % 3)) // 8])

    return write


def _text(text: str) -> Writer:
    return lambda path, seed: path.write_text(f"{text}\n" * (seed + 1), "utf-8")


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(height: int, width: int, *chunks: bytes) -> bytes:
    """A grey PNG with any chunks between its header and its end."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def _png_bomb(path: Path, seed: int) -> None:
    side = 30_000 + seed
    data = zlib.compress(b"\0" * 10_000_000, 9)
    path.write_bytes(png_of(side, side, png_chunk(b"IDAT", data)))


def _png_text_bomb(path: Path, seed: int) -> None:
    text = b"Comment\0\0" + zlib.compress(b"a" * (200_000_000 + seed), 9)
    path.write_bytes(png_of(4, 4, png_chunk(b"zTXt", text), png_chunk(b"IDAT", zlib.compress(b"\0" * 20))))


def _png_checksum(path: Path, seed: int) -> None:
    # Stored, not deflated, so that a changed byte is another grey value and no error of the decoder.
    content = bytearray(_content(_grey(seed), format="PNG", compress_level=0))
    content[content.index(b"IDAT") + 400 + seed] ^= 0x10
    path.write_bytes(content)


def tiff_of(tags: dict[int, tuple[int, int]], pixels: bytes = b"") -> bytes:
    """A little-endian TIFF of one page; tags are number: (type 3 or 4, value)."""
    start = 8 + len(pixels)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items()))
    return struct.pack("<2sHI", b"II", 42, start) + pixels + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def grey_tiff(height: int, width: int, pixels: bytes) -> bytes:
    counts = {278: (4, max(height, 1)), 273: (4, 8), 279: (4, len(pixels))}
    kind = {258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1)}
    return tiff_of({256: (4, width), 257: (4, height), **counts, **kind}, pixels)


def _pages(image_format: str) -> Writer:
    def write(path: Path, seed: int) -> None:
        first, *others = [Image.fromarray(_grey(seed + page)).resize((48, 40)) for page in range(2 + seed)]
        first.save(path, format=image_format, save_all=True, append_images=others)

    return write


def _dicom(**tags: object) -> Writer:
    return lambda path, seed: write_dicom(path, _grey(seed), **tags)


def _dicom_spacing(text: bytes) -> Writer:
    def write(path: Path, seed: int) -> None:
        # pydicom refuses to write what is no number.
        write_dicom(path, _grey(seed), PixelSpacing=["0.123456", "0.5"])
        content = path.read_bytes()
        assert content.count(b"0.123456") == 1
        path.write_bytes(content.replace(b"0.123456", text.ljust(8)))

    return write


def _dicom_of_damaged_jpeg(path: Path, seed: int) -> None:
    encoded = _content(_grey(seed), format="JPEG")
    frame = encapsulate([encoded[: len(encoded) // 3]])
    write_dicom(path, _grey(seed), syntax=_JPEG_BASELINE, PixelData=frame)


def _dicom_of_huge_jpeg(path: Path, seed: int) -> None:
    """The compressed image inside announces 65,000 x 65,000 pixels; the header around it does not."""
    encoded = bytearray(_content(_grey(seed), format="JPEG"))
    at = encoded.index(b"\xff\xc0") + 5
    encoded[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    write_dicom(path, _grey(seed), syntax=_JPEG_BASELINE, PixelData=encapsulate([bytes(encoded)]))


def _dicom_of_huge_jpeg2000(path: Path, seed: int) -> None:
    write_jpeg2000_dicom(path, _grey(seed))
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\x4f\xff\x51") + 8
    content[at : at + 8] = struct.pack(">II", 65_000, 65_000)
    content[at + 16 : at + 24] = struct.pack(">II", 65_000, 65_000)
    path.write_bytes(content)


def _dicom_deflated_bomb(path: Path, seed: int) -> None:
    """A megabyte that unpacks to the image and 1.2 GB of an element that nobody asks for."""
    deflated = write_dicom(path, _grey(seed), syntax=_DEFLATED).read_bytes()
    body = _after_first_group(write_dicom(path, _grey(seed)).read_bytes())
    first = _deflated_block(body + struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, 1200 << 20))
    # Blocks after a full flush know nothing of each other, so that one can be repeated.
    stream = first + _deflated_block(bytes(12 << 20)) * 100
    path.write_bytes(deflated[: -len(_after_first_group(deflated))] + stream)


def _deflated_block(content: bytes) -> bytes:
    deflation = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflation.compress(content) + deflation.flush(zlib.Z_FULL_FLUSH)


def _after_first_group(content: bytes) -> bytes:
    """What follows the group of a DICOM file that names the transfer syntax."""
    return content[144 + struct.unpack_from("<I", content, 140)[0] :]


def _truncated(write: Writer, share: float) -> Writer:
    def truncate(path: Path, seed: int) -> None:
        write(path, seed)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return truncate


def _nifti(*shape: int, dtype: type = np.uint8) -> Writer:
    def write(path: Path, seed: int) -> None:
        values = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
        write_nifti(path, values, np.eye(4))

    return write


def _nifti_of_nan(path: Path, seed: int) -> None:
    write_nifti(path, np.full((5 + seed, 6, 7), np.nan, np.float32), np.eye(4))


def _nifti_bomb(path: Path, seed: int) -> None:
    """A few megabytes that unpack to tens of gigabytes."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((2000, 2000, 1500 + seed))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with gzip.open(path, "wb") as stream:
        stream.write(header.binaryblock + b"\0" * 4)
        for _ in range(64):
            stream.write(b"\0" * (1 << 20))


def _metaimage(path: Path, seed: int) -> None:
    write_metaimage(path, np.random.default_rng(seed).integers(0, 256, (5 + seed, 6, 7)).astype(np.uint8))


def _compressed_metaimage(path: Path, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (30, 30, 30)).astype(np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path), useCompression=True)


def _damaged_voxels(write: Writer) -> Writer:
    """A few bytes in the middle are others, which no decoder notices by itself but for the checksum at the end."""

    def damage(path: Path, seed: int) -> None:
        write(path, seed)
        content = bytearray(path.read_bytes())
        for position in range(len(content) // 2, len(content) // 2 + 40, 10):
            content[position] ^= 0x11
        path.write_bytes(content)

    return damage


def _metaimage_without_voxels(path: Path, seed: int) -> None:
    _metaimage(path, seed)
    path.with_suffix(".raw").unlink()


def _metaimage_that_lies(path: Path, seed: int) -> None:
    _metaimage(path, seed)
    content = path.read_bytes()
    told = f"DimSize = {5 + seed} 6 7".encode()
    assert told in content
    path.write_bytes(content.replace(told, b"DimSize = 1200 1200 1200"))


def _metaimage_header(line: str, *, instead_of: str) -> Writer:
    """Another line in the place of the one with a key; `{0}` in it stands for the number of the file."""

    def write(path: Path, seed: int) -> None:
        _metaimage(path, seed)
        lines = path.read_bytes().split(b"\n")
        (at,) = [index for index, present in enumerate(lines) if present.startswith(f"{instead_of} =".encode())]
        lines[at] = line.format(5 + seed).encode()
        path.write_bytes(b"\n".join(lines))

    return write


def _metaimage_of_huge_compressed_data(path: Path, seed: int) -> None:
    _metaimage(path, seed)
    content = path.read_bytes()
    told = b"CompressedData = False"
    assert told in content
    path.write_bytes(content.replace(told, b"CompressedData = True\nCompressedDataSize = 60000000000"))


def _link(path: Path, seed: int) -> None:
    path.symlink_to(f"gone_{seed}.png")


def _link_to_itself(path: Path, seed: int) -> None:
    path.symlink_to(path.name)


def _pipe(path: Path, seed: int) -> None:
    os.mkfifo(path)


KINDS = (
    *(
        BrokenKind(
            f"truncated {suffix[1:]}", suffix, _truncated_picture(image_format), ("cannot be read as a picture",)
        )
        for image_format, suffix in [
            ("JPEG", ".jpg"),
            ("PNG", ".png"),
            ("TIFF", ".tif"),
            ("GIF", ".gif"),
            ("BMP", ".bmp"),
            ("WEBP", ".webp"),
        ]
    ),
    BrokenKind("no bytes", ".png", lambda path, seed: path.touch(), ("0 bytes",)),
    BrokenKind("text", ".png", _text("not a picture"), ("not of a known format",)),
    BrokenKind("web page", ".jpg", _text("<!DOCTYPE html><title>404 Not Found</title>"), ("not of a known format",)),
    BrokenKind("bomb", ".png", _png_bomb, ("announces more than", "pixels")),
    BrokenKind("text bomb", ".png", _png_text_bomb, ("cannot be read as a picture",)),
    BrokenKind(
        "bomb",
        ".tif",
        lambda path, seed: path.write_bytes(grey_tiff(50_000, 50_000 + seed, b"\0" * 99)),
        ("announces more than", "pixels"),
    ),
    BrokenKind("checksum", ".png", _png_checksum, ("broken data stream",)),
    BrokenKind("pages", ".tif", _pages("TIFF"), ("pages; expected one",)),
    BrokenKind("animation", ".gif", _pages("GIF"), ("pages; expected one",)),
    BrokenKind(
        "no rows",
        ".tif",
        lambda path, seed: path.write_bytes(grey_tiff(0, 5 + seed, b"")),
        ("cannot be read as a picture",),
    ),
    BrokenKind("no pixels", ".dcm", lambda path, seed: save_dicom(path, identified()), ("holds no pixels",)),
    BrokenKind(
        "film", ".dcm", _dicom(syntax=_MPEG2, PixelData=b"\xfe\xff\0\xe0" * 4), ("compressed as MPEG2", "decoder")
    ),
    BrokenKind("damaged jpeg", ".dcm", _dicom_of_damaged_jpeg, ("damaged or incomplete",)),
    BrokenKind("huge jpeg", ".dcm", _dicom_of_huge_jpeg, ("damaged or incomplete",)),
    BrokenKind("huge jpeg2000", ".dcm", _dicom_of_huge_jpeg2000, ("damaged or incomplete",)),
    BrokenKind(
        "frames",
        ".dcm",
        lambda path, seed: write_dicom(path, np.zeros((3, 8, 9), np.uint8), frames=3),
        ("holds 3 frames",),
    ),
    BrokenKind("deflated bomb", ".dcm", _dicom_deflated_bomb, ("unpacks to more than",)),
    BrokenKind("spacing nan", ".dcm", _dicom_spacing(b"NaN"), ("PixelSpacing is [nan, 0.5]",)),
    BrokenKind("spacing negative", ".dcm", _dicom_spacing(b"-0.5"), ("PixelSpacing is [-0.5, 0.5]",)),
    BrokenKind("spacing zero", ".dcm", _dicom_spacing(b"0"), ("PixelSpacing is [0, 0.5]",)),
    BrokenKind("truncated", ".dcm", _truncated(_dicom(), 0.6), ("damaged or incomplete",)),
    BrokenKind("truncated", ".nii.gz", _truncated(_nifti(30, 30, 30), 0.6), ("NIfTI",)),
    BrokenKind("truncated", ".nii", _truncated(_nifti(30, 30, 30), 0.6), ("NIfTI",)),
    BrokenKind("five dimensions", ".nii.gz", _nifti(4, 5, 6, 1, 3), ("expected three dimensions",)),
    BrokenKind("not a number", ".nii.gz", _nifti_of_nan, ("NaN",)),
    BrokenKind("bomb", ".nii.gz", _nifti_bomb, ("announces",)),
    BrokenKind("damaged voxels", ".nii.gz", _damaged_voxels(_nifti(30, 30, 30)), ("NIfTI",)),
    BrokenKind("damaged voxels", ".mha", _damaged_voxels(_compressed_metaimage), ("compressed voxels are damaged",)),
    BrokenKind("no voxels", ".mhd", _metaimage_without_voxels, ("the file with its voxels is missing",)),
    BrokenKind("lying size", ".mha", _metaimage_that_lies, ("bytes of voxels; expected 1728000000",)),
    BrokenKind("lying compression", ".mha", _metaimage_of_huge_compressed_data, ("compressed voxels are damaged",)),
    *(
        BrokenKind(
            f"header {name}", ".mha", _metaimage_header(line, instead_of=key), (f"the line {key} of its header",)
        )
        for name, key, line in [
            ("negative dimensions", "NDims", "NDims =-3"),
            ("too many dimensions", "NDims", "NDims = 99999"),
            ("overflowing dimensions", "NDims", "NDims = 2147483648"),
            ("no dimensions", "NDims", "NDims = 0"),
            ("dimensions in words", "NDims", "NDims = three"),
            ("dimensions twice", "NDims", "NDims = 3\nNDims = -3"),
            ("negative length", "DimSize", "DimSize = -{0} 6 7"),
            ("too few lengths", "DimSize", "DimSize = {0} 6"),
            ("too many lengths", "DimSize", "DimSize = {0} 6 7 1 1 1 1 1 1 1 1 1"),
            ("too few spacings", "ElementSpacing", "ElementSpacing = 1"),
            ("too many spacings", "ElementSpacing", "ElementSpacing = " + "1 " * 3000),
            ("short matrix", "TransformMatrix", "TransformMatrix = 1"),
            ("long matrix", "TransformMatrix", "TransformMatrix = " + "1 " * 500),
            ("infinite offset", "Offset", "Offset = inf 0 0"),
        ]
    ),
    BrokenKind(
        "header of channels",
        ".mha",
        _metaimage_header("ElementNumberOfChannels = -1\nElementType = MET_UCHAR", instead_of="ElementType"),
        ("the line ElementNumberOfChannels of its header holds -1",),
    ),
    BrokenKind("link to nothing", ".png", _link, ("cannot be opened", "No such file")),
    BrokenKind("link to itself", ".png", _link_to_itself, ("cannot be opened", "symbolic links")),
    BrokenKind("pipe", ".png", _pipe, ("is a pipe, socket or device, not a file",)),
)
"""Every kind, in the order of their formats."""
