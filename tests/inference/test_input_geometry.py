"""Masks lie where their images do: a marked pixel or voxel is found again by the format's own library, for every way
in which a format can store its pixels. What is not supported is said in one sentence, and that is tested too."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import gdcm
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image, ImageOps
from pydicom.uid import ImplicitVRLittleEndian

from etnet.errors import DataError
from etnet.inference.input_images import InputImage, open_input
from etnet.inference.inputs import find_inputs
from helpers.broken_files import png_chunk, png_of
from helpers.medical import write_dicom, write_metaimage, write_nifti

HEIGHT, WIDTH = 20, 33
ROWS, COLUMNS = slice(3, 6), slice(20, 28)


def marked(*, low=20, high=220, dtype=np.uint8) -> np.ndarray:
    """Dark, with a bright bar that no turn, flip or swap of axes leaves in its place."""
    values = np.full((HEIGHT, WIDTH), low, dtype)
    values[ROWS, COLUMNS] = high
    return values


def colored() -> np.ndarray:
    return np.dstack([marked(), marked(high=180), marked(high=140)])


def opened(path: Path, window=None) -> InputImage:
    (item,) = find_inputs(path).items
    return open_input(item, intensity_window=window)


def mask_of(image: InputImage, folder: Path) -> np.ndarray:
    """The bright pixels as the mask's file holds them, read by Pillow."""
    path = folder / f"written_mask{image.mask_suffix}"
    image.write_mask(path, [(image.pixels(index)[..., 0] > 120).astype(np.uint8) for index in range(image.num_slices)])
    with Image.open(path) as mask:
        return np.asarray(mask)


