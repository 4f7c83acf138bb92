from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.affines import voxel_sizes

from etnet.data.volume_formats import VOLUME_FORMATS
from etnet.data.volumes import Volume, open_volume, volume_suffix
from etnet.errors import DataError, EnvironmentFault
from helpers.medical import IDENTIFIERS, write_metaimage, write_nifti

WINDOW = (-1000, 400)
SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd")
PLANES = ("axial", "coronal", "sagittal")

# Columns are the directions of the file's axes; NIfTI's point right, front and up.
UPRIGHT = np.diag([1.0, 1.0, 1.0])
AS_SCANNED = np.diag([-1.0, -1.0, 1.0])
HEAD_FIRST = np.diag([-1.0, 1.0, -1.0])
CORONAL_STACK = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
SAGITTAL_STACK = np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]])
TURN = np.radians(20)
OBLIQUE = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1.0]])
ORIENTATIONS = {
    "upright": UPRIGHT,
    "as_scanned": AS_SCANNED,
    "head_first": HEAD_FIRST,
    "coronal": CORONAL_STACK,
    "sagittal": SAGITTAL_STACK,
    "oblique": OBLIQUE,
}
SPACING = (0.5, 0.75, 2.5)


def scan(shape=(5, 6, 7), dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(7).integers(-1000, 400, shape).astype(dtype)


def write(path: Path, values: np.ndarray, directions: np.ndarray = UPRIGHT) -> Path:
    """A volume whose axes have these directions and `SPACING`, in the format of the suffix."""
    if path.name.endswith((".nii", ".nii.gz")):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = directions * SPACING, (10, -20, 30)
        return write_nifti(path, values, affine)
    return write_metaimage(
        path, values, direction=np.diag([-1, -1, 1]) @ directions, spacing=SPACING, origin=(-10, 20, 30)
    )


def positions(path: Path, indices: np.ndarray) -> np.ndarray:
    """Where voxels [N, 3] lie in mm, by the format's own library, in NIfTI's directions."""
    if ".nii" in path.name:
        return nibabel.affines.apply_affine(nibabel.load(path).affine, indices)
    image = SimpleITK.ReadImage(str(path))
    return np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in indices]) * (-1, -1, 1)


def voxels(path: Path) -> np.ndarray:
    if ".nii" in path.name:
        return np.asarray(nibabel.load(path).dataobj)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T


