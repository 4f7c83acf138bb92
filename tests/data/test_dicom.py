from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from etnet.data import dicom
from etnet.data.dicom import is_dicom, read_dicom
from etnet.data.picture_files import MOST_PIXELS
from etnet.errors import DataError
from helpers.medical import IDENTIFIERS, identified, save_dicom, write_dicom, write_jpeg2000_dicom

CT = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}


def stored(height=6, width=9, *, top=1000, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, top, (height, width)).astype(dtype)


def shown(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The grey value of a linear window, written out."""
    return np.rint(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255)


def assert_grey(pixels: np.ndarray, expected: np.ndarray, *, within=0) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*expected.shape, 3)
    np.testing.assert_array_equal(pixels[..., :1].repeat(3, axis=-1), pixels)
    np.testing.assert_allclose(pixels[..., 0].astype(int), expected, atol=within)


def error_of(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        read_dicom(path, **options)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


def test_the_window_of_the_recipe_is_in_hounsfield_units(tmp_path):
    values = stored()
    path = write_dicom(tmp_path / "ct.dcm", values, WindowCenter="40", WindowWidth="400", **CT)
    found = read_dicom(path, intensity_window=(-1000, 400))
    assert_grey(found.pixels, shown(values * 2.0 - 1024, -1000, 400))


def test_without_a_recipe_window_the_first_window_of_the_file_is_used(tmp_path):
    values = stored()
    path = write_dicom(tmp_path / "ct.dcm", values, WindowCenter=["40", "-600"], WindowWidth=["400", "1500"], **CT)
    # Part 3, section C.11.2.1.2.1: the window covers centre - 0.5 -+ (width - 1) / 2.
    assert_grey(read_dicom(path).pixels, shown(values * 2.0 - 1024, 39.5 - 199.5, 39.5 + 199.5), within=1)


def test_a_sigmoid_window_is_half_way_at_its_centre_and_rises(tmp_path):
    values = np.array([[-5000, 40, 5000]], np.int16)
    path = write_dicom(tmp_path / "ct.dcm", values, WindowCenter="40", WindowWidth="400", VOILUTFunction="SIGMOID")
    assert_grey(read_dicom(path).pixels, np.array([[0, 128, 255]]), within=1)


def test_monochrome1_is_inverted_after_the_window(tmp_path):
    values = stored(dtype=np.uint16, top=4096)
    options = {"BitsStored": 12, "HighBit": 11}
    plain = read_dicom(write_dicom(tmp_path / "2.dcm", values, **options), intensity_window=(500, 3000)).pixels
    path = write_dicom(tmp_path / "1.dcm", values, PhotometricInterpretation="MONOCHROME1", **options)
    np.testing.assert_array_equal(read_dicom(path, intensity_window=(500, 3000)).pixels, 255 - plain)


def test_unsigned_values_without_any_window_fill_the_range_of_their_bits(tmp_path):
    values = stored(dtype=np.uint16, top=4096)
    path = write_dicom(tmp_path / "x.dcm", values, BitsStored=12, HighBit=11)
    assert_grey(read_dicom(path).pixels, shown(values, 0, 4095))


def test_eight_bits_pass_as_they_are_whatever_the_recipe_says(tmp_path):
    values = stored(top=256, dtype=np.uint8)
    path = write_dicom(tmp_path / "x.dcm", values, RescaleSlope="1", RescaleIntercept="0")
    assert_grey(read_dicom(path).pixels, values)
    assert_grey(read_dicom(path, intensity_window=(0, 4095)).pixels, values)


def test_signed_values_without_any_window_say_how_to_give_one(tmp_path):
    assert "data.intensity_window" in error_of(write_dicom(tmp_path / "ct.dcm", stored(), **CT))


def test_tables_of_the_modality_and_of_interest_are_applied(tmp_path):
    values = np.array([[0, 1, 2, 3]], np.uint16)
    modality, interest = Dataset(), Dataset()
    modality.LUTDescriptor, modality.ModalityLUTType, modality.LUTData = [4, 0, 16], "US", [30, 20, 10, 0]
    interest.LUTDescriptor, interest.LUTData = [31, 0, 8], list(range(0, 248, 8))
    tags = {"ModalityLUTSequence": [modality], "VOILUTSequence": [interest]}
    for name in ("LUTDescriptor", "LUTData"):
        modality[name].VR = interest[name].VR = "US"
    path = write_dicom(tmp_path / "x.dcm", values, **tags)
    assert_grey(read_dicom(path).pixels, np.array([[240, 160, 80, 0]]))


def test_colours_stay_colours(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_dicom(write_dicom(tmp_path / "eye.dcm", colors)).pixels, colors)


def test_palettes_become_their_colours(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    table = np.array([[1000, 65535, 0], [0, 65535, 30000], [5, 0, 65535]], np.uint16)
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color, column in zip(("Red", "Green", "Blue"), table, strict=True):
        tags[f"{color}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tags[f"{color}PaletteColorLookupTableData"] = column.tobytes()
    path = write_dicom(tmp_path / "us.dcm", indices, **tags)
    np.testing.assert_array_equal(read_dicom(path).pixels, np.rint(table.T[indices] / 257.0))


def test_the_lossy_colours_of_fundus_cameras_become_rgb(tmp_path):
    rows, columns = np.mgrid[:32, :48]
    colors = np.stack([rows * 7, columns * 5, 200 - rows * 3], axis=-1).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(colors).save(encoded, "JPEG", quality=95, subsampling=1)
    path = write_dicom(
        tmp_path / "eye.dcm",
        colors,
        syntax="1.2.840.10008.1.2.4.50",
        PixelData=pydicom.encaps.encapsulate([encoded.getvalue()]),
        PhotometricInterpretation="YBR_FULL_422",
    )
    np.testing.assert_allclose(read_dicom(path).pixels.astype(int), colors, atol=6)


def write_lossless_jpeg(path: Path, values: np.ndarray) -> Path:
    """Compressed as most archives of hospitals do it."""
    write_dicom(path, values, BitsStored=12, HighBit=11)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    return path


def write_run_lengths(path: Path, values: np.ndarray) -> Path:
    dataset = pydicom.dcmread(write_dicom(path, values, BitsStored=12, HighBit=11))
    dataset.compress(RLELossless)
    dataset.save_as(path)
    return path


def write_jpeg2000(path: Path, values: np.ndarray) -> Path:
    return write_jpeg2000_dicom(path, values, BitsStored=12, HighBit=11)


@pytest.mark.parametrize("write", [write_lossless_jpeg, write_run_lengths, write_jpeg2000])
def test_compression_without_loss_gives_the_same_pixels(tmp_path, write):
    values = stored(40, 30, dtype=np.uint16, top=4096)
    assert_grey(read_dicom(write(tmp_path / "x.dcm", values)).pixels, shown(values, 0, 4095))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("write", [write_lossless_jpeg, write_run_lengths, write_jpeg2000])
def test_a_compressed_image_that_ends_early_is_refused(tmp_path, capfd, write, share):
    path = write(tmp_path / "x.dcm", stored(64, 64, dtype=np.uint16, top=4096))
    dataset = pydicom.dcmread(path)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0)
    dataset.PixelData = pydicom.encaps.encapsulate([frame[: int(len(frame) * share) // 2 * 2]])
    dataset.save_as(path)
    error_of(path)
    printed = "".join(capfd.readouterr())  # libraries in C cannot be silenced
    assert not [word for word in IDENTIFIERS if word in printed]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": ["0.5", "0.25"]}, (0.5, 0.25)),
        ({"NominalScannedPixelSpacing": ["0.1", "0.2"]}, (0.1, 0.2)),
        ({"PixelSpacing": ["0.5", "0.25"], "ImagerPixelSpacing": ["9", "9"]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": ["0.2", "0.3"]}, None),  # at the detector; how much is magnified is not known
        ({"ImagerPixelSpacing": ["0.2", "0.4"], "EstimatedRadiographicMagnificationFactor": "2"}, (0.1, 0.2)),
    ],
)
def test_the_spacing_is_that_of_the_patient_or_unknown(tmp_path, tags, expected):
    path = write_dicom(tmp_path / "x.dcm", stored(top=9, dtype=np.uint8), **tags)
    assert read_dicom(path).spacing == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("spacing", [["-0.5", "0.5"], ["0", "0.5"], ["0.5"], ["0.5", "0.5", "0.5"]])
def test_a_spacing_that_is_not_positive_is_refused(tmp_path, spacing):
    path = write_dicom(tmp_path / "x.dcm", stored(dtype=np.uint8), PixelSpacing=spacing)
    assert "PixelSpacing is [" in error_of(path)


def test_a_spacing_that_is_no_number_is_refused(tmp_path):
    path = write_dicom(tmp_path / "x.dcm", stored(dtype=np.uint8), PixelSpacing=["0.5", "0.5"])
    content = path.read_bytes()
    assert content.count(b"0.5\\0.5 ") == 1
    path.write_bytes(content.replace(b"0.5\\0.5 ", b"NaN\\0.5 "))
    assert "PixelSpacing is [nan" in error_of(path)
    path.write_bytes(content.replace(b"0.5\\0.5 ", b"big\\0.5 "))
    assert "PixelSpacing is [nan" in error_of(path)


def test_several_frames_are_refused(tmp_path):
    path = write_dicom(tmp_path / "x.dcm", np.zeros((3, 4, 5), np.uint8), frames=3)
    assert "holds 3 frames; expected one" in error_of(path)


def test_a_file_without_pixels_is_refused(tmp_path):
    assert "holds no pixels" in error_of(save_dicom(tmp_path / "report.dcm", identified()))


def test_compression_that_no_decoder_reads_is_named(tmp_path):
    movie = write_dicom(tmp_path / "x.dcm", stored(), syntax="1.2.840.10008.1.2.4.100", PixelData=b"\xfe\xff\0\xe0" * 4)
    assert "is compressed as MPEG2 Main Profile / Main Level" in error_of(movie)
    content = movie.read_bytes()
    movie.write_bytes(content.replace(b"1.2.840.10008.1.2.4.100", b"1.2.840.99999.1.2.4.100"))
    assert "is compressed as transfer syntax 1.2.840.99999.1.2.4.100, which" in error_of(movie)
    movie.write_bytes(content.replace(b"1.2.840.10008.1.2.4.100", b"Quetzalcoatl^Jane 12345"))
    assert "is compressed as an unknown transfer syntax, which" in error_of(movie)


def test_an_enormous_image_is_refused_before_it_is_decoded(tmp_path):
    path = write_dicom(tmp_path / "x.dcm", stored(), Rows=60000, Columns=60000)
    assert f"expected at most {MOST_PIXELS}" in error_of(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = write_dicom(tmp_path / "x.dcm", stored(50, 50), WindowCenter="0", WindowWidth="9")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "DICOM" in error_of(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\0" * 500, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\7" * 99]
)
def test_what_is_no_dicom_file_is_refused(tmp_path, content):
    (tmp_path / "x.dcm").write_bytes(content)
    error_of(tmp_path / "x.dcm")


def test_the_content_tells_a_dicom_file_without_a_suffix(tmp_path):
    write_dicom(tmp_path / "IM000001", stored())
    (tmp_path / "notes").write_text("hello")
    assert is_dicom(tmp_path / "IM000001")
    assert not is_dicom(tmp_path / "notes")
    assert not is_dicom(tmp_path / "missing")


def test_no_sentence_and_no_log_names_the_patient(tmp_path, caplog, capfd):
    """Every byte of the header is damaged once; whatever happens, nobody is named."""
    caplog.set_level(logging.DEBUG)
    path = write_dicom(tmp_path / "x.dcm", stored(4, 4), WindowCenter="0", WindowWidth="9")
    content = path.read_bytes()
    assert all(word.encode() in content for word in IDENTIFIERS)
    failed = 0
    for position in range(132, len(content) - 32, 3):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_dicom(path)
        except DataError as error:
            failed += 1
            chain = [error, error.__cause__, None if error.__suppress_context__ else error.__context__]
            said = " ".join(str(link) for link in chain)
            assert not [word for word in IDENTIFIERS if word in said], said
    assert failed > 20
    printed = capfd.readouterr()
    said = caplog.text + printed.out + printed.err
    assert not [word for word in IDENTIFIERS if word in said]


def test_threads_read_the_same_as_one(tmp_path):
    paths = [write_dicom(tmp_path / f"{seed}.dcm", stored(30 + seed, 40, top=256, dtype=np.uint8)) for seed in range(8)]
    alone = [read_dicom(path).pixels for path in paths]
    together: dict[int, np.ndarray] = {}

    def read(index: int) -> None:
        together[index] = read_dicom(paths[index]).pixels

    threads = [threading.Thread(target=read, args=(index,)) for index in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, pixels in enumerate(alone):
        np.testing.assert_array_equal(together[index], pixels)


def test_a_missing_package_is_said_with_the_command_that_installs_it(tmp_path):
    path = write_dicom(tmp_path / "x.dcm", stored())
    program = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from etnet.data.dicom import read_dicom\nfrom etnet.errors import EnvironmentFault\n"
        f"try:\n    read_dicom({str(path)!r})\nexcept EnvironmentFault as error:\n    sys.exit(str(error))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr.strip().endswith(
        "is read with pydicom, which is not installed; run: pip install 'etnet[medical]'"
    )


def test_two_threads_decode_at_once(tmp_path, monkeypatch):
    paths = [write_dicom(tmp_path / f"{index}.dcm", np.full((6, 9), index, np.uint8)) for index in range(2)]
    together, decode = threading.Barrier(2, timeout=20), dicom._decode

    def decode_together(dataset, path):
        together.wait()
        return decode(dataset, path)

    monkeypatch.setattr(dicom, "_decode", decode_together)
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(read_dicom, paths))
    assert [int(image.pixels.max()) for image in images] == [0, 1]
