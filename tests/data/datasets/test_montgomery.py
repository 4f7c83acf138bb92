from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from etnet.config.data_section import DataSection
from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.data.splits import builtin_split
from etnet.errors import DataError
from helpers.datasets import DatasetTester
from helpers.layouts import write_montgomery

DATA = DataSection(dataset="montgomery", class_names=("background", "lung"))
SPLIT = builtin_split("montgomery")


@pytest.mark.parametrize("merged", [False, True])
class TestMontgomery(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path, merged):
        return write_montgomery(tmp_path, merged=merged)

    def test_both_lungs_are_in_the_mask(self, opened):
        assert opened["test"].load(0).mask.sum() == 8 * 4 + 8 * 5


class TestRealMontgomery(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, montgomery_root):
        return montgomery_root

    def test_parts_have_the_published_counts_and_lungs_a_plausible_share(self, opened):
        assert (len(opened["all"]), len(opened["test"])) == (80, 58)
        assert 0.15 < (opened["test"].load(0).mask == 1).mean() < 0.45


def test_the_split_has_the_counts_of_the_paper_and_the_same_share_of_tuberculosis():
    assert (len(SPLIT.train), len(SPLIT.test)) == (80, 58)
    shares = [np.mean([name.endswith("_1") for name in part]) for part in (SPLIT.train, SPLIT.test)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_images_of_twelve_bits_use_the_whole_range_with_the_recipe(tmp_path):
    data = load_recipe("montgomery").data
    image = open_dataset(data, write_montgomery(tmp_path), "test").load(0).image
    assert image.max() > 250


def test_a_left_lung_without_a_right_one_is_named(tmp_path):
    (write_montgomery(tmp_path) / "ManualMask/rightMask" / f"{SPLIT.test[0]}.png").unlink()
    with pytest.raises(DataError, match=rf"leftMask/{SPLIT.test[0]}\.png: .* without .*rightMask"):
        open_dataset(DATA, tmp_path, "train")


def test_a_missing_image_of_the_split_is_named(tmp_path):
    write_montgomery(tmp_path, merged=True)
    for folder in ("CXR_png", "masks"):
        (tmp_path / folder / f"{SPLIT.train[3]}.png").unlink()
    with pytest.raises(DataError, match=rf"{SPLIT.train[3]} is missing \(1 of the 138.*unpack the archive again"):
        open_dataset(DATA, tmp_path, "train")


def test_a_copied_image_is_named(tmp_path):
    write_montgomery(tmp_path, merged=True)
    for folder in ("CXR_png", "masks"):
        path = tmp_path / folder / f"{SPLIT.train[0]}.png"
        shutil.copy(path, path.with_stem(f"{path.stem} (1)"))
    with pytest.raises(DataError, match=r" \(1\) \(1 of 139\) is not in the split file of montgomery; remove it"):
        open_dataset(DATA, tmp_path, "train")


def test_a_split_file_of_ones_own_is_followed(tmp_path):
    write_montgomery(tmp_path, merged=True)
    rest = [name for name in (*SPLIT.train, *SPLIT.test) if name not in (SPLIT.test[0], SPLIT.test[1])]
    split = {"train": [SPLIT.test[0]], "test": [SPLIT.test[1]], "excluded": rest}
    (tmp_path / "split.json").write_text(json.dumps(split))
    data = DATA.model_copy(update={"split_file": str(tmp_path / "split.json")})
    assert open_dataset(data, tmp_path, "train").ids == (SPLIT.test[0],)
    assert open_dataset(data, tmp_path, "test").ids == (SPLIT.test[1],)


@pytest.mark.parametrize(
    ("removed", "message"),
    [("CXR_png", "expected the unpacked Montgomery archive"), ("masks", "has neither ManualMask")],
)
def test_missing_folders_are_named(tmp_path, removed, message):
    shutil.rmtree(write_montgomery(tmp_path, merged=True) / removed)
    with pytest.raises(DataError, match=message):
        open_dataset(DATA, tmp_path, "train")
