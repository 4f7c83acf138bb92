from __future__ import annotations

import numpy as np
import pytest

from etnet.config.data_section import DataSection
from etnet.data.datasets import open_dataset
from etnet.errors import DataError
from helpers.datasets import DatasetTester, save
from helpers.layouts import DRISHTI_FOLDERS, write_drishti

NAMES = ("background", "optic_rim", "optic_cup")
DATA = DataSection(dataset="drishti_gs", class_names=NAMES)


@pytest.mark.parametrize("layout", DRISHTI_FOLDERS)
class TestDrishti(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, tmp_path, layout):
        return write_drishti(tmp_path, layout=layout)


class TestRealDrishti(DatasetTester):
    @pytest.fixture
    def data(self):
        return DATA

    @pytest.fixture
    def root(self, drishti_root):
        return drishti_root

    def test_halves_have_the_published_counts(self, opened):
        assert (len(opened["all"]), len(opened["test"])) == (50, 51)
        assert opened["all"].ids[0] == "drishtiGS_002"

    def test_the_cup_of_every_image_has_about_the_ratio_that_its_annotators_measured(self, opened):
        for index in range(0, 51, 10):
            sample = opened["test"].load(index)
            heights = [np.ptp(np.nonzero((sample.mask >= label).any(axis=1))[0]) + 1 for label in (1, 2)]
            assert heights[1] / heights[0] == pytest.approx(sample.reference_cdr, abs=0.12)


def test_rim_cup_and_ratio_are_those_of_the_files(tmp_path):
    sample = open_dataset(DATA, write_drishti(tmp_path), "test").load(0)
    expected = np.zeros((30, 40), np.uint8)
    expected[6:18, 10:22], expected[9:15, 13:19] = 1, 2
    assert np.array_equal(sample.mask, expected)
    assert sample.reference_cdr == pytest.approx(0.5)


def test_two_classes_take_the_disc_as_a_whole(tmp_path):
    data = DataSection(dataset="drishti_gs", class_names=("background", "optic_disc"))
    mask = open_dataset(data, write_drishti(tmp_path), "test").load(0).mask
    assert mask.max() == 1
    assert mask.sum() == 12 * 12


def test_the_recipe_decides_how_many_annotators_must_agree(tmp_path):
    data = DataSection(dataset="drishti_gs", class_names=NAMES, min_annotators=2)
    assert (open_dataset(data, write_drishti(tmp_path), "test").load(0).mask > 0).sum() == 16 * 16


def test_ratios_may_be_missing(tmp_path):
    write_drishti(tmp_path)
    for path in tmp_path.rglob("*cdrValues.txt"):
        path.unlink()
    assert open_dataset(DATA, tmp_path, "test").load(0).reference_cdr is None


@pytest.mark.parametrize(
    ("pattern", "part", "message"),
    [
        (
            "Training/**/drishtiGS_002_ODsegSoftmap.png",
            "train",
            r"drishtiGS_002\.png: has no map of the disc \(1 of 3 images\); expected",
        ),
        (
            "Test/**/*_cupsegSoftmap.png",
            "test",
            r"drishtiGS_051\.png: has no map of the cup \(3 of 3 images\); expected",
        ),
        ("Test/Images/**/*.png", "test", r"holds no images drishtiGS_NNN\.png below a folder Test"),
    ],
)
def test_missing_files_are_named(tmp_path, pattern, part, message):
    for path in list(write_drishti(tmp_path).glob(pattern)):
        path.unlink()
    with pytest.raises(DataError, match=message):
        open_dataset(DATA, tmp_path, part)


def test_an_image_twice_in_one_half_is_refused(tmp_path):
    write_drishti(tmp_path)
    image = next(tmp_path.glob("Training/Images/**/*.png"))
    save(tmp_path / "Training/Images/ALL" / image.name, np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"there is another drishtiGS_.*remove one of the two"):
        open_dataset(DATA, tmp_path, "train")


@pytest.mark.parametrize("text", ["", "0.4 1.7", "none"])
def test_ratios_that_are_none_are_refused(tmp_path, text):
    (path,) = write_drishti(tmp_path, count=1).glob("Test/**/*_cdrValues.txt")
    path.write_text(text)
    with pytest.raises(DataError, match=r"cdrValues\.txt: .*from the archive again"):
        open_dataset(DATA, tmp_path, "test")


def test_other_numbers_of_classes_are_refused(tmp_path):
    data = DataSection(dataset="drishti_gs", class_names=(*NAMES, "vessel"))
    with pytest.raises(DataError, match=r"Drishti-GS has an optic disc and cup; expected data\.class_names of"):
        open_dataset(data, write_drishti(tmp_path), "train")