def assert_marked(path: Path, expected: np.ndarray | None = None, *, window=None) -> None:
    image = opened(path, window)
    expected = marked(low=0, high=1) if expected is None else expected
    assert image.size == expected.shape
    np.testing.assert_array_equal(mask_of(image, path.parent), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_the_mask_of_a_turned_picture_lies_as_the_picture_is_displayed(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(marked())
    # Large enough steps survive compression with loss; the bar lies on the grid of its blocks nowhere.
    stored.save(tmp_path / name, exif=exif, **({"quality": 100} if name != "a.tif" else {}))
    shown = Image.fromarray(marked(low=0, high=1))
    shown.getexif()[0x0112] = orientation
    assert_marked(tmp_path / name, np.asarray(ImageOps.exif_transpose(shown)))


def alpha() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint8)


def palette() -> Image.Image:
    picture = Image.fromarray(marked(low=1, high=2))
    picture.putpalette([0, 0, 0, 10, 20, 30, 250, 200, 150])
    return picture


PICTURES = {
    "rgba.png": lambda: (Image.fromarray(np.concatenate([colored(), alpha()], axis=-1)), {}),
    "grey and alpha.png": lambda: (Image.fromarray(np.concatenate([marked()[..., None], alpha()], axis=-1)), {}),
    "palette.png": lambda: (palette(), {}),
    "palette with transparency.png": lambda: (palette(), {"transparency": 2}),
    "palette.gif": lambda: (palette(), {}),
    "palette.bmp": lambda: (palette(), {}),
    "one bit.png": lambda: (Image.fromarray(marked() > 100), {}),
    "one bit.tif": lambda: (Image.fromarray(marked() > 100), {"compression": "group4"}),
    "one bit.bmp": lambda: (Image.fromarray(marked() > 100), {}),
    "cmyk.jpg": lambda: (Image.fromarray(colored()).convert("CMYK"), {"quality": 100}),
    "cmyk.tif": lambda: (Image.fromarray(colored()).convert("CMYK"), {}),
    "lab.tif": lambda: (Image.fromarray(np.dstack([marked(), np.zeros((HEIGHT, WIDTH, 2), np.uint8)]), "LAB"), {}),
    "progressive.jpg": lambda: (Image.fromarray(colored()), {"quality": 100, "progressive": True}),
    "grey.jpg": lambda: (Image.fromarray(marked()), {"quality": 100}),
    "deep.png": lambda: (Image.fromarray(marked(high=60_000, dtype=np.uint16)), {}),
    "deep.tif": lambda: (Image.fromarray(marked(high=60_000, dtype=np.uint16)), {}),
    "lzw.tif": lambda: (Image.fromarray(colored()), {"compression": "tiff_lzw"}),
    "deflated.tif": lambda: (Image.fromarray(marked()), {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": lambda: (Image.fromarray(marked()), {"compression": "jpeg", "quality": 100}),
    "lossless.webp": lambda: (Image.fromarray(colored()), {"lossless": True}),
    "binary.ppm": lambda: (Image.fromarray(colored()), {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_mask_lies_where_the_picture_does_however_its_pixels_are_stored(tmp_path, name):
    picture, options = PICTURES[name]()
    picture.save(tmp_path / name, **options)
    assert_marked(tmp_path / name)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_colours_of_16_bits_are_read(tmp_path, name):
    assert cv2.imwrite(str(tmp_path / name), colored().astype(np.uint16) * 257)
    assert_marked(tmp_path / name)


def test_an_interlaced_png_is_read(tmp_path):
    # Pillow does not write them: Adam7 sends the pixels in seven passes (PNG specification, section 8.2).
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b"".join(
        b"\0" + line.tobytes() for row, column, down, right in passes for line in marked()[row::down, column::right]
    )
    content = bytearray(png_of(HEIGHT, WIDTH, png_chunk(b"IDAT", zlib.compress(lines))))
    content[28] = 1
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "interlaced.png").write_bytes(content)
    assert_marked(tmp_path / "interlaced.png")


def write_tiff(
    path: Path, values: np.ndarray, *, order: str = "<", sample_format: int = 1, tile: int | None = None
) -> None:
    """A grey TIFF (revision 6.0) in either byte order, in one strip or in tiles."""
    kind = values.astype(values.dtype.newbyteorder(order))
    parts = [kind.tobytes()]
    where = {273: (4, [8]), 278: (4, [HEIGHT]), 279: (4, [len(parts[0])])}
    if tile is not None:
        padded = np.pad(kind, [(0, -side % tile) for side in kind.shape])
        corners = [
            (row, column) for row in range(0, padded.shape[0], tile) for column in range(0, padded.shape[1], tile)
        ]
        parts = [padded[row : row + tile, column : column + tile].tobytes() for row, column in corners]
        starts = [8 + index * len(parts[0]) for index in range(len(parts))]
        where = {322: (4, [tile]), 323: (4, [tile]), 324: (4, starts), 325: (4, [len(part) for part in parts])}
    bits = values.dtype.itemsize * 8
    short = {258: bits, 259: 1, 262: 1, 277: 1, 339: sample_format}
    tags = {256: (4, [WIDTH]), 257: (4, [HEIGHT]), **{tag: (3, [value]) for tag, value in short.items()}, **where}
    pixels = b"".join(parts)
    lists, at = b"", 8 + len(pixels)
    entries = []
    for tag, (field, numbers) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}{'I' if field == 4 else 'H'}", *numbers)
        if len(packed) > 4:
            lists, packed = lists + packed, struct.pack(f"{order}I", at + len(lists))
        entries.append(struct.pack(f"{order}HHI", tag, field, len(numbers)) + packed.ljust(4, b"\0"))
    header = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at + len(lists))
    folder = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    path.write_bytes(header + pixels + lists + folder)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("tile", [None, 16], ids=["strip", "tiles"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_files_of_either_byte_order_in_strips_and_tiles_are_read(tmp_path, order, tile, dtype):
    high = {1: 220, 2: 60_000}[np.dtype(dtype).itemsize]
    write_tiff(tmp_path / "x.tif", marked(high=high, dtype=dtype), order=order, tile=tile)
    assert_marked(tmp_path / "x.tif")


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(("dtype", "sample_format"), [(np.int16, 2), (np.float32, 3), (np.int32, 2)])
def test_tiff_files_of_signed_and_floating_point_values_need_the_window(tmp_path, order, dtype, sample_format):
    write_tiff(tmp_path / "x.tif", marked(low=-900, high=300, dtype=dtype), order=order, sample_format=sample_format)
    with pytest.raises(DataError, match=r"have no fixed range; .*data\.intensity_window"):
        opened(tmp_path / "x.tif")
    assert_marked(tmp_path / "x.tif", window=(-1000, 400))


def test_tiff_files_of_8_bits_with_a_sign_and_of_32_without_keep_their_order(tmp_path):
    write_tiff(tmp_path / "signed.tif", marked(low=-100, high=100, dtype=np.int8), sample_format=2)
    write_tiff(tmp_path / "large.tif", marked(low=1000, high=4_000_000_000, dtype=np.uint32))
    for name, window in (("signed.tif", (-128, 127)), ("large.tif", (0, 2**32 - 1))):
        with pytest.raises(DataError, match=r"have no fixed range; .*data\.intensity_window"):
            opened(tmp_path / name)
        assert_marked(tmp_path / name, window=window)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_tiff_files_of_kinds_that_are_not_read_say_so(tmp_path, dtype):
    write_tiff(tmp_path / "x.tif", marked(dtype=dtype), sample_format=3)
    with pytest.raises(DataError, match="pixels of an unsupported kind such as 64-bit numbers"):
        opened(tmp_path / "x.tif", (0, 255))


@pytest.mark.parametrize(
    ("tags", "window"),
    [
        ({"BitsStored": 8, "HighBit": 7}, None),
        ({}, (0, 255)),
        ({"syntax": ImplicitVRLittleEndian}, (0, 255)),
        ({"RescaleSlope": "2", "RescaleIntercept": "-40"}, (0, 400)),
        ({"WindowCenter": "120", "WindowWidth": "100"}, None),
    ],
    ids=["8 of 16 bits", "the recipe's window", "implicit", "rescaled", "the file's window"],
)
def test_the_mask_of_a_dicom_file_lies_where_its_image_does(tmp_path, tags, window):
    assert_marked(write_dicom(tmp_path / "x.dcm", marked(dtype=np.uint16), **tags), window=window)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"], ids=["RLE", "JPEG lossless"])
def test_the_mask_of_a_dicom_file_compressed_without_loss_lies_where_its_image_does(tmp_path, syntax):
    path = write_dicom(tmp_path / "x.dcm", marked(dtype=np.uint16))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    kinds = {"1.2.840.10008.1.2.5": gdcm.TransferSyntax.RLELossless}
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds.get(syntax, gdcm.TransferSyntax.JPEGLosslessProcess14_1)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert_marked(path, window=(0, 255))


def test_low_values_of_monochrome1_are_the_bright_ones(tmp_path):
    write_dicom(tmp_path / "x.dcm", marked(low=220, high=20), PhotometricInterpretation="MONOCHROME1")
    assert_marked(tmp_path / "x.dcm")


# Right, front, up along the axes of the voxels: as scanned, flipped, permuted, and turned by 20 degrees.
TURN = np.array([[np.cos(0.35), -np.sin(0.35), 0], [np.sin(0.35), np.cos(0.35), 0], [0, 0, 1]])
DIRECTIONS = {
    "as scanned": np.diag([-1.0, -1.0, 1.0]),
    "flipped": np.diag([1.0, -1.0, -1.0]),
    "permuted": np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]]),
    "oblique": TURN @ np.diag([-1.0, 1.0, 1.0]),
}
MARKER = (2, 5, 1)


def volume_with_a_marker(dtype) -> np.ndarray:
    values = np.full((4, 7, 6), -900, dtype)
    values[MARKER] = 300
    return values


def write_voxel_mask(path: Path, plane: str, folder: Path) -> Path:
    (item,) = find_inputs(path).items
    image = open_input(item, intensity_window=(-1000, 400), plane=plane)
    mask = folder / f"mask{image.mask_suffix}"
    image.write_mask(mask, [(image.pixels(index)[..., 0] > 120).astype(np.uint8) for index in range(image.num_slices)])
    return mask


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_mask_of_a_nifti_volume_has_its_header_and_its_marked_voxel(tmp_path, suffix, dtype, directions, plane):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * (0.5, 0.75, 2.5), (11, -22, 33)
    path = write_nifti(tmp_path / f"x{suffix}", volume_with_a_marker(dtype), affine, sform_code=1, qform_code=1)
    before, after = nibabel.load(path), nibabel.load(write_voxel_mask(path, plane, tmp_path))
    np.testing.assert_array_equal(np.argwhere(np.asarray(after.dataobj)), [MARKER])
    np.testing.assert_array_equal(after.affine, before.affine)
    for field in ("pixdim", "dim", "sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "xyzt_units"):
        np.testing.assert_array_equal(after.header[field], before.header[field])


def test_a_nifti_volume_of_four_dimensions_is_refused_but_for_a_last_one_of_one(tmp_path):
    values = volume_with_a_marker(np.int16)
    with pytest.raises(DataError, match="has 4x7x6x2 voxels; expected three dimensions"):
        opened(write_nifti(tmp_path / "x.nii", np.stack([values] * 2, axis=-1), np.eye(4)))
    path = write_nifti(tmp_path / "y.nii", values[..., np.newaxis], np.eye(4))
    mask = nibabel.load(write_voxel_mask(path, "axial", tmp_path))
    np.testing.assert_array_equal(np.argwhere(np.asarray(mask.dataobj)), [(*MARKER, 0)])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_the_mask_of_a_metaimage_has_its_geometry_and_its_marked_voxel(tmp_path, suffix, compressed, directions, plane):
    path = tmp_path / f"x{suffix}"
    values = volume_with_a_marker(np.int16)
    write_metaimage(path, values, direction=directions, spacing=(0.5, 0.75, 2.5), origin=(11, -22, 33))
    before = SimpleITK.ReadImage(str(path))
    if compressed:
        SimpleITK.WriteImage(before, str(path), useCompression=True)
    after = SimpleITK.ReadImage(str(write_voxel_mask(path, plane, tmp_path)))
    np.testing.assert_array_equal(np.argwhere(SimpleITK.GetArrayFromImage(after).T), [MARKER])
    assert after.GetSize() == before.GetSize()
    for field in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, field)() == pytest.approx(getattr(before, field)(), abs=1e-12)
    physical = [image.TransformIndexToPhysicalPoint(MARKER) for image in (before, after)]
    assert physical[1] == pytest.approx(physical[0], abs=1e-9)
