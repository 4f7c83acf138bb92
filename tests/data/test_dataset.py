from __future__ import annotations

import numpy as np
import pytest

from etnet.config.data_section import DataSection
from etnet.data.dataset import image_files, match_names, natural_key
from etnet.data.datasets import open_dataset
from etnet.errors import DataError
from helpers.datasets import save, write_pairs

PIXEL = np.zeros((2, 2), np.uint8)


def test_names_are_sorted_as_people_count():
    names = ["b10", "b9", "a2", "a", "10", "9", "b09", "B1"]
    assert sorted(names, key=natural_key) == ["9", "10", "B1", "a", "a2", "b09", "b9", "b10"]


def test_superscript_digits_are_letters():
    assert sorted(["a²", "a1"], key=natural_key) == ["a1", "a²"]


def test_folder_gives_pictures_by_stem_and_nothing_else(tmp_path):
    for name in ("b10.png", "b9.PNG", "a.tif", ".hidden.png", "._a.tif"):
        save(tmp_path / name.replace(".PNG", ".png"), PIXEL).rename(tmp_path / name)
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "readme.txt").touch()
    (tmp_path / "folder.png").mkdir()
    assert list(image_files(tmp_path)) == ["a", "b9", "b10"]


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="none: no such folder"):
        image_files(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no pictures; expected files that end in \.png"):
        image_files(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path):
    save(tmp_path / "a.png", PIXEL)
    save(tmp_path / "a.bmp", PIXEL)
    with pytest.raises(DataError, match=r"a\.bmp and a\.png share the name 'a'"):
        image_files(tmp_path)


def test_image_without_mask_is_named_with_an_example_of_how_masks_are_called(tmp_path):
    images = {name: tmp_path / "images" / f"{name}.png" for name in ("a", "b")}
    masks = {"a_mask": tmp_path / "masks" / "a_mask.png"}
    with pytest.raises(DataError, match=r"images/a\.png: image without mask \(2 of 2\).*one is named 'a_mask'"):
        match_names(images, masks)


def test_mask_without_image_is_named(tmp_path):
    paths = {name: tmp_path / f"{name}.png" for name in ("a", "b")}
    with pytest.raises(DataError, match=r"b\.png: mask without image \(1 of 2\)"):
        match_names({"a": paths["a"]}, paths)


def test_a_file_that_changes_its_size_after_opening_is_noticed(tmp_path):
    write_pairs(tmp_path, ["a"])
    dataset = open_dataset(DataSection(), tmp_path, "all")
    save(tmp_path / "masks" / "a.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(DataError, match=r"masks/a\.png: the mask is 6x5 pixels; expected 20x24 as in a\.png"):
        dataset.load(0)
