from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from etnet.config.data_section import DataSection
from etnet.errors import DataError
from etnet.planning import survey as surveying
from etnet.planning.classes import plan_classes
from etnet.planning.survey import Survey, find_pairs, patient_pattern, survey


def write_folder(root: Path, masks: list[np.ndarray], images: list[np.ndarray] | None = None) -> Path:
    """A folder of these masks, with grey images of the same sizes unless some are given."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index, mask in enumerate(masks):
        image = np.full((*mask.shape, 3), 90, np.uint8) if images is None else images[index]
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    return root


def surveyed(root: Path) -> Survey:
    pairs, summaries = find_pairs(root, DataSection())
    return survey(pairs, summaries, plan_classes(summaries, None))


def stripe(width: int, size: int = 200) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : size // 4 + width] = 255
    return mask


@pytest.mark.parametrize(("width", "found"), [(2, 3), (4, 5), (8, 9), (20, 25), (60, 65)])
def test_the_width_of_a_stripe_is_that_of_the_smallest_disc_that_does_not_fit(tmp_path, width, found):
    (structure,) = surveyed(write_folder(tmp_path, [stripe(width)])).structures
    assert structure.width_px == found
    assert structure.extent_px == 200
    assert structure.share == pytest.approx(width / 200)


def test_the_width_is_that_of_opening_with_discs(tmp_path):
    generator = np.random.default_rng(0)
    mask = np.zeros((180, 240), np.uint8)
    for _ in range(12):
        ends = generator.integers(20, 160, (2, 2)).tolist()
        cv2.line(mask, *ends, 255, int(generator.integers(3, 14)))
    (structure,) = surveyed(write_folder(tmp_path, [mask])).structures
    area = np.count_nonzero(mask)
    left = {
        width: np.count_nonzero(
            cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
        )
        for width in (3, 5, 7, 9, 13, 17, 25, 33)
    }
    expected = next(width for width, rest in left.items() if rest < area / 2)
    steps = list(left)
    assert abs(steps.index(structure.width_px) - steps.index(expected)) <= 1


def test_pieces_holes_and_presence_are_counted(tmp_path):
    two = cv2.circle(cv2.circle(np.zeros((120, 160), np.uint8), (40, 60), 30, 255, -1), (120, 60), 25, 255, -1)
    speckled = cv2.circle(two.copy(), (80, 5), 2, 255, -1)
    ring = cv2.circle(cv2.circle(np.zeros((120, 160), np.uint8), (80, 60), 40, 255, -1), (80, 60), 10, 0, -1)
    found = surveyed(write_folder(tmp_path, [two, speckled, ring, np.zeros((120, 160), np.uint8)]))
    (structure,) = found.structures
    assert structure.images == 3
    assert structure.components == (1, 2)
    assert structure.holes
    assert (found.pairs, found.surveyed, found.size, found.same_shape) == (4, 4, (120, 160), True)


def test_one_piece_in_every_mask_is_a_spot(tmp_path):
    spots = [cv2.circle(np.zeros((100, 200), np.uint8), (60, 40), radius, 1, -1) for radius in (10, 20)]
    cup = cv2.circle(spots[1].copy(), (60, 40), 8, 2, -1)
    found = surveyed(write_folder(tmp_path / "a", [spots[0], cup]))
    assert found.spot == pytest.approx(41 / 200)
    assert found.spot_area == pytest.approx(np.count_nonzero(spots[0]) / spots[0].size)
    apart = cv2.circle(spots[1].copy(), (150, 40), 12, 1, -1)
    assert surveyed(write_folder(tmp_path / "b", [spots[0], apart])).spot is None
    assert surveyed(write_folder(tmp_path / "c", [spots[0], 0 * apart])).spot is None


def test_an_empty_mask_among_those_that_are_not_looked_at_makes_it_no_spot(tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "SURVEYED", 2)
    spot = cv2.circle(np.zeros((100, 200), np.uint8), (60, 40), 10, 1, -1)
    assert surveyed(write_folder(tmp_path / "all", [spot, spot, spot])).spot is not None
    assert surveyed(write_folder(tmp_path / "one", [spot, 0 * spot, spot])).spot is None


def test_a_rare_class_is_looked_at_wherever_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "SURVEYED", 2)
    monkeypatch.setattr(surveying, "OF_A_RARE_CLASS", 1)
    usual = stripe(20) // 255
    rare = usual.copy()
    rare[100:108] = 2
    found = surveyed(write_folder(tmp_path, [usual, rare, rare, usual]))
    assert (found.pairs, found.surveyed) == (4, 3)
    assert [(one.name, one.images, one.width_px) for one in found.structures] == [("class_1", 3, 25), ("class_2", 1, 9)]


def test_pixels_without_a_label_are_not_counted(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[:10], mask[10:30] = 1, 255
    (structure,) = surveyed(write_folder(tmp_path, [mask])).structures
    assert structure.share == pytest.approx(0.5)


def test_the_window_of_images_of_more_than_8_bits_holds_nearly_all_pixels(tmp_path):
    image = np.full((50, 50), 1000, np.uint16)
    image[:10], image[10:20] = 100, 4000
    image[49, 49] = 65535
    found = surveyed(write_folder(tmp_path, [stripe(6, 50)], [image]))
    assert found.window == (100, 4000)
    assert found.kinds == {"grey 16-bit": 1}


@pytest.mark.parametrize(
    ("values", "window"),
    [
        ([-1000.4, 400.2], (-1001, 401)),
        ([-0.25, 0.75], (-0.25, 0.75)),
        ([np.nan, 0.5], (0.5, 1.5)),
    ],
)
def test_the_window_of_numbers_with_a_fraction_lies_around_them(tmp_path, values, window):
    image = np.full((50, 50), values[1], np.float32)
    image[:20] = values[0]
    root = write_folder(tmp_path, [stripe(6, 50)])
    (root / "images" / "0.png").unlink()
    Image.fromarray(image).save(root / "images" / "0.tif")
    assert surveyed(root).window == pytest.approx(window)


def test_images_of_several_shapes_are_told(tmp_path):
    found = surveyed(write_folder(tmp_path, [stripe(5, 100), stripe(5, 100)[:60], stripe(5, 100)]))
    assert found.sizes == {(100, 100): 2, (60, 100): 1}
    assert not found.same_shape


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["p1_l", "p1_r", "p2_l", "p2_r"], "(.+)_[^_]+"),
        (["p-1-x", "p-1-y", "p-2-x", "p-2-y"], r"(.+)\-[^\-]+"),
        (["case_1", "case_2", "case_3"], None),
        (["21_training", "22_training"], None),
        (["a_l", "a_r", "b_l", "plain"], None),
        (["left_001", "right_001", "left_002", "right_002"], "(?i:left|right|od|os|l|r)[_ -](.+)"),
        (["OD-7", "OS-7", "OD-8", "OS-8"], "(?i:left|right|od|os|l|r)[_ -](.+)"),
        (["left_001", "right_002", "left_003", "right_004"], None),
        (["benign (1)", "benign (2)", "malignant (1)", "malignant (2)"], None),
        ([f"{name}_{number}" for name in "abcdefghij" for number in (1, 2)], "(.+)_[^_]+"),
    ],
)
def test_patients_are_told_by_prefixes_that_repeat(names, pattern):
    assert patient_pattern(names) == pattern


def test_an_empty_structure_is_refused(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    root = write_folder(tmp_path, [mask])
    with pytest.raises(DataError, match="hold only the value 0"):
        surveyed(root)


def test_a_mask_of_another_size_is_refused(tmp_path):
    root = write_folder(tmp_path, [stripe(5)], [np.zeros((100, 200, 3), np.uint8)])
    with pytest.raises(DataError, match="200x200 pixels; expected 200x100"):
        surveyed(root)
