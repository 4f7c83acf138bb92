from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from etnet.config.data_section import DataSection
from etnet.data.datasets import open_dataset
from etnet.data.synthetic import CLASS_NAMES, write_fundus_dataset
from etnet.errors import DataError, UsageError
from helpers.datasets import DatasetTester, save, write_pairs


class TestDrawnFundus(DatasetTester):
    @pytest.fixture
    def data(self):
        return DataSection(class_names=CLASS_NAMES)

    @pytest.fixture
    def root(self, tmp_path):
        write_fundus_dataset(tmp_path, train=5, test=2, size=64, seed=0)
        return tmp_path


class TestTrainFolderWithIgnoredPixels(DatasetTester):
    @pytest.fixture
    def data(self):
        return DataSection(ignore_index=255, validation_fraction=0.4)

    @pytest.fixture
    def root(self, tmp_path):
        write_pairs(tmp_path / "train", ["a", "b", "c"], values=(0, 1, 255))
        write_pairs(tmp_path / "test", ["d"], values=(0, 1, 255))
        return tmp_path


class TestLayoutOfLungCT(DatasetTester):
    """Signed Hounsfield values in TIFF, masks {0, 255}, as in the set "finding lungs in CT"."""

    has_test = False

    @pytest.fixture
    def data(self):
        return DataSection(class_names=("background", "lung"), intensity_window=(-1000, 400), validation_fraction=0.34)

    @pytest.fixture
    def root(self, tmp_path):
        random = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        for number in range(3):
            name = f"ID_{number:04d}_Z_0142.tif"
            cv2.imwrite(str(tmp_path / "images" / name), random.integers(-1024, 2000, (20, 30)).astype(np.int16))
            save(tmp_path / "masks" / name, random.choice(np.array([0, 255], np.uint8), (20, 30)))
        return tmp_path


def test_binary_masks_of_0_and_255_are_mapped_and_the_mapping_is_told(tmp_path):
    write_pairs(tmp_path, ["a", "b"], values=(0, 255))
    dataset = open_dataset(DataSection(), tmp_path, "all")
    assert dataset.mask_values == {0: 0, 255: 1}
    assert set(np.unique(dataset.load(0).mask).tolist()) == {0, 1}


def test_the_mapping_of_the_recipe_wins(tmp_path):
    write_pairs(tmp_path, ["a"], values=(0, 128, 255))
    # The layout of REFUGE: 0 is the cup, 128 the rim, 255 the background.
    data = DataSection(class_names=("background", "optic_disc", "optic_cup"), mask_values={255: 0, 128: 1, 0: 2})
    dataset = open_dataset(data, tmp_path, "all")
    raw = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    assert np.array_equal(dataset.load(0).mask, np.select([raw == 255, raw == 128], [0, 1], 2))


def test_formats_may_differ_between_images_and_masks(tmp_path):
    save(tmp_path / "images" / "a.JPG", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "masks" / "a.gif", np.eye(8, dtype=np.uint8) * 255)
    assert open_dataset(DataSection(), tmp_path, "all").load(0).mask.tolist() == np.eye(8).tolist()


def test_a_turned_photograph_fits_its_upright_mask(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.jpg", exif=turned)
    save(tmp_path / "masks" / "a.png", np.zeros((30, 20), np.uint8))
    assert open_dataset(DataSection(), tmp_path, "all").load(0).image.shape == (30, 20, 3)


def test_a_pair_of_another_size_is_refused_at_opening(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    save(tmp_path / "masks" / "b.png", np.zeros((24, 21), np.uint8))
    with pytest.raises(DataError, match=r"masks/b\.png: the mask is 21x24 pixels; expected 20x24"):
        open_dataset(DataSection(), tmp_path, "train")


def test_unexpected_values_are_refused_at_opening_of_any_split(tmp_path):
    write_pairs(tmp_path, ["a", "b"], values=(0, 128, 255))
    for split in ("train", "validation", "all"):
        with pytest.raises(DataError, match=r"expected class indices 0\.\.3\. Map them"):
            open_dataset(DataSection(class_names=("a", "b", "c", "d")), tmp_path, split)


@pytest.mark.parametrize("missing", ["images", "masks"])
def test_a_missing_folder_is_named(tmp_path, missing):
    write_pairs(tmp_path, ["a"])
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{missing}: no such folder"):
        open_dataset(DataSection(), tmp_path, "train")


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match="none: no such folder; expected the folder of the 'folder' data set"):
        open_dataset(DataSection(), tmp_path / "none", "train")


def test_without_test_part_the_sentence_names_the_other_splits(tmp_path):
    write_pairs(tmp_path, ["a"])
    with pytest.raises(DataError, match="--split validation, or --split all"):
        open_dataset(DataSection(), tmp_path, "test")


def test_an_unknown_split_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="'val' does not exist; choose one of train, validation, test, all"):
        open_dataset(DataSection(), tmp_path, "val")


def test_fraction_0_leaves_the_validation_empty(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    data = DataSection(validation_fraction=0.0)
    assert len(open_dataset(data, tmp_path, "validation")) == 0
    assert open_dataset(data, tmp_path, "train").ids == ("a", "b")


def test_the_seed_chooses_the_hold_out(tmp_path):
    write_pairs(tmp_path, [str(number) for number in range(12)])
    parts = {open_dataset(DataSection(), tmp_path, "validation", seed=seed).ids for seed in range(4)}
    assert len(parts) > 1


class TestPatients:
    DATA = DataSection(patient_pattern="(p[0-9]+)_.*", validation_fraction=0.4)

    def test_are_told_by_the_pattern_and_held_out_as_a_whole(self, tmp_path):
        write_pairs(tmp_path, [f"p{patient}_{side}" for patient in range(5) for side in "lr"])
        parts = [open_dataset(self.DATA, tmp_path, split) for split in ("train", "validation")]
        patients = [set(part.patients) for part in parts]
        assert patients[0].isdisjoint(patients[1])
        assert patients[0] | patients[1] == {f"p{patient}" for patient in range(5)}
        assert all(
            name.startswith(patient) for part in parts for name, patient in zip(part.ids, part.patients, strict=True)
        )

    def test_a_name_that_does_not_fit_is_refused(self, tmp_path):
        write_pairs(tmp_path, ["p1_l", "p1_r", "case7"])
        with pytest.raises(DataError, match=r"'case7' \(1 such file\) does not fit data.patient_pattern"):
            open_dataset(self.DATA, tmp_path, "all")

    def test_need_not_be_told_by_the_names_of_the_test_part(self, tmp_path):
        write_pairs(tmp_path / "train", ["p1_l", "p1_r", "p2_l"])
        write_pairs(tmp_path / "test", ["p3_l", "case7"])
        assert open_dataset(self.DATA, tmp_path, "train").patients
        assert open_dataset(self.DATA, tmp_path, "test").patients == ()

    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"patient_pattern": "(p[0-9]+_.*"}, "is no regular expression"),
            ({"patient_pattern": "p[0-9]+"}, "has 0 groups; expected one"),
            ({"patient_pattern": "(p).*", "dataset": "drive"}, "patient_pattern is for dataset: folder"),
        ],
    )
    def test_a_pattern_that_cannot_work_is_refused(self, values, sentence):
        with pytest.raises(ValueError, match=sentence):
            DataSection(**values)
