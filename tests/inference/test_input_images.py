from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from etnet.errors import DataError
from etnet.inference.input_images import open_input
from etnet.inference.inputs import InputItem, find_inputs
from helpers.medical import write_dicom, write_metaimage, write_nifti

PALETTE = [(0, 0, 0), (255, 0, 0)]
GREY = np.random.default_rng(2).integers(0, 256, (6, 9)).astype(np.uint8)


def write(path: Path) -> Path:
    """`GREY` in the format of the suffix; volumes hold it three times, in slices that are shown as it is."""
    stack = np.stack([GREY.T] * 3, axis=-1)
    if path.suffix in ("", ".dcm"):
        return write_dicom(path, GREY)
    if path.name.endswith((".nii", ".nii.gz")):
        return write_nifti(path, stack, np.diag([-1.0, -1.0, 2.0, 1.0]))
    if path.suffix in (".mha", ".mhd"):
        return write_metaimage(path, stack, spacing=(1, 1, 2))
    Image.fromarray(GREY).save(path)
    return path


def opened(path: Path, **options):
    (item,) = find_inputs(path).items
    return open_input(item, intensity_window=None, **options)


def read_back(path: Path) -> np.ndarray:
    """Slices [S, H, W] of a mask, by the format's own library."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path))[np.newaxis]
    if path.suffix == ".mha":
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return np.asarray(nibabel.load(path).dataobj).T


@pytest.mark.parametrize(
    ("name", "slices", "suffix"),
    [
        *((f"x.{kind}", 1, ".png") for kind in ("png", "tif", "bmp", "gif", "webp", "pgm", "dcm")),
        ("IM0001", 1, ".png"),
        ("x.nii", 3, ".nii"),
        ("x.nii.gz", 3, ".nii.gz"),
        ("x.mha", 3, ".mha"),
        ("x.mhd", 3, ".mha"),
    ],
)
def test_every_format_is_seen_alike_and_its_mask_comes_back_in_its_geometry(tmp_path, name, slices, suffix):
    image = opened(write(tmp_path / name))
    assert (image.num_slices, image.size, image.mask_suffix) == (slices, (6, 9), suffix)
    for index in range(slices):
        if name != "x.webp":  # compressed with loss
            np.testing.assert_array_equal(image.pixels(index), np.dstack([GREY] * 3))
    masks = [(40 * index < GREY).astype(np.uint8) for index in range(1, slices + 1)]
    image.write_mask(tmp_path / f"mask{suffix}", masks, palette=PALETTE)
    np.testing.assert_array_equal(read_back(tmp_path / f"mask{suffix}"), np.stack(masks))


def test_a_photograph_is_turned_and_so_is_its_mask(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed after a quarter turn clockwise
    Image.fromarray(GREY).save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
    image = opened(tmp_path / "x.jpg")
    assert image.size == (9, 6)
    np.testing.assert_allclose(image.pixels()[..., 0].astype(int), np.rot90(GREY, -1), atol=3)


def test_the_spacing_of_the_table_outranks_that_of_the_file(tmp_path):
    volume = write_nifti(tmp_path / "x.nii", np.zeros((3, 4, 5), np.uint8), np.diag([0.5, 0.75, 2.0, 1.0]))
    dicom = write_dicom(tmp_path / "x.dcm", GREY, PixelSpacing=["0.1", "0.2"])
    picture = write(tmp_path / "x.png")
    own = [(0.75, 0.5), (0.1, 0.2), None]
    for path, expected in zip((volume, dicom, picture), own, strict=True):
        assert opened(path).spacing == expected
        told = open_input(InputItem("x", path, "x", spacing=(9, 8)), intensity_window=None)
        assert told.spacing == (9, 8)
    assert opened(volume).slice_spacing == 2.0
    assert opened(picture).slice_spacing is None


def test_the_plane_of_a_volume_is_chosen(tmp_path):
    write_nifti(tmp_path / "x.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    sizes = {plane: opened(tmp_path / "x.nii", plane=plane).size for plane in ("axial", "coronal", "sagittal")}
    assert sizes == {"axial": (4, 3), "coronal": (5, 3), "sagittal": (5, 4)}


def test_a_volume_without_a_known_range_fails_when_it_is_opened(tmp_path):
    write_nifti(tmp_path / "x.nii", np.zeros((3, 4, 5), np.int16), np.eye(4))
    with pytest.raises(DataError, match=r"data\.intensity_window"):
        opened(tmp_path / "x.nii")


@pytest.mark.parametrize("name", ["gone.png", "gone.dcm", "gone.nii.gz", "gone.mhd", "gone"])
def test_a_file_that_is_gone_is_one_sentence(tmp_path, name):
    item = InputItem(name, tmp_path / name, "gone")
    with pytest.raises(DataError, match=r"gone.*: cannot be opened"):
        open_input(item, intensity_window=None)


def test_a_picture_has_one_slice(tmp_path):
    with pytest.raises(IndexError, match="has one slice"):
        opened(write(tmp_path / "x.png")).pixels(1)
