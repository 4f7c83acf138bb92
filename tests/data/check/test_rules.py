"""What the values in the masks of known data sets tell."""

from __future__ import annotations

import numpy as np
import pytest

from etnet.data.check import check_dataset
from etnet.data.splits import builtin_split
from helpers.checks import findings, the_error
from helpers.datasets import save
from helpers.layouts import write_drishti, write_montgomery


def test_lungs_that_are_nowhere_above_the_threshold(tmp_path):
    root = write_montgomery(tmp_path, merged=True)
    for path in (root / "masks").iterdir():
        save(path, np.array([[0, 7] * 8] * 12, np.uint8))
    finding = the_error(root, "mask-content")
    assert "mask holds values 0, 7, of which none is above 127" in finding.sentence
    assert "expected 0 and 255, or 0 and 1; copy the mask from the archive again" in finding.sentence
    report = check_dataset(root)
    assert findings(report, "smoothed-masks") == findings(report, "mask-of-background") == []
    assert not report.values[7].expected


def test_lungs_that_are_black_in_every_mask(tmp_path):
    root = write_montgomery(tmp_path)
    for path in (root / "ManualMask").rglob("*.png"):
        save(path, np.zeros((12, 16), np.uint8))
    finding = the_error(root, "no-structure")
    assert len(finding.files) == 80
    assert "holds only the value 0, as do all 80 masks of this part" in finding.sentence
    assert {one.rule for one in check_dataset(root).findings} & {"mask-of-background", "black-mask-file"} == set()


@pytest.mark.parametrize("side", ["leftMask", "rightMask"])
def test_one_black_lung_of_two(tmp_path, side):
    root = write_montgomery(tmp_path)
    path = root / "ManualMask" / side / f"{builtin_split('montgomery').train[5]}.png"
    save(path, np.zeros((12, 16), np.uint8))
    report = check_dataset(root)
    (finding,) = findings(report, "black-mask-file")
    assert (report.errors, finding.severity, finding.files) == (0, "warning", (path,))
    assert finding.sentence.startswith(f"{path}: mask holds only the value 0")


def test_the_lung_file_without_white_is_the_one_that_is_blamed(tmp_path):
    root = write_montgomery(tmp_path)
    path = root / "ManualMask" / "rightMask" / f"{builtin_split('montgomery').train[5]}.png"
    save(path, np.full((12, 16), 7, np.uint8))
    assert the_error(root, "mask-content").files == (path,)


def test_greys_of_resized_lungs_are_divided_and_expected(tmp_path):
    root = write_montgomery(tmp_path, merged=True)
    mask = np.repeat(np.array([[0, 60, 190, 255]], np.uint8), 12, axis=0).repeat(4, axis=1)
    save(root / "masks" / f"{builtin_split('montgomery').train[5]}.png", mask)
    report = check_dataset(root)
    assert [len(finding.files) for finding in findings(report, "smoothed-masks")] == [1]
    assert {value: (count.expected, count.threshold) for value, count in report.values.items()} == {
        0: (True, None),
        60: (True, 127),
        190: (True, 127),
        255: (True, None),
    }


def test_masks_without_white_are_noted_with_their_values(tmp_path):
    root = write_montgomery(tmp_path, merged=True)
    odd = {root / "masks" / f"{name}.png" for name in builtin_split("montgomery").train[:2]}
    for path in odd:
        save(path, np.array([[0, 200] * 8] * 12, np.uint8))
    report = check_dataset(root)
    (finding,) = findings(report, "no-white-in-mask")
    assert (finding.severity, tuple(sorted(finding.files))) == ("note", tuple(sorted(odd)))
    assert "no white but values up to 200" in finding.sentence
    assert "with the values 0, 200)" in finding.sentence
    assert "values above 127 count as the structure" in finding.sentence
    assert findings(report, "smoothed-masks") == []
    assert report.errors == 0


def test_a_cup_map_of_counts_is_blamed_with_its_values_and_not_the_disc(tmp_path):
    root = write_drishti(tmp_path)
    path = next(root.rglob("drishtiGS_003_cupsegSoftmap.png"))
    save(path, np.tile(np.arange(4, dtype=np.uint8), (30, 10)))
    finding = the_error(root, "mask-content")
    assert finding.files == (path,)
    assert "got values 0, 1, 2, 3, expected 0, 64, 128, 191, 255" in finding.sentence
    assert finding.sentence.endswith("copy the map from the archive again, or leave the image out")