def error_of(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        open_volume(path, **options)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    assert not [word for word in IDENTIFIERS if word in sentence]
    return sentence


def masked(volume: Volume, path: Path) -> Path:
    """Writes the voxels above zero as the mask."""
    slices = np.stack([(volume.values(index) > 0).astype(np.uint8) for index in range(len(volume))])
    volume.write_mask(path, slices)
    return path


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("directions", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mask_made_slice_by_slice_lies_on_the_voxels_it_was_made_from(tmp_path, suffix, directions, plane):
    values = scan()
    path = write(tmp_path / f"ct{suffix}", values, directions)
    volume = open_volume(path, plane=plane)
    mask = masked(volume, tmp_path / f"mask{volume.mask_suffix}")
    np.testing.assert_array_equal(voxels(mask), values > 0)
    assert voxels(mask).dtype == np.uint8
    corners = np.array([[0, 0, 0], [4, 0, 0], [0, 5, 0], [0, 0, 6], [1, 2, 3]])
    np.testing.assert_allclose(positions(mask, corners), positions(path, corners), rtol=0, atol=1e-5)


@pytest.mark.parametrize("directions", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".nii", ".mha"])
@pytest.mark.parametrize(
    ("plane", "first_slice", "first_row", "first_column"),
    [
        # In NIfTI's axes (0 right, 1 front, 2 up): the sign says which end comes first.
        ("axial", (2, -1), (1, +1), (0, +1)),  # feet, front, the patient's right
        ("coronal", (1, -1), (2, +1), (0, +1)),  # back, head, the patient's right
        ("sagittal", (0, +1), (2, +1), (1, +1)),  # the patient's right, head, front
    ],
)
def test_slices_are_turned_as_radiologists_look_at_them(
    tmp_path, suffix, directions, plane, first_slice, first_row, first_column
):
    # Each voxel says where it lies.
    shape = (5, 6, 7)
    path = write(tmp_path / f"ct{suffix}", scan(shape), directions)
    where = positions(path, np.argwhere(np.ones(shape))).reshape(*shape, 3)
    for axis, sign in (first_slice, first_row, first_column):
        labelled = write(tmp_path / f"where{axis}{suffix}", (where[..., axis] * 100).astype(np.int16), directions)
        volume = open_volume(labelled, plane=plane)
        seen = np.stack([volume.values(index) for index in range(len(volume))])
        along = {first_slice: 0, first_row: 1, first_column: 2}[axis, sign]
        assert np.all(np.sign(np.diff(seen.astype(int), axis=along)) == -sign)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_spacing_follows_the_plane(tmp_path, suffix):
    path = write(tmp_path / f"ct{suffix}", scan(), UPRIGHT)
    axial, coronal, sagittal = (open_volume(path, plane=plane) for plane in PLANES)
    assert (axial.spacing, axial.slice_spacing) == ((0.75, 0.5), 2.5)
    assert (coronal.spacing, coronal.slice_spacing) == ((2.5, 0.5), 0.75)
    assert (sagittal.spacing, sagittal.slice_spacing) == ((2.5, 0.75), 0.5)
    assert [(len(volume), volume.slice_shape) for volume in (axial, coronal, sagittal)] == [
        (7, (6, 5)),
        (6, (7, 5)),
        (5, (7, 6)),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_slices_are_shown_through_the_window(tmp_path, suffix):
    values = scan()
    volume = open_volume(write(tmp_path / f"ct{suffix}", values, AS_SCANNED))
    expected = np.rint(np.clip((values[:, :, 4].T + 1000.0) / 1400, 0, 1) * 255)
    pixels = volume.pixels(4, intensity_window=WINDOW)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (6, 5, 3))
    np.testing.assert_allclose(pixels[..., 1].astype(int), expected, atol=1)


def test_a_scaled_nifti_file_has_its_scaled_values_and_an_unscaled_mask(tmp_path):
    values = scan()
    path = write(tmp_path / "ct.nii", values)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2, -50], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(content)
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), values * 2.0 - 50)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.values(2), values[::-1, ::-1, 2].T * 2.0 - 50)
    np.testing.assert_array_equal(voxels(masked(volume, tmp_path / "mask.nii")), values * 2.0 - 50 > 0)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_the_header_of_a_nifti_file_is_kept_but_for_values_and_texts(tmp_path, kind):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = OBLIQUE * SPACING, (10, -20, 30)
    path = write_nifti(tmp_path / "ct.nii.gz", scan(), affine, kind=kind, sform_code=1, qform_code=2, toffset=3)
    mask = masked(open_volume(path), tmp_path / "mask.nii.gz")
    before, after = nibabel.load(path).header, nibabel.load(mask).header
    assert type(after) is type(before)
    differing = {name for name in before if not np.array_equal(before[name], after[name], equal_nan=False)}
    # nibabel reports the scaling of a file as NaN once it has read it.
    assert differing - {"scl_slope", "scl_inter"} == {"datatype", "bitpix", "descrip"} | (
        {"db_name"} if "db_name" in before else set()
    )
    assert len(after.extensions) == 0


def test_equal_masks_are_equal_files(tmp_path):
    for suffix in (".nii.gz", ".mha"):
        volume = open_volume(write(tmp_path / f"ct{suffix}", scan()))
        first = masked(volume, tmp_path / f"first{suffix}").read_bytes()
        assert masked(volume, tmp_path / f"second{suffix}").read_bytes() == first


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_of_the_header_are_not_handed_on(tmp_path, suffix):
    path = write(tmp_path / f"ct{suffix}", scan())
    volume = open_volume(path)
    content = masked(volume, tmp_path / f"mask{volume.mask_suffix}").read_bytes()
    source = path.read_bytes()
    if suffix == ".nii.gz":
        content, source = gzip.decompress(content), gzip.decompress(source)
    assert IDENTIFIERS[0].encode() in source
    assert not [word for word in IDENTIFIERS if word.encode() in content]


