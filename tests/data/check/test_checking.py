"""Right about real data sets, and about folders that are broken in the ways that users' folders are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from etnet.config.load import load_recipe
from etnet.data.check import check_dataset
from etnet.data.datasets import open_dataset
from etnet.data.splits import builtin_split
from etnet.errors import DataError
from helpers.checks import findings, the_error
from helpers.datasets import save, write_pairs
from helpers.layouts import (
    refuge_mask,
    write_chase,
    write_drishti,
    write_drive,
    write_lung_ct,
    write_montgomery,
    write_refuge,
    write_stare,
)


class TestRealFolders:
    def test_drive_is_in_order(self, drive_root):
        report = check_dataset(drive_root)
        assert (report.dataset, report.errors, report.findings) == ("drive", 0, ())
        assert {name: part.pairs for name, part in report.parts.items()} == {"train": 20, "test": 20}
        assert report.parts["train"].sizes == {(565, 584): 20}
        assert report.parts["test"].depths == {"RGB 8-bit": 20}
        assert set(report.values) == {0, 255}
        assert report.values[255].files == 40
        assert 0.05 < report.values[255].pixels / sum(count.pixels for count in report.values.values()) < 0.15

    def test_drishti_is_in_order_but_for_its_size(self, drishti_root):
        report = check_dataset(drishti_root)
        assert (report.dataset, report.errors) == ("drishti_gs", 0)
        assert [finding.rule for finding in report.findings] == ["resized-images"]
        assert "official ones have about 2047x1751" in report.findings[0].sentence
        assert {name: part.pairs for name, part in report.parts.items()} == {"train": 50, "test": 51}
        assert set(report.values) == {0, 64, 128, 191, 255}

    def test_montgomery_is_in_order_but_for_size_and_smoothed_masks(self, montgomery_root):
        report = check_dataset(montgomery_root)
        assert (report.dataset, report.errors) == ("montgomery", 0)
        assert [(finding.severity, finding.rule) for finding in report.findings] == [
            ("note", "smoothed-masks"),
            ("note", "resized-images"),
        ]
        assert {name: part.pairs for name, part in report.parts.items()} == {"train": 80, "test": 58}
        assert report.parts["train"].depths == {"grey 8-bit": 80}


@pytest.mark.parametrize(
    ("write", "dataset", "counts"),
    [
        (write_drive, "drive", (3, 3)),
        (write_drishti, "drishti_gs", (3, 3)),
        (write_refuge, "refuge", (5, 2)),
        (write_montgomery, "montgomery", (80, 58)),
        (write_lung_ct, "lung_ct", (8, 2)),
        (write_chase, "chase_db1", (20, 8)),
        (write_stare, "stare", (10, 10)),
        (lambda root: write_pairs(root, ["a", "b"], values=(0, 255)), "folder", (2, None)),
    ],
)
def test_every_layout_is_recognised_and_counted(tmp_path, write, dataset, counts):
    report = check_dataset(write(tmp_path))
    assert (report.dataset, report.recognised, report.errors) == (dataset, True, 0)
    assert report.parts["train"].pairs == counts[0]
    assert (report.parts["test"].pairs if "test" in report.parts else None) == counts[1]
    assert all(count.expected for count in report.values.values())


def test_a_data_set_one_folder_below_is_found(tmp_path):
    write_drive(tmp_path / "downloads" / "DRIVE")
    assert check_dataset(tmp_path).root == tmp_path / "downloads" / "DRIVE"


class TestBrokenFolders:
    def test_a_half_unpacked_archive(self, tmp_path):
        root = write_refuge(tmp_path)
        (root / "Training400.zip").write_bytes(b"PK")
        finding = the_error(root, "half-unpacked")
        assert finding.files == (root / "Training400.zip",)
        assert "holds 5 of the 400 pairs of REFUGE for training, beside Training400.zip" in finding.sentence
        assert "unpack the archive again" in finding.sentence

    def test_an_archive_whose_last_file_was_cut(self, tmp_path):
        root = write_drive(tmp_path)
        image = root / "training" / "images" / "23_training.tif"
        image.write_bytes(image.read_bytes()[:300])
        finding = the_error(root, "unreadable-file")
        assert finding.files == (image,)
        assert finding.sentence.startswith(f"{image}: cannot be read as a picture")
        assert finding.sentence.endswith("save it again or remove it")

    def test_files_that_were_renamed_by_the_operating_system(self, tmp_path):
        root = write_refuge(tmp_path)
        image = root / "Training400" / "Glaucoma" / "g0001.jpg"
        image.rename(image.with_name("g0001 (1).jpg"))
        report = check_dataset(root)
        (finding,) = findings(report, "renamed-file")
        assert finding.files == (image.with_name("g0001 (1).jpg"),)
        assert finding.sentence.endswith(f"run: mv -n '{image.with_name('g0001 (1).jpg')}' {image}")
        with pytest.raises(DataError) as refusal:
            open_dataset(load_recipe("refuge").data, root, "train")
        assert str(refusal.value) == finding.sentence

    def test_a_copy_beside_its_original(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        for folder in ("images", "masks"):
            shutil.copy(root / folder / "a.png", root / folder / "Copy of a.png")
        finding = the_error(root, "renamed-file")
        assert finding.files == (root / "images" / "Copy of a.png",)
        assert "looks like a copy of a.png that was made by the operating system" in finding.sentence

    def test_masks_with_other_values(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b", "c"], values=(0, 128, 255))
        finding = the_error(root, "mask-values")
        assert finding.files == tuple(root / "masks" / f"{name}.png" for name in "abc")
        assert finding.recipe_lines == (
            "data.class_names: [background, class_1, class_2]",
            "data.mask_values: {0: 0, 128: 1, 255: 2}",
        )

    def test_the_proposed_recipe_lines_settle_it(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b", "c"], values=(0, 128, 255))
        (finding,) = findings(check_dataset(root), "mask-values")
        settled = load_recipe("folder", [line.replace(": ", "=", 1) for line in finding.recipe_lines])
        assert check_dataset(root, settled).errors == 0

    def test_masks_of_a_known_set_with_other_values(self, tmp_path):
        root = write_lung_ct(tmp_path)
        for path in (root / "2d_masks").iterdir():
            save(path, np.array([[0, 7] * 10] * 24, np.uint8))
        finding = the_error(root, "mask-values")
        assert "mask holds values [0, 7]; expected only those of data.mask_values [0, 255]" in finding.sentence
        assert finding.recipe_lines == ("data.mask_values: {0: 0, 7: 1}",)
        assert len(finding.files) == 8

    def test_images_without_labels(self, tmp_path):
        root = write_drishti(tmp_path)
        lost = [root / f"Training/GT/drishtiGS_00{number}/SoftMap" for number in (1, 2)]
        for folder in lost:
            shutil.rmtree(folder)
        report = check_dataset(root)
        finding = next(finding for finding in report.findings if finding.severity == "error")
        assert [path.stem for path in finding.files] == ["drishtiGS_001", "drishtiGS_002"]
        assert "has no map of the disc (2 of 3 images)" in finding.sentence
        assert "unpack the archive with the ground truth again" in finding.sentence
        assert report.parts["train"].pairs == 1

    def test_drive_without_test_labels_can_be_trained_on(self, tmp_path):
        root = write_drive(tmp_path)
        shutil.rmtree(root / "test" / "1st_manual")
        report = check_dataset(root)
        assert report.errors == 0
        (finding,) = findings(report, "part-missing")
        assert finding.severity == "warning"
        assert "the DRIVE download offered today has none" in finding.sentence

    def test_a_cup_outside_the_disc(self, tmp_path):
        root = write_refuge(tmp_path)
        mask = refuge_mask()
        mask[24:27, 30:36] = 0
        path = next(root.rglob("n0002.bmp"))
        save(path, mask)
        finding = the_error(root, "mask-content")
        assert finding.files == (path,)
        assert "33% of the cup lie outside the disc" in finding.sentence
        assert "leave the image out" in finding.sentence

    def test_a_cup_outside_the_disc_of_soft_maps(self, tmp_path):
        root = write_drishti(tmp_path)
        path = next(root.rglob("drishtiGS_002_cupsegSoftmap.png"))
        cup = np.zeros((30, 40), np.uint8)
        cup[22:28, 30:36] = 255
        save(path, cup)
        finding = the_error(root, "mask-content")
        assert "100% of the cup lie outside the disc of drishtiGS_002_ODsegSoftmap.png" in finding.sentence

    def test_an_empty_cup(self, tmp_path):
        root = write_drishti(tmp_path)
        path = next(root.rglob("drishtiGS_003_cupsegSoftmap.png"))
        save(path, np.zeros((30, 40), np.uint8))
        finding = the_error(root, "mask-content")
        assert finding.sentence.startswith(f"{path}: 3 of 4 annotators agree on no pixel of the cup")
        assert "got values 0, expected 0, 64, 128, 191, 255" in finding.sentence
        assert finding.files == (path,)

    def test_a_left_lung_without_the_right_one(self, tmp_path):
        root = write_montgomery(tmp_path)
        name = builtin_split("montgomery").train[5]
        (root / "ManualMask" / "rightMask" / f"{name}.png").unlink()
        report = check_dataset(root)
        (finding,) = findings(report, "one-lung")
        assert finding.files == (root / "ManualMask" / "leftMask" / f"{name}.png",)
        assert "left lung without the right one (1 of 138)" in finding.sentence
        assert report.errors == 1
        assert {name: part.pairs for name, part in report.parts.items()} == {"train": 79, "test": 58}
        with pytest.raises(DataError) as refusal:
            open_dataset(load_recipe("montgomery").data, root, "train")
        assert str(refusal.value) == finding.sentence

    def test_two_data_sets_mixed_in_one_folder(self, tmp_path):
        root = write_pairs(tmp_path, ["21_training", "22_training", "MCUCXR_0001_0"], values=(0, 255))
        finding = the_error(root, "mixed-data-sets")
        assert finding.files == (root / "images" / "MCUCXR_0001_0.png",)
        assert "named like an image of Montgomery County chest X-rays, among 2 of DRIVE" in finding.sentence
        assert "move each to a folder of its own" in finding.sentence

    def test_a_foreign_image_in_the_folder_of_a_known_set(self, tmp_path):
        root = write_chase(tmp_path)
        save(root / "drishtiGS_002.png", np.zeros((24, 25, 3), np.uint8))
        (finding,) = findings(check_dataset(root), "other-data-set")
        assert finding.severity == "warning"
        assert finding.files == (root / "drishtiGS_002.png",)

    def test_the_same_picture_in_both_parts(self, tmp_path):
        root = write_drive(tmp_path)
        image = root / "test" / "images" / "01_test.tif"
        shutil.copy(root / "training" / "images" / "22_training.tif", image)
        (finding,) = findings(check_dataset(root), "same-image-in-two-parts")
        assert finding.severity == "error"
        assert finding.files == (image, root / "training" / "images" / "22_training.tif")
        assert "(1 of 3 test images)" in finding.sentence

    def test_the_same_picture_in_another_format_is_the_same(self, tmp_path):
        write_pairs(tmp_path / "train", ["a", "b"], values=(0, 255))
        write_pairs(tmp_path / "test", ["c"], values=(0, 255))
        from PIL import Image

        with Image.open(tmp_path / "train" / "images" / "b.png") as image:
            image.save(tmp_path / "test" / "images" / "c.tif")
        (tmp_path / "test" / "images" / "c.png").unlink()
        (finding,) = findings(check_dataset(tmp_path), "same-image-in-two-parts")
        assert finding.files == (tmp_path / "test/images/c.tif", tmp_path / "train/images/b.png")

    def test_a_picture_twice_in_one_part(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b", "c"], values=(0, 255))
        shutil.copy(root / "images" / "a.png", root / "images" / "c.png")
        (finding,) = findings(check_dataset(root), "same-image-twice")
        assert finding.severity == "warning"
        assert finding.files == (root / "images" / "a.png", root / "images" / "c.png")

    def test_the_same_patient_in_both_parts(self, tmp_path):
        root = write_chase(tmp_path)
        split = builtin_split("chase_db1")
        moved = {"train": [*split.train, "Image_11L"], "test": split.test[1:]}
        (tmp_path / "split.json").write_text(json.dumps(moved))
        report = check_dataset(root, load_recipe("chase_db1", [f"data.split_file={tmp_path / 'split.json'}"]))
        (finding,) = findings(report, "same-patient-in-two-parts")
        assert finding.severity == "error"
        assert finding.files == (root / "Image_11R.jpg",)
        assert "shows child 11, who is also on Image_11L.jpg of the training part" in finding.sentence
        assert "data.split_file" in finding.sentence

    def test_sizes_that_differ(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        save(root / "masks" / "b.png", np.zeros((24, 21), np.uint8))
        finding = the_error(root, "size-mismatch")
        assert finding.files == (root / "masks" / "b.png",)
        assert finding.sentence.endswith("export both at the same size")

    def test_hounsfield_units_without_a_window(self, tmp_path):
        root = write_lung_ct(tmp_path)
        report = check_dataset(root, load_recipe("lung_ct", ["data.intensity_window=null"]))
        finding = findings(report, "no-intensity-window")[0]
        assert finding.severity == "error"
        assert finding.recipe_lines == ("data.intensity_window: [-1000, 400]",)
        assert "data.intensity_window: [low, high]" in finding.sentence
        assert len(finding.files) == 8

    def test_compressed_files(self, tmp_path):
        root = write_stare(tmp_path, compressed=True)
        report = check_dataset(root)
        (finding,) = findings(report, "compressed-file")
        assert len(finding.files) == 40
        assert "im0001.ah.ppm.gz: compressed (40 such files)" in finding.sentence
        assert "-exec gunzip" in finding.sentence
        with pytest.raises(DataError) as refusal:
            open_dataset(load_recipe("stare").data, root, "train")
        assert str(refusal.value) == finding.sentence

    def test_a_mask_of_background_only_where_a_region_is_centred_on_it(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 1))
        save(root / "masks" / "b.png", np.zeros((24, 20), np.uint8))
        (note,) = findings(check_dataset(root), "mask-of-background")
        assert (note.severity, note.files) == ("note", (root / "masks" / "b.png",))
        with_region = load_recipe("folder", ["data.roi={side: 0.5, size: 64}"])
        (error,) = findings(check_dataset(root, with_region), "mask-of-background")
        assert error.severity == "error"

    def test_a_class_that_no_mask_holds(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 1))
        recipe = load_recipe("folder", ["data.class_names=[background, vessel, disc]"])
        (finding,) = findings(check_dataset(root, recipe), "class-without-pixels")
        assert "no mask of the train part holds 'disc' (class 2)" in finding.sentence

    def test_images_of_12_bits_that_would_be_black(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        for number, path in enumerate(sorted((root / "images").iterdir())):
            save(path, np.full((24, 20), 4095 - number, np.uint16))
        (finding,) = findings(check_dataset(root), "unused-range")
        assert finding.severity == "warning"
        assert finding.recipe_lines == ("data.intensity_window: [4094, 4095]",)
        settled = load_recipe("folder", ["data.intensity_window=[0, 4095]"])
        assert findings(check_dataset(root, settled), "unused-range") == []

    def test_two_sets_of_the_same_structure_are_only_a_warning(self, tmp_path):
        root = write_pairs(tmp_path, ["21_training", "22_training", "Image_01L"], values=(0, 255))
        (finding,) = findings(check_dataset(root), "mixed-data-sets")
        assert finding.severity == "warning"
        assert len(open_dataset(load_recipe("folder").data, root, "all")) == 3

    def test_a_renamed_mask_of_ones_own(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        (root / "masks" / "b.png").rename(root / "masks" / "b - Kopie.png")
        report = check_dataset(root)
        finding = next(finding for finding in report.findings if finding.severity == "error")
        assert finding.files == (root / "images" / "b.png",)
        masks = root / "masks"
        assert finding.sentence.endswith(f"run: mv -n '{masks / 'b - Kopie.png'}' {masks / 'b.png'}")

    def test_no_remedy_would_overwrite_a_file(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        shutil.copy(root / "images" / "b.png", root / "images" / "b - Kopie.png")
        shutil.copy(root / "masks" / "b.png", root / "masks" / "b copy.png")
        assert not [finding for finding in check_dataset(root).findings if "mv " in finding.sentence]

    def test_images_of_different_kinds(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b", "c"], values=(0, 255))
        save(root / "images" / "c.png", np.zeros((24, 20), np.uint16))
        (finding,) = findings(check_dataset(root), "different-kinds")
        assert "(2 RGB 8-bit, 1 grey 16-bit)" in finding.sentence
        assert finding.files == (root / "images" / "c.png",)

    def test_what_systems_and_downloads_leave_behind(self, tmp_path):
        root = write_chase(tmp_path)
        (root / "__MACOSX").mkdir()
        (root / "__MACOSX" / "._Image_01L.jpg").write_bytes(b"")
        (root / "CHASEDB1.zip.crdownload").write_bytes(b"")
        report = check_dataset(root)
        assert report.errors == 0
        assert findings(report, "system-files")[0].files == (root / "__MACOSX" / "._Image_01L.jpg",)
        assert findings(report, "unfinished-download")[0].files == (root / "CHASEDB1.zip.crdownload",)


def test_every_file_is_read_once(tmp_path, monkeypatch):
    root = write_drishti(tmp_path)
    reads: list[Path] = []
    read_bytes = Path.read_bytes

    def counting(self: Path) -> bytes:
        reads.append(self)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", counting)
    check_dataset(root)
    pictures = sorted(root.rglob("*.png"))
    assert sorted(reads) == pictures


def test_progress_counts_every_pair(tmp_path):
    told: list[tuple[int, int]] = []
    check_dataset(write_drive(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_errors_come_first(tmp_path):
    root = write_drive(tmp_path)
    (root / "training" / "1st_manual" / "21_manual1.gif").unlink()
    severities = [finding.severity for finding in check_dataset(root).findings]
    assert severities[0] == "error"
    assert "warning" in severities
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
