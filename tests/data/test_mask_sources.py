from __future__ import annotations

import numpy as np
import pytest

from etnet.data.mask_sources import DiscCupMask, MaskFile, MaskRefused, SoftMapMask, UnionMask
from etnet.errors import DataError
from helpers.datasets import save


def soft_maps(folder, disc: np.ndarray, cup: np.ndarray, *, min_annotators: int = 3) -> SoftMapMask:
    """Maps of how many of four annotators agree, with the values of Drishti-GS."""
    values = np.array([0, 64, 128, 191, 255], np.uint8)
    return SoftMapMask(save(folder / "d.png", values[disc]), save(folder / "c.png", values[cup]), min_annotators)


def nested(size: int = 5) -> np.ndarray:
    """Annotators 0 .. 4 in columns."""
    return np.tile(np.arange(5), (size, 1))


@pytest.mark.parametrize("min_annotators", [1, 2, 3, 4])
def test_a_pixel_belongs_to_a_structure_from_the_given_number_of_annotators_on(tmp_path, min_annotators):
    disc, cup = nested(), np.where(np.arange(5)[:, None] < 2, nested(), 0)
    mask = soft_maps(tmp_path, disc, cup, min_annotators=min_annotators).read()
    assert np.array_equal(mask, (disc >= min_annotators).astype(int) + (cup >= min_annotators))


@pytest.mark.parametrize(("empty", "name"), [("disc", "d.png"), ("cup", "c.png")])
def test_an_empty_structure_is_refused_by_file(tmp_path, empty, name):
    maps = {"disc": nested(), "cup": nested()}
    maps[empty] = np.minimum(maps[empty], 2)
    with pytest.raises(DataError, match=rf"{name}: 3 of 4 annotators agree on no pixel of the {empty}"):
        soft_maps(tmp_path, **maps).read()


@pytest.mark.parametrize(("highest", "offered"), [(3, False), (2, True)])
def test_fewer_annotators_are_only_offered_where_that_would_help(tmp_path, highest, offered):
    source = soft_maps(tmp_path, nested(), np.minimum(nested(), 2))
    if not offered:
        save(source.cup, np.tile(np.arange(highest + 1, dtype=np.uint8), (5, 2))[:, :5])
    with pytest.raises(MaskRefused) as refusal:
        source.read()
    assert ("lower data.min_annotators" in str(refusal.value)) == offered
    assert refusal.value.path == source.cup


def test_a_cup_outside_its_disc_is_refused_by_file(tmp_path):
    disc = np.zeros((10, 10), int)
    disc[:, :5] = 4
    with pytest.raises(DataError, match=r"c\.png: 100% of the cup lie outside the disc of d\.png"):
        soft_maps(tmp_path, disc, 4 - disc).read()


def test_a_stray_pixel_of_the_cup_is_no_cup(tmp_path):
    disc = np.full((20, 20), 4)
    disc[0, 0] = 0
    mask = soft_maps(tmp_path, disc, np.full((20, 20), 4)).read()
    assert mask[0, 0] == 0
    assert (mask.ravel()[1:] == 2).all()


def test_maps_of_different_sizes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"c\.png: the mask is 5x4 pixels; expected 5x5 as in d\.png"):
        soft_maps(tmp_path, nested(5), nested(4)).read()


def test_left_and_right_are_joined(tmp_path):
    left, right = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    left[:, :2], right[:, 4:] = 255, 255
    mask = UnionMask((save(tmp_path / "l.png", left), save(tmp_path / "r.png", right)))
    assert np.array_equal(mask.read(), (left | right) // 255)
    assert mask.files == (tmp_path / "l.png", tmp_path / "r.png")


def test_smoothed_borders_are_cut_at_half(tmp_path):
    mask = UnionMask((save(tmp_path / "m.png", np.array([[0, 127, 128, 255]], np.uint8)),))
    assert mask.read().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("highest", [2, 7, 127])
def test_greys_without_white_are_refused_by_file_and_value(tmp_path, highest):
    white = save(tmp_path / "l.png", np.array([[0, 255]], np.uint8))
    grey = save(tmp_path / "r.png", np.array([[0, highest]], np.uint8))
    with pytest.raises(
        MaskRefused, match=rf"r\.png: mask holds values 0, {highest}, of which none is above"
    ) as refusal:
        UnionMask((white, grey)).read()
    assert refusal.value.path == grey


@pytest.mark.parametrize("stored", [np.array([[0, 1]], np.uint8), np.array([[False, True]])])
def test_masks_of_zero_and_one_are_understood(tmp_path, stored):
    assert UnionMask((save(tmp_path / "m.png", stored),)).read().tolist() == [[0, 1]]


def test_one_file_gives_its_own_values(tmp_path):
    assert MaskFile(save(tmp_path / "m.png", np.array([[3, 200]], np.uint8))).read().tolist() == [[3, 200]]


def disc_cup(path, *, stored=(255, 128, 0)):
    background, rim, cup = stored
    mask = np.full((20, 20), background, np.uint8)
    mask[4:14, 4:14], mask[6:10, 6:10] = rim, cup
    return mask, DiscCupMask(path, rim=rim, cup=cup)


def test_a_disc_with_its_cup_keeps_its_values(tmp_path):
    mask, source = disc_cup(tmp_path / "m.bmp")
    save(source.path, mask)
    assert np.array_equal(source.read(), mask)


def test_a_cup_that_reaches_the_border_of_the_disc_is_inside(tmp_path):
    mask, source = disc_cup(tmp_path / "m.bmp")
    mask[4:10, 6:10] = 0
    save(source.path, mask)
    assert np.array_equal(source.read(), mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: np.where(mask == 0, 128, mask), r"holds no cup of the optic disc \(value 0\), but 128, 255"),
        (lambda mask: np.where(mask == 128, 255, mask), r"holds no rim of the optic disc \(value 128\), but 0, 255"),
        (lambda mask: np.where(np.arange(20) > 17, 0, mask), r"71% of the cup lie outside the disc"),
    ],
    ids=["empty cup", "empty rim", "cup outside"],
)
def test_a_disc_or_cup_that_cannot_be_is_refused(tmp_path, change, message):
    mask, source = disc_cup(tmp_path / "m.bmp")
    save(source.path, change(mask).astype(np.uint8))
    with pytest.raises(DataError, match=message):
        source.read()
