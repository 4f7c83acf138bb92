from __future__ import annotations

import pytest

from etnet.config.load import load_recipe
from etnet.data.check import check_dataset
from etnet.data.check.layout import locate, recognise
from etnet.data.file_tree import list_files
from etnet.errors import DataError, UsageError
from helpers.layouts import write_drishti, write_refuge


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return list_files(root)


@pytest.mark.parametrize(
    ("names", "dataset"),
    [
        (["images/a.png", "masks/a.png"], "folder"),
        (["train/images/a.png", "train/masks/a.png"], "folder"),
        (["images/im0001.ppm", "masks/im0001.png"], "folder"),
        (["stare-images/im0001.ppm.gz"], "stare"),
        (["any/where/g0001.jpg", "any/where/g0001.bmp"], "refuge"),
        (["a/drishtiGS_002.png", "a/x.png"], "drishti_gs"),
        (["both/01_test.tif", "both/02_test.tif", "both/Image_01L.jpg"], "drive"),
    ],
)
def test_a_data_set_is_told_by_the_names_of_its_files(tmp_path, names, dataset):
    assert recognise(touch(tmp_path, *names)) == dataset


def test_sets_in_folders_of_their_own_are_named_with_the_command_for_one(tmp_path):
    files = touch(tmp_path, "b/Image_01L.jpg", "a/01_test.tif")
    with pytest.raises(UsageError, match=r"CHASE_DB1 in b; DRIVE in a\); check one at a time: etnet data check .*/b"):
        recognise(files)


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["Training/01.png", "Training400/g0001.jpg"], None),
        (["Training/drishtiGS_002.png", "Test/drishtiGS_003.png", "Training400/g0001.jpg"], "in Test, Training"),
        (["Training/drishtiGS_002.png", "Training400/g0001.jpg", "Annotation/g0001.bmp"], "in Training"),
        (["drishtiGS_002.png", "Training400/g0001.jpg"], r"in \."),
    ],
)
def test_sets_that_share_a_folder_are_told_apart_by_name_or_moved(tmp_path, names, listed):
    files = touch(tmp_path, *names)
    if listed is None:
        assert recognise(files) == "refuge"
        return
    remedy = rf"{listed}; REFUGE in Training400\); move each .* etnet data check {tmp_path} --dataset drishti_gs$"
    with pytest.raises(UsageError, match=remedy):
        recognise(files)


@pytest.mark.parametrize(("dataset", "pairs"), [("drishti_gs", 3), ("refuge", 5)])
def test_one_of_two_mixed_sets_is_checked_by_its_name(tmp_path, dataset, pairs):
    write_refuge(write_drishti(tmp_path))
    report = check_dataset(tmp_path, load_recipe(dataset))
    assert (report.errors, report.parts["train"].pairs) == (0, pairs)


def test_an_archive_that_was_not_unpacked_is_mentioned(tmp_path):
    with pytest.raises(DataError, match=r"found no picture and Training400\.zip, which is not unpacked; expected"):
        recognise(touch(tmp_path, "Training400.zip"))


def test_a_recipe_decides_without_looking_at_names(tmp_path):
    home, recipe = locate(touch(tmp_path, "a/01_test.tif"), load_recipe("stare"))
    assert (home, recipe.data.dataset) == (tmp_path, "stare")


@pytest.mark.parametrize("name", ["CXR_png/MCUCXR_0001_0.png", "deep/er/CXR_png/MCUCXR_0001_0.png"])
def test_the_folder_that_the_opener_wants_is_found_below(tmp_path, name):
    home, _ = locate(touch(tmp_path, name), None)
    assert home == (tmp_path / name).parents[1]
