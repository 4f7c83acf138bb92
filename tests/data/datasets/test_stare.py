from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.errors import DataError
from helpers.datasets import DatasetTester, save
from helpers.layouts import write_stare

DATA = load_recipe("stare").data


@pytest.mark.parametrize("together", [False, True], ids=["folders", "one folder"])
class TestStare(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path, together):
        root = write_stare(tmp_path)
        if together:
            for path in list(root.rglob("*.ppm")):
                path.rename(root / path.name)
        return root

    def test_halves_are_in_the_order_of_numbers(self, opened):
        assert (len(opened["all"]), len(opened["test"])) == (10, 10)
        assert opened["all"].ids[-1] == "im0139"
        assert opened["test"].ids[0] == "im0162"

    def test_the_first_observer_is_the_truth(self, opened):
        dataset = opened["test"]
        assert all(mask.path.name.endswith(".ah.ppm") for mask in dataset.masks)
        assert 0 < dataset.load(0).mask.mean() < 0.5


def test_images_of_the_larger_collection_are_left_out(tmp_path):
    root = write_stare(tmp_path)
    save(root / "stare-images/im0300.ppm", np.zeros((22, 26, 3), np.uint8))
    assert len(open_dataset(DATA, root, "train")) == 9


@pytest.mark.skipif(shutil.which("gunzip") is None, reason="needs gunzip")
def test_the_command_for_compressed_files_does_what_it_says(tmp_path):
    root = write_stare(tmp_path / "my data", compressed=True)
    with pytest.raises(DataError, match=r"im0001\.ah\.ppm\.gz: compressed .*; run: find ") as refusal:
        open_dataset(DATA, root, "train")
    subprocess.run(str(refusal.value).rpartition("run: ")[2], shell=True, check=True)
    assert len(open_dataset(DATA, root, "test")) == 10


def test_missing_labels_are_named(tmp_path):
    shutil.rmtree(write_stare(tmp_path) / "labels-ah")
    with pytest.raises(DataError, match=r"im0001\.ppm: image without mask \(20 of 20\); expected im0001\.ah\.ppm"):
        open_dataset(DATA, tmp_path, "train")


def test_a_folder_without_images_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"no image of STARE; expected im0001\.ppm"):
        open_dataset(DATA, tmp_path, "train")
