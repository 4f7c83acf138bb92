from __future__ import annotations

import cv2
import numpy as np
import pytest

from etnet.config.data_section import DataSection
from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.data.datasets.lung_ct import scan_split
from etnet.errors import DataError
from helpers.datasets import DatasetTester
from helpers.layouts import write_lung_ct

DATA = load_recipe("lung_ct").data


@pytest.mark.parametrize("nested", ["", "finding-lungs-in-ct-data/2d_images"], ids=["flat", "nested"])
class TestLungCT(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path, nested):
        write_lung_ct(tmp_path / nested, scans=8, slices=2)
        return tmp_path

    def test_a_scan_is_on_one_side_only(self, opened):
        scans = {split: {name[:7] for name in opened[split].ids} for split in ("train", "validation", "test")}
        assert scans["train"].isdisjoint(scans["validation"])
        assert (scans["train"] | scans["validation"]).isdisjoint(scans["test"])


def test_hounsfield_units_are_seen_through_the_window_of_the_recipe(tmp_path):
    root = write_lung_ct(tmp_path)
    dataset = open_dataset(DATA, root, "test")
    units = cv2.imread(str(dataset.images[0]), cv2.IMREAD_UNCHANGED).astype(float)
    low, high = DATA.intensity_window
    expected = np.rint(np.clip((units - low) / (high - low), 0, 1) * 255)
    sample = dataset.load(0)
    assert np.abs(sample.image - expected[..., None]).max() <= 1
    assert np.array_equal(sample.mask, units < -300)


def test_without_a_window_the_sentence_names_the_recipe_key(tmp_path):
    data = DATA.model_copy(update={"intensity_window": None})
    with pytest.raises(DataError, match=r"have no fixed range; .*data\.intensity_window"):
        open_dataset(data, write_lung_ct(tmp_path), "test").load(0)


def test_the_split_of_the_whole_set_has_the_counts_of_the_paper():
    split = scan_split([f"ID_{number:04d}_Z_0100" for number in range(267)])
    assert (len(split.train), len(split.test)) == (214, 53)


def test_the_split_does_not_depend_on_the_order_of_files_nor_much_on_missing_ones():
    names = [f"ID_{number:04d}_Z_0100" for number in range(267)]
    whole = set(scan_split(names).test)
    assert set(scan_split(names[::-1]).test) == whole
    assert len(whole - set(scan_split(names[:250]).test)) <= 10


def test_a_slice_without_mask_is_named(tmp_path):
    (write_lung_ct(tmp_path) / "2d_masks" / "ID_0003_Z_0142.tif").unlink()
    with pytest.raises(
        DataError, match=r"ID_0003_Z_0142\.tif: image without mask \(1 of 10\); expected 2d_masks/ID_0003"
    ):
        open_dataset(DATA, tmp_path, "train")


def test_a_folder_without_slices_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"no slice of lung CT; expected 2d_images/ID_0000_Z_0142\.tif"):
        open_dataset(DATA, tmp_path, "train")


def test_a_recipe_with_other_classes_is_refused(tmp_path):
    data = DataSection(dataset="lung_ct", class_names=("background", "left", "right"))
    with pytest.raises(DataError, match="two classes; expected background and lung"):
        open_dataset(data, write_lung_ct(tmp_path), "train")
