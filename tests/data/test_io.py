"""The reader is checked against what Pillow and OpenCV wrote, pixel for pixel."""

from __future__ import annotations

import errno
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from etnet.data.io import read_image, read_mask_values, read_size, read_stored, write_png
from etnet.errors import DataError, EnvironmentFault
from helpers.datasets import save

RANDOM = np.random.default_rng(7)
RGB = RANDOM.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (13, 17), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (13, 17), dtype=np.uint16)
DEEP_RGB = RANDOM.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
LABELS = RANDOM.integers(0, 4, (13, 17), dtype=np.uint8)
SMOOTH = np.repeat(np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)[..., None], 3, axis=2)
NOISE = RANDOM.integers(0, 256, (96, 96, 3), dtype=np.uint8)

COLORS = [0, 0, 0, 46, 204, 113, 231, 76, 60, 52, 152, 219]


def in_8_bits(deep: np.ndarray) -> np.ndarray:
    return np.rint(deep / 257).astype(np.uint8)


def png_with_size(width: int, height: int) -> bytes:
    """A PNG whose header announces a size and whose pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.tif", {"compression": "tiff_adobe_deflate"}),
        ("a.TIFF", {"compression": "packbits"}),
        ("a.webp", {"lossless": True}),
        ("a.ppm", {}),
    ],
)
def test_lossless_color_formats_are_read_exactly(tmp_path, name, options):
    path = save(tmp_path / name, RGB, **options)
    assert np.array_equal(read_image(path), RGB)
    assert read_size(path) == (13, 17)


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    path = save(tmp_path / "a.jpg", SMOOTH, quality=95)
    assert np.array_equal(read_image(path), np.asarray(Image.open(path)))
    assert np.abs(read_image(path).astype(int) - SMOOTH).max() < 8


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - SMOOTH).max() < 8


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif", "a.pgm"])
def test_grey_is_repeated_to_three_channels(tmp_path, name):
    image = read_image(save(tmp_path / name, GREY))
    assert np.array_equal(image, np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
def test_one_bit_becomes_black_and_white_in_images_and_0_1_in_masks(tmp_path, name):
    bits = GREY > 127
    path = save(tmp_path / name, bits)
    assert np.array_equal(read_image(path)[..., 0], np.where(bits, 255, 0))
    values = read_mask_values(path)
    # GIF has no 1-bit pixels: Pillow writes black and white of a grey palette.
    assert np.array_equal(values, np.where(bits, 255, 0) if name.endswith(".gif") else bits)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
def test_palette_images_are_looked_up_and_palette_masks_give_indices(tmp_path, name):
    indexed = Image.fromarray(LABELS)
    indexed.putpalette(COLORS)
    indexed.save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), np.array(COLORS, np.uint8).reshape(-1, 3)[LABELS])
    assert np.array_equal(read_mask_values(tmp_path / name), LABELS)


def test_a_grey_palette_gives_its_grey_values(tmp_path):
    indexed = Image.fromarray(LABELS)
    indexed.putpalette([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
    indexed.save(tmp_path / "a.png")
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), LABELS.astype(int) * 85)


def test_a_mask_of_one_color_is_read_like_its_neighbours_with_the_same_palette(tmp_path):
    # Only black and grey of a coloured palette are used: still indices, as in a file that uses all colours.
    indexed = Image.fromarray(np.array([[0, 7]], np.uint8))
    indexed.putpalette([0, 0, 0, *[200, 10, 10] * 6, 128, 128, 128])
    indexed.save(tmp_path / "a.png")
    assert read_mask_values(tmp_path / "a.png").tolist() == [[0, 7]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_alpha_is_dropped_and_not_blended(tmp_path, name):
    alpha = np.full((13, 17, 1), 255, np.uint8)
    alpha[:5] = 3
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    path = save(tmp_path / name, np.concatenate([RGB, alpha], axis=2), **options)
    assert np.array_equal(read_image(path), RGB)


def test_alpha_of_grey_and_palette_files_is_dropped(tmp_path):
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())])
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_mask_values(tmp_path / "grey.png"), GREY)
    indexed = Image.fromarray(LABELS)
    indexed.putpalette(COLORS)
    indexed.save(tmp_path / "palette.png", transparency=0)
    assert np.array_equal(read_mask_values(tmp_path / "palette.png"), LABELS)
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.array(COLORS, np.uint8).reshape(-1, 3)[LABELS])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_divided_by_257_in_images_and_kept_in_masks(tmp_path, name):
    path = save(tmp_path / name, DEEP)
    assert np.array_equal(read_image(path)[..., 1], in_8_bits(DEEP))
    assert np.array_equal(read_mask_values(path), DEEP)


@pytest.mark.parametrize(
    ("name", "options"), [("a.png", []), ("a.tif", []), ("a.tif", [cv2.IMWRITE_TIFF_COMPRESSION, 5])]
)
def test_16_bit_color_keeps_all_bits_until_the_division(tmp_path, name, options):
    assert cv2.imwrite(str(tmp_path / name), DEEP_RGB[..., ::-1], options)
    assert np.array_equal(read_image(tmp_path / name), in_8_bits(DEEP_RGB))


def test_16_bit_color_with_alpha_loses_the_alpha(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([DEEP_RGB[..., ::-1], DEEP]))
    assert np.array_equal(read_image(tmp_path / "a.png"), in_8_bits(DEEP_RGB))


def test_16_bit_mask_of_three_equal_channels_is_grey(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(DEEP[..., None], 3, axis=2))
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), DEEP)


def test_the_intensity_window_is_mapped_to_0_255_and_clipped(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 1000, 1500, 2000, 65535]], np.uint16))
    assert read_image(path, intensity_window=(1000, 2000))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_the_intensity_window_leaves_8_bit_images_alone(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", RGB), intensity_window=(0, 10)), RGB)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_ct_values_need_a_window_and_are_shown_with_one(tmp_path, dtype):
    hounsfield = np.array([[-1024, -600, 0, 400, 3000]], dtype)
    assert cv2.imwrite(str(tmp_path / "a.tif"), hounsfield)
    assert read_image(tmp_path / "a.tif", intensity_window=(-600, 400))[0, :, 0].tolist() == [0, 0, 153, 255, 255]
    with pytest.raises(DataError, match=r"a\.tif: .*-1024\.\.3000 .*data\.intensity_window"):
        read_image(tmp_path / "a.tif")


def test_floating_point_masks_must_hold_whole_numbers(tmp_path):
    whole = save(tmp_path / "whole.tif", np.array([[0, 1, 2]], np.float32))
    assert read_mask_values(whole).tolist() == [[0, 1, 2]]
    with pytest.raises(DataError, match=r"half\.tif: mask holds fractions such as 0\.5"):
        read_mask_values(save(tmp_path / "half.tif", np.array([[0, 0.5]], np.float32)))


def test_colored_masks_are_refused_by_naming_a_color(tmp_path):
    colored = np.zeros((2, 2, 3), np.uint8)
    colored[1, 1] = (255, 0, 10)
    with pytest.raises(DataError, match=r"a\.png: mask holds RGB colours such as \(255, 0, 10\)"):
        read_mask_values(save(tmp_path / "a.png", colored))


def test_rgb_masks_of_equal_channels_are_grey(tmp_path):
    assert np.array_equal(read_mask_values(save(tmp_path / "a.png", np.repeat(GREY[..., None], 3, axis=2))), GREY)


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_several_pages_are_refused(tmp_path, name):
    pages = [Image.fromarray(page) for page in (SMOOTH, SMOOTH[::-1].copy(), NOISE[:64, :80])]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"holds 3 pages; expected one"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.gif", {}),
        ("a.bmp", {}),
        ("a.webp", {}),
        ("a.ppm", {}),
    ],
)
def test_truncated_files_are_refused(tmp_path, name, options, share):
    content = save(tmp_path / f"whole_{name}", NOISE, **options).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    for read in (read_image, read_mask_values):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read(tmp_path / name)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_truncated_16_bit_color_is_refused(tmp_path, name, share):
    cv2.imwrite(str(tmp_path / name), DEEP_RGB)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError):
        read_image(tmp_path / name)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_give_a_picture_or_a_data_error_but_nothing_else(tmp_path, seed):
    random = np.random.default_rng(seed)
    name = ["a.png", "a.jpg", "a.tif", "a.gif", "a.bmp", "a.webp"][seed % 6]
    content = bytearray(save(tmp_path / name, NOISE[:24, :24]).read_bytes())
    for position in random.integers(0, len(content), 12):
        content[position] = random.integers(0, 256)
    (tmp_path / name).write_bytes(content)
    for read in (read_image, read_mask_values, read_size):
        message = ""
        try:
            assert len(read(tmp_path / name)) > 0
        except DataError as error:
            message = str(error)
        assert "\n" not in message


def test_missing_empty_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: cannot be opened \(No such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: cannot be read as a picture"):
        read_mask_values(tmp_path / "text.png")
    with pytest.raises(DataError, match="is a folder, not a file"):
        read_size(tmp_path)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_zero_sized_images_are_refused(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_with_size(*size))
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(23_200, 23_200), (60_000, 60_000)])
def test_headers_that_announce_huge_images_are_refused_without_a_warning(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_with_size(*size))
    with pytest.raises(DataError, match=r"a\.png: the header announces more than \d+ pixels"):
        read_image(tmp_path / "a.png")


def test_a_single_pixel_is_an_image(tmp_path):
    path = save(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8))
    assert read_image(path).tolist() == [[[1, 2, 3]]]
    assert read_mask_values(save(tmp_path / "m.png", np.array([[1]], np.uint8))).tolist() == [[1]]


def test_pictures_are_read_in_threads(tmp_path):
    paths = [save(tmp_path / f"{number}.png", np.full((8, 8, 3), number, np.uint8)) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(read_image, paths))
    assert [int(image[0, 0, 0]) for image in images] == list(range(40))


@pytest.mark.parametrize("array", [GREY, RGB, DEEP], ids=["grey", "rgb", "deep"])
def test_written_png_is_read_back(tmp_path, array):
    write_png(tmp_path / "a.png", array)
    flags = cv2.IMREAD_UNCHANGED if array.ndim == 2 else cv2.IMREAD_COLOR_RGB
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"), flags), array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_written_palette_colors_the_picture_and_keeps_the_indices(tmp_path):
    palette = np.array(COLORS, np.uint8).reshape(-1, 3)
    write_png(tmp_path / "a.png", LABELS, [tuple(color) for color in palette.tolist()])
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), LABELS)
    assert np.array_equal(read_image(tmp_path / "a.png"), palette[LABELS])


def test_written_file_replaces_the_old_one_and_has_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    write_png(tmp_path / "a.png", GREY)
    write_png(tmp_path / "a.png", LABELS)
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), LABELS)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_non_contiguous_arrays_are_written(tmp_path):
    write_png(tmp_path / "a.png", RGB[::-1, ::2])
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB[::-1, ::2])


def test_missing_output_folder_is_an_environment_fault(tmp_path):
    with pytest.raises(EnvironmentFault, match=r"a\.png: could not be written \(No such file"):
        write_png(tmp_path / "none" / "a.png", GREY)


def test_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png", GREY)
    before = (tmp_path / "a.png").read_bytes()

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentFault, match=r"a\.png: could not be written \(No space left on device\)"):
        write_png(tmp_path / "a.png", RGB)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_real_drive_files_have_their_published_size_and_values(drive_root):
    image = read_image(drive_root / "training/images/21_training.tif")
    assert image.shape == (584, 565, 3)
    assert set(np.unique(read_mask_values(drive_root / "training/1st_manual/21_manual1.gif"))) == {0, 255}
    assert np.array_equal(image, np.asarray(Image.open(drive_root / "training/images/21_training.tif").convert("RGB")))


@pytest.mark.parametrize(
    ("array", "suffix", "kind"),
    [
        (np.zeros((4, 5, 3), np.uint8), "jpg", "RGB 8-bit"),
        (np.zeros((4, 5), np.uint8), "bmp", "grey 8-bit"),
        (np.zeros((4, 5), bool), "png", "grey 1-bit"),
        (np.zeros((4, 5), np.uint16), "png", "grey 16-bit"),
        (np.zeros((4, 5), np.int16), "tif", "grey 16-bit signed"),
        (np.zeros((4, 5), np.float32), "tif", "grey 32-bit float"),
    ],
)
def test_the_kind_of_stored_pixels_is_told(tmp_path, array, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    if array.dtype == np.int16:
        cv2.imwrite(str(path), array)
    else:
        Image.fromarray(array).save(path)
    assert read_stored(path).kind == kind