def test_a_flat_nifti_file_is_one_slice(tmp_path):
    path = write_nifti(tmp_path / "x.nii", scan((5, 6)), np.eye(4))
    volume = open_volume(path)
    assert (len(volume), volume.slice_shape) == (1, (6, 5))
    mask = masked(volume, tmp_path / "mask.nii")
    assert voxels(mask).shape == (5, 6)


def test_a_last_axis_of_one_stays_in_the_mask(tmp_path):
    values = scan((3, 4, 5, 1))
    mask = masked(open_volume(write_nifti(tmp_path / "x.nii", values, np.eye(4))), tmp_path / "mask.nii")
    np.testing.assert_array_equal(voxels(mask), values > 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 0.0])
def test_a_nifti_spacing_that_is_not_positive_is_refused(tmp_path, value):
    path = write(tmp_path / "ct.nii", scan())
    content = bytearray(path.read_bytes())
    content[84:88] = np.float32(value).tobytes()  # pixdim[2]
    path.write_bytes(content)
    assert f"the voxel spacing is [0.5, {value:g}, 2.5] mm" in error_of(path)


@pytest.mark.parametrize("unit", ["mm", "micron"])
@pytest.mark.parametrize("code", ["sform", "qform"])
@pytest.mark.parametrize(("factor", "is_refused"), [(2.0, True), (1.02, True), (1.005, False), (0.98, True)])
def test_a_nifti_spacing_that_the_orientation_contradicts_is_refused(tmp_path, unit, code, factor, is_refused):
    path = tmp_path / "x.nii"
    # Oblique, so that the lengths of the columns count and not their largest entries.
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    image = nibabel.Nifti1Image(scan(), None)
    image.header.set_xyzt_units(unit)
    image.header.set_sform(nibabel.affines.from_matvec(turn * (0.5, 0.75, 2.5)), code=int(code == "sform"))
    image.header.set_qform(nibabel.affines.from_matvec(turn * (0.5, 0.75, 2.5)), code=int(code == "qform"))
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[84:88] = np.float32(0.75 * factor).tobytes()  # pixdim[2], which a qform shares
    path.write_bytes(content)
    if code == "qform" or not is_refused:
        assert len(open_volume(path)) == scan().shape[2]
        return
    scale = 1 if unit == "mm" else 1e-3
    given, told = ([f"{value * scale:g}" for value in (0.5, middle, 2.5)] for middle in (0.75 * factor, 0.75))
    with pytest.raises(DataError) as caught:
        open_volume(path)
    assert str(caught.value).startswith(
        f"{path}: the voxel spacing is [{', '.join(given)}] mm by pixdim and [{', '.join(told)}] mm by the orientation "
        "matrix (sform); expected the same within 1%"
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-0.75", "0", "wide"])
def test_a_metaimage_spacing_that_is_not_positive_is_refused(tmp_path, value):
    path = write(tmp_path / "ct.mha", scan())
    content = path.read_bytes()
    assert b"ElementSpacing = 0.5 0.75 2.5" in content
    path.write_bytes(content.replace(b"0.5 0.75 2.5", f"0.5 {value} 2.5".encode()))
    sentence = error_of(path)
    assert "the voxel spacing is [" in sentence or "cannot be read as a MetaImage volume" in sentence


def test_an_orientation_without_a_direction_is_refused(tmp_path):
    path = write(tmp_path / "ct.nii", scan())
    content = bytearray(path.read_bytes())
    content[280:296] = bytes(16)  # the first row of the affine
    path.write_bytes(content)
    assert "orientation" in error_of(path)


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 5, 1, 3)])
def test_several_volumes_in_one_file_are_refused(tmp_path, shape):
    size = "x".join(map(str, shape))
    assert f"{size} voxels; expected three dimensions" in error_of(
        write_nifti(tmp_path / "x.nii", scan(shape), np.eye(4))
    )


