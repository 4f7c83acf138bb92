from __future__ import annotations

import json

import numpy as np
import pytest

from etnet.config.data_section import DataSection
from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.errors import DataError
from helpers.datasets import DatasetTester, save
from helpers.layouts import REFUGE_FOLDERS, refuge_mask, write_refuge

NAMES = ("background", "optic_rim", "optic_cup")
DATA = DataSection(dataset="refuge", class_names=NAMES)


@pytest.mark.parametrize("layout", REFUGE_FOLDERS)
class TestRefuge(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path, layout):
        return write_refuge(tmp_path, layout=layout)

    def test_parts_are_those_of_the_challenge(self, opened):
        assert opened["all"].ids == ("g0001", "g0002", "n0001", "n0002", "n0003")
        assert opened["test"].ids == ("V0001", "V0002")


def test_the_built_in_recipe_reads_rim_and_cup(tmp_path):
    mask = open_dataset(load_recipe("refuge").data, write_refuge(tmp_path), "test").load(0).mask
    stored = refuge_mask()
    assert np.array_equal(mask, np.select([stored == 128, stored == 0], [1, 2], 0))


def test_two_classes_take_the_disc_as_a_whole(tmp_path):
    data = DataSection(dataset="refuge", class_names=("background", "optic_disc"))
    mask = open_dataset(data, write_refuge(tmp_path), "test").load(0).mask
    assert np.array_equal(mask, (refuge_mask() < 255).astype(np.uint8))


def test_copies_with_other_values_are_read_by_the_mapping_of_the_recipe(tmp_path):
    write_refuge(tmp_path)
    for path in tmp_path.rglob("*.bmp"):
        save(path, 255 - refuge_mask())
    data = DATA.model_copy(update={"mask_values": {0: 0, 127: 1, 255: 2}})
    assert set(np.unique(open_dataset(data, tmp_path, "test").load(0).mask)) == {0, 1, 2}


def test_the_test_set_stands_in_where_there_is_no_validation_set(tmp_path):
    write_refuge(tmp_path)
    for path in list(tmp_path.rglob("V*.*")):
        path.rename(path.with_name(f"T{path.name[1:]}"))
    assert open_dataset(DATA, tmp_path, "test").ids == ("T0001", "T0002")


def test_drawings_for_the_eye_are_not_taken_for_images(tmp_path):
    write_refuge(tmp_path)
    save(tmp_path / "Annotation-Training400/Illustration/g0001.jpg", np.zeros((30, 40, 3), np.uint8))
    path = open_dataset(DATA, tmp_path, "all").images[0]
    assert path.parent.name == "Glaucoma"


def test_a_split_file_may_draw_from_all_images(tmp_path):
    names = ["g0001", "g0002", "n0001", "n0002", "n0003"]
    split = {"train": ["V0001"], "test": ["g0001"], "excluded": ["V0002", *names[1:]]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    data = DATA.model_copy(update={"split_file": str(tmp_path / "split.json")})
    assert open_dataset(data, write_refuge(tmp_path), "test").ids == ("g0001",)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("**/g*.bmp", r"g0001\.jpg: image without mask \(2 of 5\); expected g0001\.bmp in a folder Disc_Cup_Masks"),
        ("**/n0002.jpg", r"n0002\.bmp: mask without image \(1 of 5\)"),
        ("**/[gn]*.jpg", r"holds no training image of REFUGE; expected g0001\.jpg .*unpack Training400\.zip"),
    ],
)
def test_missing_files_are_named(tmp_path, pattern, message):
    for path in list(write_refuge(tmp_path).glob(pattern)):
        path.unlink()
    with pytest.raises(DataError, match=message):
        open_dataset(DATA, tmp_path, "train")


def test_a_missing_validation_set_is_explained_and_training_still_works(tmp_path):
    for path in list(write_refuge(tmp_path).rglob("V*.*")):
        path.unlink()
    assert len(open_dataset(DATA, tmp_path, "all")) == 5
    with pytest.raises(DataError, match=r"no validation image of REFUGE; expected V0001\.jpg \(or T0001"):
        open_dataset(DATA, tmp_path, "test")


def test_other_numbers_of_classes_are_refused(tmp_path):
    data = DATA.model_copy(update={"class_names": (*NAMES, "vessel")})
    with pytest.raises(DataError, match=r"REFUGE has an optic disc and cup; expected data\.class_names of"):
        open_dataset(data, write_refuge(tmp_path), "train")
