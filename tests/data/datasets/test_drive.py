from __future__ import annotations

import numpy as np
import pytest

from etnet.config.data_section import DataSection
from etnet.data.datasets import open_dataset
from etnet.errors import DataError
from helpers.datasets import DatasetTester, save
from helpers.layouts import write_drive

DATA = DataSection(dataset="drive", class_names=("background", "vessel"))


class TestDrive(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path):
        return write_drive(tmp_path)


class TestRealDrive(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, drive_root):
        return drive_root

    def test_halves_have_the_published_names_sizes_and_share_of_vessels(self, opened):
        assert opened["all"].ids == tuple(f"{number}_training" for number in range(21, 41))
        assert opened["test"].ids == tuple(f"{number:02d}_test" for number in range(1, 21))
        sample = opened["test"].load(0)
        assert sample.image.shape == (584, 565, 3)
        assert 0.05 < (sample.mask == 1).mean() < 0.15
        assert 0.6 < sample.field_of_view.mean() < 0.75
        assert sample.mask[~sample.field_of_view].mean() < 0.001


def test_ids_labels_and_views_belong_together(tmp_path):
    write_drive(tmp_path)
    dataset = open_dataset(DATA, tmp_path, "test")
    assert dataset.ids == ("01_test", "02_test", "03_test")
    assert [mask.path.name for mask in dataset.masks] == ["01_manual1.gif", "02_manual1.gif", "03_manual1.gif"]
    assert dataset.mask_values == {0: 0, 255: 1}
    assert dataset.load(1).field_of_view.sum() == 24 * 22


@pytest.mark.parametrize("remove", ["files", "folder"])
def test_missing_test_labels_are_explained_and_training_still_works(tmp_path, remove):
    write_drive(tmp_path)
    folder = tmp_path / "test" / "1st_manual"
    for path in folder.iterdir():
        path.unlink()
    if remove == "folder":
        folder.rmdir()
    with pytest.raises(
        DataError, match="labels of the test half are missing, and the DRIVE download offered today has"
    ):
        open_dataset(DATA, tmp_path, "test")
    assert len(open_dataset(DATA, tmp_path, "train")) == 2


def test_missing_training_labels_are_named(tmp_path):
    write_drive(tmp_path)
    (tmp_path / "training" / "1st_manual").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="labels of the training half are missing"):
        open_dataset(DATA, tmp_path, "train")


@pytest.mark.parametrize(("folder", "name"), [("1st_manual", "22_manual1.gif"), ("mask", "22_training_mask.gif")])
def test_an_image_without_companion_is_named(tmp_path, folder, name):
    write_drive(tmp_path)
    (tmp_path / "training" / folder / name).unlink()
    with pytest.raises(
        DataError, match=rf"22_training\.tif: has no companion in .*{folder} \(1 of 3 images\); expected {name}"
    ):
        open_dataset(DATA, tmp_path, "train")


def test_copies_without_fields_of_view_have_none(tmp_path):
    write_drive(tmp_path)
    (tmp_path / "training" / "mask").rename(tmp_path / "elsewhere")
    assert open_dataset(DATA, tmp_path, "train").load(0).field_of_view is None


def test_a_wrong_folder_is_explained(tmp_path):
    write_drive(tmp_path)
    with pytest.raises(DataError, match="give the folder that holds training/ and test/"):
        open_dataset(DATA, tmp_path / "training", "train")


def test_a_recipe_with_other_classes_is_refused(tmp_path):
    write_drive(tmp_path)
    with pytest.raises(DataError, match="two classes; expected background and vessel"):
        open_dataset(DATA.model_copy(update={"class_names": ("a", "b", "c")}), tmp_path, "train")


def test_a_field_of_view_of_another_size_is_refused(tmp_path):
    write_drive(tmp_path)
    save(tmp_path / "test" / "mask" / "01_test_mask.gif", np.zeros((4, 5), np.uint8))
    with pytest.raises(DataError, match=r"01_test_mask\.gif: the mask is 5x4 pixels; expected 28x30"):
        open_dataset(DATA, tmp_path, "test").load(0)
