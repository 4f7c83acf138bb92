from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from etnet.errors import EnvironmentFault, OutOfMemory
from etnet.inference.folder import Resumption, predict_folder
from etnet.inference.inputs import find_inputs
from etnet.inference.pipeline import Work
from etnet.inference.predictor import Predictor
from helpers.backends import CLASS_COLORS, PixelBackend, contract, image_of, random_labels
from helpers.folder_runs import failed_rows, failures, grey_of, predict, run, save, stored
from helpers.medical import write_metaimage, write_nifti


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_image_gets_a_mask_and_an_edge_of_its_own_size(tmp_path, batch_size):
    images = tmp_path / "images"
    labels = {name: save(images / f"{name}.png", random_labels(20 + i, 33, seed=i)) for i, name in enumerate("abcd")}
    outcome = run(images, tmp_path / "out", batch_size=batch_size)
    for name, expected in labels.items():
        np.testing.assert_array_equal(stored(tmp_path / f"out/masks/{name}.png"), expected)
        np.testing.assert_array_equal(stored(tmp_path / f"out/edges/{name}.png"), expected * 100)
    assert [item.file for item in outcome.images()] == ["a.png", "b.png", "c.png", "d.png"]
    assert failures(outcome) == []
    assert failed_rows(tmp_path / "out") == [["file", "reason"]]
    assert not (tmp_path / "out/overlays").exists()


def test_masks_carry_the_colours_of_the_classes(tmp_path):
    save(tmp_path / "images/a.png", random_labels(8, 8))
    run(tmp_path / "images", tmp_path / "out")
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:9] == [channel for color in CLASS_COLORS for channel in color]


def test_the_outcome_names_files_sizes_and_shares(tmp_path):
    save(tmp_path / "images/a.png", np.array([[0, 0, 1, 2]], np.uint8))
    outcome = run(tmp_path / "images", tmp_path / "out", overlay=True)
    assert (outcome.done, outcome.failed, outcome.kept) == (1, 0, 0)
    (image,) = outcome.images()
    assert (image.height, image.width) == (1, 4)
    assert image.class_share == {"background": 0.5, "vessel": 0.25, "optic_disc": 0.25}
    assert image.written == ("masks/a.png", "edges/a.png", "overlays/a.png")
    assert all((tmp_path / "out" / path).is_file() for path in image.written)


def test_a_network_without_edges_writes_none(tmp_path):
    save(tmp_path / "images/a.png", random_labels(8, 8))
    outcome = run(tmp_path / "images", tmp_path / "out", backend=PixelBackend(with_edges=False))
    assert next(outcome.images()).edge is None
    assert not (tmp_path / "out/edges").exists()


