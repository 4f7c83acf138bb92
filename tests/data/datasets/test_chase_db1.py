from __future__ import annotations

import numpy as np
import pytest

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.data.splits import builtin_split
from etnet.errors import DataError
from helpers.datasets import DatasetTester, save
from helpers.layouts import write_chase

DATA = load_recipe("chase_db1").data


class TestChase(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path):
        return write_chase(tmp_path / "CHASEDB1")

    def test_parts_have_the_usual_counts(self, opened):
        assert (len(opened["all"]), len(opened["test"])) == (20, 8)
        assert opened["test"].ids[0] == "Image_11L"

    def test_both_eyes_of_a_child_are_in_the_same_split(self, opened):
        children = {split: {name[6:8] for name in opened[split].ids} for split in ("train", "validation", "test")}
        assert sum(map(len, children.values())) == 14

    def test_the_first_observer_is_the_truth(self, opened):
        dataset = opened["test"]
        assert [path.path.name for path in dataset.masks[:2]] == ["Image_11L_1stHO.png", "Image_11R_1stHO.png"]
        assert 0 < dataset.load(0).mask.mean() < 0.5


def test_masks_of_8_bits_give_the_same_labels(tmp_path):
    root = write_chase(tmp_path)
    before = open_dataset(DATA, root, "test").load(0).mask
    for path in root.glob("*_1stHO.png"):
        save(path, np.where(np.asarray(open_mask(path)), 255, 0).astype(np.uint8))
    assert np.array_equal(open_dataset(DATA, root, "test").load(0).mask, before)


def open_mask(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image)


def test_the_split_holds_every_image_once():
    split = builtin_split("chase_db1")
    expected = {f"Image_{child:02d}{eye}" for child in range(1, 15) for eye in "LR"}
    assert {*split.train, *split.test} == expected
    assert len(split.train) + len(split.test) == 28


def test_an_image_without_its_first_observer_is_named(tmp_path):
    (write_chase(tmp_path) / "Image_03R_1stHO.png").unlink()
    with pytest.raises(
        DataError, match=r"Image_03R\.jpg: image without mask \(1 of 28\); expected Image_03R_1stHO\.png"
    ):
        open_dataset(DATA, tmp_path, "train")


def test_a_missing_pair_is_named(tmp_path):
    for path in list(write_chase(tmp_path).glob("Image_14L*")):
        path.unlink()
    with pytest.raises(DataError, match=r"Image_14L is missing \(1 of the 28"):
        open_dataset(DATA, tmp_path, "train")


def test_a_folder_without_images_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"no image of CHASE_DB1; expected Image_01L\.jpg"):
        open_dataset(DATA, tmp_path, "train")