def test_several_values_per_voxel_are_refused(tmp_path):
    colored = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "several values" in error_of(write_nifti(tmp_path / "x.nii", colored, np.eye(4)))
    image = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "x.mha"))
    assert "a voxel holds 2 values" in error_of(tmp_path / "x.mha")


def test_a_header_that_announces_too_much_is_refused_before_reading(tmp_path):
    nifti = write(tmp_path / "ct.nii", scan())
    content = bytearray(nifti.read_bytes())
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()  # dim
    nifti.write_bytes(content)
    assert "announces 30000x30000x30000 voxels" in error_of(nifti)
    meta = write(tmp_path / "ct.mha", scan())
    meta.write_bytes(meta.read_bytes().replace(b"DimSize = 5 6 7", b"DimSize = 30000 30000 30000"))
    assert "announces 30000x30000x30000 voxels" in error_of(meta)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.98])
def test_a_truncated_volume_is_refused(tmp_path, suffix, share):
    path = write(tmp_path / f"ct{suffix}", scan((20, 20, 20)))
    part = path.with_suffix(".raw") if suffix == ".mhd" else path
    content = part.read_bytes()
    part.write_bytes(content[: int(len(content) * share)])
    error_of(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"hello", b"\0" * 1000, b"ObjectType = Image\nNDims = 3\n" * 20])
def test_what_is_no_volume_is_refused(tmp_path, suffix, content, capfd):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    error_of(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_volume_is_refused(tmp_path, suffix):
    assert "cannot be opened" in error_of(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_mask_that_cannot_be_written_leaves_nothing(tmp_path, suffix):
    volume = open_volume(write(tmp_path / f"ct{suffix}", scan()))
    with pytest.raises(EnvironmentFault):
        masked(volume, tmp_path / "missing" / f"mask{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"ct{suffix}"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from etnet.data.volumes import open_volume
from etnet.errors import EnvironmentFault
source, target = map(Path, sys.argv[1:])
volume = open_volume(source)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
slices = np.random.default_rng(0).integers(0, 255, (len(volume), *volume.slice_shape), dtype=np.uint8)
try:
    volume.write_mask(target, slices)
except EnvironmentFault as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_disk_that_fills_up_in_the_middle_leaves_no_half_mask(tmp_path, suffix):
    path = write(tmp_path / f"ct{suffix}", scan((20, 20, 20)))
    target = tmp_path / f"mask{suffix}"
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(target)], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"{target}: could not be written"), result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"ct{suffix}"]


def test_the_suffix_tells_a_volume():
    assert [volume_suffix(name) for name in ("a.nii", "A.NII.GZ", "b.mha", "c.mhd", "d.gz", "e.png")] == [
        ".nii",
        ".nii.gz",
        ".mha",
        ".mhd",
        None,
        None,
    ]


def test_the_reference_of_these_tests_knows_the_spacing(tmp_path):
    assert voxel_sizes(nibabel.load(write(tmp_path / "x.nii", scan(), OBLIQUE)).affine) == pytest.approx(SPACING)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_threads_read_voxels_at_once(tmp_path, monkeypatch, suffix):
    paths = [write(tmp_path / f"{index}{suffix}", scan() + np.int16(index)) for index in range(2)]
    together, present = threading.Barrier(2, timeout=20), VOLUME_FORMATS[suffix]

    def read_together(path):
        together.wait()
        return present.read_voxels(path)

    monkeypatch.setitem(VOLUME_FORMATS, suffix, replace(present, read_voxels=read_together))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(open_volume, paths)
    np.testing.assert_array_equal(first.values(3) + 1, second.values(3))
