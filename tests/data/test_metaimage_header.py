from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from etnet.data.metaimage_header import read_metaimage_header
from etnet.data.volumes import open_volume
from etnet.errors import DataError

VALUES = np.random.default_rng(4).integers(0, 256, (4, 5, 6)).astype(np.uint8)
HEADER = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_UCHAR\n"


def write(folder: Path, *lines: str, local: bytes = b"", **parts: bytes) -> Path:
    path = folder / "x.mhd"
    path.write_bytes((HEADER + "".join(f"{line}\n" for line in lines)).encode() + local)
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_volume(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("lines", "content"),
    [
        (["ElementDataFile = part"], VALUES.tobytes()),
        (["HeaderSize = 7", "ElementDataFile = part"], b"7 bytes" + VALUES.tobytes()),
        (["HeaderSize = -1", "ElementDataFile = part"], b"any length" + VALUES.tobytes()),
        (["CompressedData = True", "ElementDataFile = part"], zlib.compress(VALUES.tobytes())),
    ],
)
def test_voxels_in_a_file_of_their_own_are_read_as_itk_does(tmp_path, lines, content):
    path = write(tmp_path, *lines, part=content)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), VALUES)
    volume = open_volume(path)
    assert sorted(np.ravel([volume.values(index) for index in range(4)])) == sorted(VALUES.ravel())


@pytest.mark.parametrize("change", [-1, 1, 40])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("is_local", [False, True])
def test_more_or_fewer_voxels_than_announced_are_refused(tmp_path, capfd, change, compressed, is_local):
    content = bytes(VALUES.size + change)
    lines = [f"CompressedData = {compressed}", f"ElementDataFile = {'LOCAL' if is_local else 'part'}"]
    packed = zlib.compress(content) if compressed else content
    path = write(tmp_path, *lines, **{"local" if is_local else "part": packed})
    held = f"{VALUES.size - 1}" if change < 0 else f"more than {VALUES.size}"
    assert f"holds {held} bytes of voxels; expected {VALUES.size}, as its header announces" in error_of(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("position", [0, 30, -1])
def test_damaged_compressed_voxels_are_refused(tmp_path, capfd, position):
    content = bytearray(zlib.compress(VALUES.tobytes()))
    content[position] ^= 0x55
    path = write(tmp_path, "CompressedData = True", "ElementDataFile = LOCAL", local=bytes(content))
    assert "its compressed voxels are damaged or incomplete; copy" in error_of(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["ElementDataFile = LIST", "a", "b"], "spread over several files"),
        (["ElementDataFile = slice%03d.raw 1 4 1"], "spread over several files"),
        (["BinaryData = False", "ElementDataFile = LOCAL"], "written as text"),
        (["ElementDataFile = Quetzalcoatl.raw"], "the file with its voxels is missing"),
        (["ElementDataFile = ."], "the file with its voxels is missing"),
    ],
)
def test_what_is_not_one_block_of_numbers_is_refused_without_naming_it(tmp_path, capfd, lines, words):
    reason = error_of(write(tmp_path, *lines))
    assert words in reason
    assert "Quetzalcoatl" not in reason
    assert capfd.readouterr() == ("", "")


def test_the_spacing_is_that_of_the_line_even_where_it_is_none(tmp_path):
    lines = {"1 2 3": (1.0, 2.0, 3.0), "1 -2 3": (1.0, -2.0, 3.0)}
    for text, spacing in lines.items():
        path = write(tmp_path, f"ElementSpacing = {text}", "ElementDataFile = LOCAL")
        assert read_metaimage_header(path).spacing == spacing
    assert np.isnan(read_metaimage_header(write(tmp_path, "ElementSpacing = x", "ElementDataFile = a")).spacing).all()
    assert read_metaimage_header(write(tmp_path, "ElementDataFile = a")).spacing == ()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("NDims", "-3", "holds -3; expected one line with a whole number from 1 to 4; copy or export"),
        ("NDims", "99999", "holds 99999; expected one line"),
        ("NDims", "2147483648", "holds 2147483648; expected one line"),
        ("NDims", "Quetzalcoatl", "holds ?; expected one line"),
        ("DimSize", "6 5", "holds 6 5; expected 3 whole numbers from 1 to 2147483647, as NDims says"),
        ("DimSize", "6 -5 4", "holds 6 -5 4; expected 3 whole numbers"),
        ("DimSize", "6 5 4" + " 1" * 9, "holds 6 5 4 1 1 1 1 1 1 ...; expected 3 whole numbers"),
        ("Offset", "0 Quetzalcoatl 0", "holds 0 ? 0; expected 3 finite numbers"),
        ("Offset", "0 0", "holds 0 0; expected 3 numbers, because NDims is 3"),
        ("TransformMatrix", "1 0 0", "holds 1 0 0; expected 9 numbers, because NDims is 3"),
        ("TransformMatrix", "nan 0 0 0 1 0 0 0 1", "holds ? 0 0 0 1 0 0 0 1; expected 9 finite numbers"),
        ("ElementNumberOfChannels", "0", "holds 0; expected one line with a whole number from 1"),
        ("HeaderSize", "-5", "holds -5; expected one line with a whole number from -1"),
    ],
)
def test_numbers_that_do_not_fit_the_dimensions_are_refused_before_itk_sees_them(
    tmp_path, monkeypatch, capfd, key, value, words
):
    monkeypatch.setattr(SimpleITK.ImageFileReader, "ReadImageInformation", lambda _: pytest.fail("ITK read the header"))
    path = write(tmp_path, "ElementDataFile = LOCAL", local=VALUES.tobytes())
    lines = [line for line in path.read_text("latin-1").split("\n", 5) if not line.startswith(f"{key} =")]
    path.write_text("\n".join([f"{key} = {value}", *lines]), "latin-1")
    assert f"the line {key} of its header {words}" in error_of(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("second", ["NDims = -3", "NDims : -3"])
def test_a_second_number_of_dimensions_is_refused(tmp_path, second):
    path = write(tmp_path, second, "ElementDataFile = LOCAL", local=VALUES.tobytes())
    assert "the line NDims of its header holds -3; expected one line" in error_of(path)


def test_a_header_with_colons_is_read_as_itk_does(tmp_path):
    path = write(tmp_path, "ElementDataFile = LOCAL", local=VALUES.tobytes())
    path.write_bytes(path.read_bytes().replace(b" = ", b" : ", 3))
    assert SimpleITK.ReadImage(str(path)).GetSize() == (6, 5, 4)
    assert len(open_volume(path)) == 4
