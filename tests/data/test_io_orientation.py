"""Pictures that a camera stored turned are read upright, in every format and kind of pixel."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from etnet.data.io import read_image, read_mask_values, read_size

RANDOM = np.random.default_rng(7)
DEEP_RGB = RANDOM.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
LABELS = RANDOM.integers(0, 4, (13, 17), dtype=np.uint8)
SMOOTH = np.repeat(np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)[..., None], 3, axis=2)

COLORS = [0, 0, 0, 46, 204, 113, 231, 76, 60, 52, 152, 219]
ALL_ORIENTATIONS = range(1, 9)
IN_8_BITS = np.rint(DEEP_RGB / 257).astype(np.uint8)


def stored_for(upright: Image.Image, orientation: int) -> Image.Image:
    """The stored picture which a viewer turns into `upright` under an EXIF orientation (EXIF 2.3, table of tag 274)."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright if orientation == 1 else upright.transpose(undo[orientation])


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_exif_orientation_is_applied_to_images_and_sizes(tmp_path, name, orientation):
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100, "subsampling": 0}}.get(name, {})
    stored = stored_for(Image.fromarray(SMOOTH), orientation)
    stored.save(tmp_path / name, exif=exif_of(orientation), **options)
    image = read_image(tmp_path / name)
    assert image.shape == SMOOTH.shape
    assert read_size(tmp_path / name) == SMOOTH.shape[:2]
    assert np.abs(image.astype(int) - SMOOTH).max() <= (3 if name == "a.jpg" else 0)


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_exif_orientation_is_applied_to_masks(tmp_path, name, orientation):
    indexed = Image.fromarray(LABELS)
    indexed.putpalette(COLORS)
    stored_for(indexed, orientation).save(tmp_path / name, exif=exif_of(orientation))
    assert np.array_equal(read_mask_values(tmp_path / name), LABELS)


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS)
def test_exif_orientation_is_applied_to_16_bit_color(tmp_path, orientation):
    turned = np.asarray(stored_for(Image.fromarray(np.arange(221, dtype=np.uint8).reshape(13, 17)), orientation))
    stored = DEEP_RGB.reshape(-1, 3)[turned]
    encoded = cv2.imencode(".png", np.ascontiguousarray(stored[..., ::-1]))[1].tobytes()
    with_exif = Image.new("L", (1, 1))
    with_exif.save(tmp_path / "exif.png", exif=exif_of(orientation))
    donor = (tmp_path / "exif.png").read_bytes()
    start = donor.index(b"eXIf") - 4
    chunk = donor[start : start + 12 + struct.unpack(">I", donor[start : start + 4])[0]]
    (tmp_path / "a.png").write_bytes(encoded[:33] + chunk + encoded[33:])
    assert np.array_equal(read_image(tmp_path / "a.png"), IN_8_BITS)


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS)
def test_tiff_orientation_is_applied_to_16_bit_color(tmp_path, orientation):
    turned = np.asarray(stored_for(Image.fromarray(np.arange(221, dtype=np.uint8).reshape(13, 17)), orientation))
    stored = np.ascontiguousarray(DEEP_RGB.reshape(-1, 3)[turned])
    (tmp_path / "a.tif").write_bytes(little_tiff(stored, orientation))
    assert np.array_equal(read_image(tmp_path / "a.tif"), IN_8_BITS)
    assert read_size(tmp_path / "a.tif") == (13, 17)


def little_tiff(pixels: np.ndarray, orientation: int) -> bytes:
    """An uncompressed little-endian TIFF of 16-bit RGB, written by hand (TIFF 6.0)."""
    height, width, _ = pixels.shape
    body = pixels.astype("<u2").tobytes()
    bits = struct.pack("<3H", 16, 16, 16)
    short, long = 3, 4
    entries = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, 3, 8 + len(body)),
        (259, short, 1, 1),
        (262, short, 1, 2),
        (273, long, 1, 8),
        (274, short, 1, orientation),
        (277, short, 1, 3),
        (278, short, 1, height),
        (279, long, 1, len(body)),
        (284, short, 1, 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(body) + len(bits)) + body + bits + directory + struct.pack("<I", 0)
