from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from etnet.config.schema import default_color
from etnet.data.io import read_image, read_mask_values
from etnet.data.synthetic import CLASS_NAMES, draw_fundus, write_fundus_dataset
from etnet.errors import EnvironmentFault, UsageError

BACKGROUND, VESSEL, DISC, CUP = range(4)


@pytest.fixture(scope="module")
def photographs():
    return [draw_fundus(size=256, generator=np.random.default_rng(seed)) for seed in range(6)]


def test_every_photograph_holds_every_class_in_believable_shares(photographs):
    for sample in photographs:
        shares = np.bincount(sample.mask.ravel(), minlength=4) / sample.mask.size
        assert len(shares) == len(CLASS_NAMES)
        assert 0.03 < shares[VESSEL] < 0.15
        assert 0.005 < shares[DISC] < 0.03
        assert 0.001 < shares[CUP] < shares[DISC] + 0.01


def test_the_cup_lies_inside_the_disc_and_both_are_one_piece(photographs):
    for sample in photographs:
        whole = sample.mask >= DISC
        assert ndimage.label(whole)[1] == 1
        assert ndimage.label(sample.mask == CUP)[1] == 1
        rim = ndimage.binary_dilation(sample.mask == CUP) & (sample.mask != CUP)
        assert (sample.mask[rim] == DISC).all()


def test_masks_mark_what_is_seen(photographs):
    for sample in photographs:
        light = sample.image.astype(float).mean(axis=2)
        around = ndimage.binary_dilation(sample.mask == VESSEL, iterations=4) & (sample.mask == BACKGROUND)
        assert light[sample.mask == VESSEL].mean() < 0.93 * light[around & sample.field_of_view].mean()
        assert (
            light[sample.mask == CUP].mean()
            > light[sample.mask == DISC].mean()
            > 1.2 * light[sample.field_of_view].mean()
        )


def test_the_fundus_is_orange_red_and_dark_outside_the_field_of_view(photographs):
    for sample in photographs:
        red, green, blue = sample.image[sample.field_of_view].mean(axis=0)
        assert red > 1.4 * green > 1.4 * 1.4 * blue
        outside = ~ndimage.binary_dilation(sample.field_of_view, iterations=6)
        assert sample.image[outside].mean() < 6
        assert not sample.mask[~sample.field_of_view].any()


def test_eyes_are_left_and_right_and_discs_differ(photographs):
    columns = [np.argwhere(sample.mask >= DISC)[:, 1].mean() for sample in photographs]
    assert min(columns) < 128 < max(columns)
    assert len({int((sample.mask >= DISC).sum()) for sample in photographs}) > 3


@pytest.mark.parametrize("size", [64, 97])
def test_small_and_odd_sizes_are_drawn(size):
    sample = draw_fundus(size=size, generator=np.random.default_rng(0))
    assert sample.image.shape == (size, size, 3)
    assert set(np.unique(sample.mask).tolist()) == {0, 1, 2, 3}


def test_data_set_has_the_layout_of_folder_and_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_fundus_dataset(tmp_path / name, train=2, test=1, size=64, seed=seed)
    names = sorted(path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.png"))
    assert names == [
        "images/train_001.png",
        "images/train_002.png",
        "masks/train_001.png",
        "masks/train_002.png",
        "test/images/test_001.png",
        "test/masks/test_001.png",
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    images = [read_image(tmp_path / name) for name in ("a/images/train_001.png", "a/images/train_002.png")]
    images += [read_image(tmp_path / name) for name in ("a/test/images/test_001.png", "c/images/train_001.png")]
    assert len({image.tobytes() for image in images}) == 4


def test_masks_hold_indices_and_show_class_colors(tmp_path):
    write_fundus_dataset(tmp_path, train=1, test=0, size=64, seed=0)
    mask = tmp_path / "masks" / "train_001.png"
    values = read_mask_values(mask)
    assert set(np.unique(values).tolist()) == {0, 1, 2, 3}
    assert tuple(read_image(mask)[values == CUP][0].tolist()) == default_color(CUP)
    assert not (tmp_path / "test").exists()


def test_impossible_sizes_and_counts_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match=r"32 pixels cannot be drawn; expected .* a size from 64"):
        write_fundus_dataset(tmp_path, train=1, test=0, size=32, seed=0)
    with pytest.raises(UsageError, match="counts from 0"):
        write_fundus_dataset(tmp_path, train=-1, test=0, size=64, seed=0)


def test_a_folder_that_cannot_be_made_is_an_environment_fault(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="could not be made"):
        write_fundus_dataset(tmp_path / "file", train=1, test=0, size=64, seed=0)