def broken_files(folder: Path) -> dict[str, str]:
    """Files that no one can segment, each with a word of the sentence that says why."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("I am not a picture")
    whole = save(folder / "whole.png", random_labels(64, 64))
    assert whole.any()
    content = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    with Image.new("1", (30000, 20000)) as bomb:
        bomb.save(folder / "bomb.png")
    return {
        "empty.png": "empty",
        "text.png": "not of a known format",
        "truncated.png": "cannot be read",
        "float.tif": "intensity_window",
        "bomb.png": "pixels",
    }


@pytest.mark.parametrize("batch_size", [1, 3])
def test_bad_files_are_listed_with_their_reason_and_the_others_are_done(tmp_path, batch_size):
    expected = broken_files(tmp_path / "images")
    outcome = run(tmp_path / "images", tmp_path / "out", batch_size=batch_size)
    assert [item.file for item in outcome.images()] == ["whole.png"]
    rows = dict(failed_rows(tmp_path / "out")[1:])
    assert rows.keys() == expected.keys()
    for file, word in expected.items():
        assert word in rows[file], rows[file]
        assert "\n" not in rows[file]
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["whole.png"]


def test_kinds_of_pictures_that_cameras_and_programs_write_are_all_done(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(gray).convert("1").save(folder / "bits.png")
    Image.fromarray(gray.astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(gray).convert("P").save(folder / "palette.gif")
    Image.fromarray(np.dstack([gray] * 4)).save(folder / "alpha.png")
    Image.fromarray(np.dstack([gray] * 3)).save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(gray).save(folder / "picture.bmp")
    Image.fromarray(gray[:1, :1]).save(folder / "pixel.png")
    outcome = run(folder, tmp_path / "out", overlay=True)
    assert failures(outcome) == []
    for item in outcome.images():
        expected = (1, 1) if item.file == "pixel.png" else (4, 6)
        assert stored(tmp_path / "out" / item.mask).shape == expected, item.file


def test_a_rotated_photograph_gets_a_mask_as_it_is_displayed(tmp_path):
    labels = random_labels(6, 9)
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed after a quarter turn clockwise
    save(tmp_path / "images/photo.png", labels, exif=exif.tobytes())
    run(tmp_path / "images", tmp_path / "out")
    np.testing.assert_array_equal(stored(tmp_path / "out/masks/photo.png"), np.rot90(labels, -1))


def test_inputs_that_share_a_stem_do_not_overwrite_each_other(tmp_path):
    first = save(tmp_path / "images/a.png", random_labels(5, 5, seed=1))
    second = save(tmp_path / "images/a.bmp", random_labels(7, 7, seed=2))
    run(tmp_path / "images", tmp_path / "out")
    np.testing.assert_array_equal(stored(tmp_path / "out/masks/a.png.png"), first)
    np.testing.assert_array_equal(stored(tmp_path / "out/masks/a.bmp.png"), second)


def test_a_single_file_is_an_input_too(tmp_path):
    labels = save(tmp_path / "one image.png", random_labels(5, 5))
    run(tmp_path / "one image.png", tmp_path / "out")
    np.testing.assert_array_equal(stored(tmp_path / "out/masks/one image.png"), labels)


def test_a_volume_becomes_a_volume_and_its_neighbours_stay_pictures(tmp_path):
    """`PixelBackend` tells classes by grey values, so the expected mask is known voxel by voxel."""
    labels = np.random.default_rng(5).integers(0, 3, (6, 5, 4)).astype(np.uint8)
    picture = save(tmp_path / "images/sub/eye.png", random_labels(9, 7))
    write_nifti(tmp_path / "images/ct.nii.gz", grey_of(labels), np.diag([-1.0, 1, 2, 1]))
    write_metaimage(tmp_path / "images/ct.mha", grey_of(labels))
    save(tmp_path / "images/a.png", random_labels(9, 7))
    inputs = find_inputs(tmp_path / "images", recursive=True)
    predictor = Predictor(PixelBackend(), contract())
    outcome = predict(predictor, inputs, tmp_path / "out", overlay=True, batch_size=3)
    assert failures(outcome) == []
    done = {item.file: item for item in outcome.images()}
    assert set(done) == {"a.png", "ct.mha", "ct.nii.gz", "sub/eye.png"}
    np.testing.assert_array_equal(stored(tmp_path / "out" / done["sub/eye.png"].mask), picture)
    for folder, expected in (("masks", labels), ("edges", grey_of(labels))):
        nifti = nibabel.load(tmp_path / f"out/{folder}/ct.nii.gz.nii.gz")
        np.testing.assert_array_equal(np.asarray(nifti.dataobj), expected)
        np.testing.assert_array_equal(nifti.affine, np.diag([-1.0, 1, 2, 1]))
        meta = SimpleITK.ReadImage(str(tmp_path / f"out/{folder}/ct.mha.mha"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(meta).T, expected)
    volume = done["ct.nii.gz"]
    assert (volume.slices, volume.height, volume.width) == (4, 5, 6)
    assert volume.class_share["vessel"] == pytest.approx(np.mean(labels == 1), abs=1e-6)
    assert volume.measurements == {
        f"{name}_volume_ml": pytest.approx(np.count_nonzero(labels == index) * 2 / 1000)
        for index, name in ((1, "vessel"), (2, "optic_disc"))
    }
    assert (tmp_path / "out" / volume.overlay).is_file()


def test_a_volume_of_which_one_slice_fails_is_not_written_in_part(tmp_path):
    class Refusing(PixelBackend):
        def run(self, images, *, probabilities=True):
            if (images == refused).any():
                raise OutOfMemory("too little memory")
            return super().run(images, probabilities=probabilities)

    labels = np.zeros((5, 5, 4), np.uint8)
    labels[2, 2, 3] = 2
    refused = grey_of(labels).max()
    write_nifti(tmp_path / "images/ct.nii", grey_of(labels), np.eye(4))
    save(tmp_path / "images/a.png", np.zeros((5, 5), np.uint8))
    outcome = run(tmp_path / "images", tmp_path / "out", backend=Refusing())
    assert [item.file for item in outcome.images()] == ["a.png"]
    assert failures(outcome) == [("ct.nii", f"{tmp_path / 'images/ct.nii'}: slice 3: too little memory")]
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["a.png"]


def test_folders_that_cannot_be_listed_are_failures_of_the_run(tmp_path):
    save(tmp_path / "a.png", random_labels(5, 5))
    inputs = replace(find_inputs(tmp_path), unreadable=(("secret", "secret: the folder cannot be listed"),))
    outcome = predict(Predictor(PixelBackend(), contract()), inputs, tmp_path)
    assert failures(outcome) == [("secret", "secret: the folder cannot be listed")]
    assert failed_rows(tmp_path)[1:] == [list(row) for row in failures(outcome)]


def test_one_image_that_is_too_large_for_the_device_does_not_take_its_batch_along(tmp_path):
    class Small(PixelBackend):
        def run(self, images, *, probabilities=True):
            if images.shape[0] * images.shape[1] * images.shape[2] > 2 * 32 * 32:
                raise OutOfMemory("too little memory")
            return super().run(images, probabilities=probabilities)

    for name in "abc":
        save(tmp_path / f"images/{name}.png", random_labels(32, 32))
    save(tmp_path / "images/big.png", random_labels(64, 64))
    outcome = run(tmp_path / "images", tmp_path / "out", backend=Small(), batch_size=4)
    assert [item.file for item in outcome.images()] == ["a.png", "b.png", "c.png"]
    assert failures(outcome) == [("big.png", f"{tmp_path / 'images/big.png'}: too little memory")]


def test_memory_errors_concern_one_file(tmp_path, monkeypatch):
    class Exhausted(PixelBackend):
        def run(self, images, *, probabilities=True):
            raise MemoryError

    save(tmp_path / "images/a.png", random_labels(4, 5))
    outcome = run(tmp_path / "images", tmp_path / "out", backend=Exhausted())
    assert "not enough memory for an image of 4x5 pixels" in failures(outcome)[0][1]

    def read(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr("etnet.inference.input_images.read_image", read)
    outcome = run(tmp_path / "images", tmp_path / "out2")
    assert "not enough memory to read" in failures(outcome)[0][1]


def test_a_full_disk_stops_with_whole_files_only(tmp_path, monkeypatch):
    for name in "abc":
        save(tmp_path / f"images/{name}.png", random_labels(8, 8))
    replace = os.replace

    def full_after_b(source, target):
        if Path(target) == tmp_path / "out/edges/b.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(EnvironmentFault, match="No space left on device"):
        patch.setattr(os, "replace", full_after_b)
        run(tmp_path / "images", tmp_path / "out")
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    # What was written meanwhile by another thread is whole too.
    expected = {".journal.lock", "edges/a.png", "failed.csv", "journal.jsonl", "masks/a.png", "measurements.csv"}
    assert left - {"edges/c.png", "masks/c.png"} == expected
    outcome = run(tmp_path / "images", tmp_path / "out", resumption=Resumption(keeps=True))
    assert (outcome.done, outcome.kept) == (3, 1)


def test_names_that_begin_alike_do_not_share_a_temporary_file(tmp_path):
    """Many writers at once, names of which the first 70 characters are the same."""
    labels = {}
    for index in range(40):
        name = f"{'long_name_' * 7}{index:02}"
        labels[name] = save(tmp_path / f"images/{name}.png", random_labels(8, 8, seed=index))
    predictor = Predictor(PixelBackend(), contract())
    (tmp_path / "out").mkdir()
    predict_folder(predictor, find_inputs(tmp_path / "images"), tmp_path / "out", work=Work(jobs=8))
    for name, expected in labels.items():
        np.testing.assert_array_equal(stored(tmp_path / f"out/masks/{name}.png"), expected)


def test_what_no_one_thought_of_fails_one_image_and_is_not_quoted(tmp_path, monkeypatch):
    for name in "ab":
        save(tmp_path / f"images/{name}.png", random_labels(8, 8))

    def measure(prediction, contract, *, scale):
        raise ZeroDivisionError("SMITH^JOHN")

    with monkeypatch.context() as patch:
        patch.setattr("etnet.inference.result_files.measure_prediction", measure)
        outcome = run(tmp_path / "images", tmp_path / "out")
    assert outcome.failed == 2
    assert all("ZeroDivisionError" in reason and "SMITH" not in reason for _, reason in outcome.failures())
    assert not (tmp_path / "out/masks").exists()


def test_errors_of_the_program_are_not_taken_for_bad_files(tmp_path):
    class Broken(PixelBackend):
        def run(self, images, *, probabilities=True):
            raise KeyError("a bug")

    save(tmp_path / "images/a.png", random_labels(4, 4))
    with pytest.raises(KeyError, match="a bug"):
        run(tmp_path / "images", tmp_path / "out", backend=Broken())


def test_reading_runs_ahead_by_a_bounded_number_of_images(tmp_path, monkeypatch):
    read_before_first_result: list[int] = []
    count = 0
    lock = threading.Lock()

    def read(path, *, intensity_window=None):
        nonlocal count
        with lock:
            count += 1
        return image_of(random_labels(4, 4))

    monkeypatch.setattr("etnet.inference.input_images.read_image", read)
    for index in range(30):
        (tmp_path / f"{index:02}.png").touch()
    run(tmp_path, tmp_path / "out", batch_size=2, on_step=lambda _: read_before_first_result.append(count))
    assert read_before_first_result[0] <= 10
    assert count == 30


def test_progress_is_told_about_every_file_done_or_failed(tmp_path):
    broken_files(tmp_path / "images")
    seen: list[str] = []
    run(tmp_path / "images", tmp_path / "out", on_step=lambda step: seen.append(step.result.file))
    assert sorted(seen) == sorted(path.name for path in (tmp_path / "images").iterdir())
