from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etnet.config.data_section import AugmentationSection, RoiSection
from etnet.data.roi import Window, cut, cut_mask, mask_center, paste, window_around
from etnet.data.transforms import augment, crop_outline
from etnet.errors import DataError
from etnet.types import RegionOfInterest, Sample

STILL = AugmentationSection(mirror=0.0, scale=(1.0, 1.0), rotation=0.0, color_jitter=0.0)
windows = st.builds(Window, st.integers(-70, 90), st.integers(-70, 90), st.integers(1, 60))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample_with_disc(center: tuple[int, int], *, radius: int = 20, shape: tuple[int, int] = (300, 400)) -> Sample:
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    disc = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2
    image = np.stack([rows % 251, columns % 251, disc * 200], axis=2).astype(np.uint8)
    return Sample("eye", image, disc.astype(np.uint8))


@pytest.mark.parametrize("seed", range(4))
def test_the_centre_is_that_of_all_pixels_to_the_last_bit(seed):
    random = np.random.default_rng(seed)
    mask = np.zeros((900, 1100), np.uint8)
    mask[200:700, 300:1000] = random.choice([0, 1, 2, 255], (500, 700), p=[0.97, 0.01, 0.01, 0.01])
    for ignore_index in (None, 255):
        rows, columns = np.nonzero((mask > 0) & (mask != ignore_index))
        expected = (int(rows.sum()) / len(rows) + 0.5, int(columns.sum()) / len(columns) + 0.5)
        assert mask_center(mask, ignore_index=ignore_index) == expected


def test_the_centre_of_one_pixel_is_its_middle():
    mask = np.zeros((5, 7), np.uint8)
    mask[2, 4] = 2
    assert mask_center(mask) == (2.5, 4.5)


def test_the_centre_is_the_mean_over_all_classes_but_background_and_ignored_pixels():
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (31, 17))
    rows, columns = np.nonzero((mask > 0) & (mask < 255))
    assert mask_center(mask, ignore_index=255) == pytest.approx((rows.mean() + 0.5, columns.mean() + 0.5))


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_without_structure_has_no_centre(value):
    assert mask_center(np.full((4, 4), value, np.uint8), ignore_index=255) is None


def test_the_side_is_a_share_of_the_width_in_whole_pixels():
    window = window_around((100.4, 200.6), (875, 1024), RegionOfInterest(0.26, 512))
    assert window == Window(top=-33, left=68, side=266)


@given(window=windows)
def test_cutting_at_the_same_size_copies_pixels_and_reflects_beyond_the_border(window):
    image = picture(80, 90)
    padded = np.pad(image, [(200, 200), (200, 200), (0, 0)], mode="reflect")
    expected = padded[200 + window.top :, 200 + window.left :][: window.side, : window.side]
    assert np.array_equal(cut(image, window, window.side), expected)


@given(window=windows)
def test_pasting_returns_what_was_cut_to_its_place(window):
    image = picture(80, 90)
    maps = cut(image, window, window.side).transpose(2, 0, 1).astype(np.float32)
    inside = window.inside((80, 90))
    assert np.array_equal(paste(maps, window, (80, 90)), np.where(inside, image.transpose(2, 0, 1), 0))


def test_an_image_of_one_pixel_is_repeated():
    image = np.full((1, 1, 3), 7, np.uint8)
    assert (cut(image, Window(-3, 2, 8), 8) == 7).all()


@pytest.mark.parametrize("center", [(150, 200), (10, 390), (299, 5)])
def test_a_still_crop_is_the_region_that_prediction_cuts(center):
    sample = sample_with_disc(center)
    roi = RoiSection(side=0.16, size=64, jitter=0.0)
    crop = augment(sample, crop_size=64, augmentation=STILL, edge_width=3, roi=roi, generator=np.random.default_rng(0))
    window = window_around(mask_center(sample.mask), sample.mask.shape, roi)
    assert window.side == roi.size
    assert np.array_equal(crop.image, cut(sample.image, window, 64))


def test_a_resized_still_crop_differs_from_the_region_of_prediction_by_rounding_only():
    sample = sample_with_disc((150, 200))
    roi = RoiSection(side=0.16, size=128, jitter=0.0)
    crop = augment(sample, crop_size=128, augmentation=STILL, edge_width=3, roi=roi, generator=np.random.default_rng(0))
    region = cut(sample.image, window_around(mask_center(sample.mask), sample.mask.shape, roi), 128)
    # A warp interpolates with 5 bits of position, resizing with 11.
    assert np.abs(crop.image[1:-1, 1:-1].astype(int) - region[1:-1, 1:-1]).max() <= 7


def test_training_moves_the_centre_by_no_more_than_the_jitter():
    sample = sample_with_disc((150, 200))
    roi = RoiSection(side=0.25, size=128, jitter=0.1)
    centers = []
    for seed in range(200):
        outline = crop_outline(
            sample, crop_size=128, augmentation=STILL, roi=roi, generator=np.random.default_rng(seed)
        )
        centers.append(outline.mean(axis=0)[::-1])
    moved = np.abs(np.array(centers) - mask_center(sample.mask))
    assert 8.0 < moved.max() <= 10.5
    assert np.unique(np.round(centers, 2), axis=0).shape[0] > 100


def test_what_lies_around_the_region_is_seen_where_the_scale_reaches_beyond_it():
    sample = sample_with_disc((150, 200))
    smaller = AugmentationSection(mirror=0.0, scale=(0.5, 0.5), rotation=0.0, color_jitter=0.0)
    roi = RoiSection(side=0.16, size=64, jitter=0.0)
    crop = augment(
        sample, crop_size=64, augmentation=smaller, edge_width=3, roi=roi, generator=np.random.default_rng(3)
    )
    outline = crop_outline(sample, crop_size=64, augmentation=smaller, roi=roi, generator=np.random.default_rng(3))
    assert np.ptp(outline, axis=0) == pytest.approx([128, 128])
    # Rows and columns are written into the first two channels: reflected ones would not go on rising.
    assert (np.diff(crop.image[:, 32, 0].astype(int)) > 0).all()


def test_a_sample_without_structure_is_named():
    sample = Sample("blank", picture(64, 64), np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError, match=r"blank: its mask holds only background.*leave the image out"):
        augment(
            sample,
            crop_size=32,
            augmentation=STILL,
            edge_width=3,
            roi=RoiSection(side=0.5),
            generator=np.random.default_rng(0),
        )


def test_a_mask_is_cut_like_its_image_and_keeps_its_classes():
    random = np.random.default_rng(0)
    mask = random.integers(0, 3, (20, 30), dtype=np.uint8)
    for window in (Window(2, 3, 10), Window(-4, 24, 12)):
        pieces = cut_mask(mask, window, window.side), cut(np.repeat(mask[..., None], 3, axis=2), window, window.side)
        assert np.array_equal(pieces[0], pieces[1][..., 0])
        assert set(np.unique(cut_mask(mask, window, 64))) <= {0, 1, 2}
