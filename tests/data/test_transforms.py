from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
import pytest
from scipy import ndimage

from etnet.config.data_section import AugmentationSection
from etnet.data.edges import edge_map
from etnet.data.resize import resize_image, resize_mask
from etnet.data.transforms import (
    augment,
    color_matrix,
    crop_outline,
    jitter_color,
)
from etnet.types import Sample

STILL = AugmentationSection(mirror=0.0, scale=(1.0, 1.0), rotation=0.0, color_jitter=0.0)
FULL = AugmentationSection()


def sample_of(height: int, width: int, *, seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    return Sample("a", image, mask)


def smooth_sample(height: int, width: int) -> Sample:
    """A picture whose colours tell the position: linear interpolation keeps it exact up to rounding."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, (rows + columns) / 2], axis=2).astype(np.uint8)
    return Sample("a", image, (columns > width // 2).astype(np.uint8))


def run(sample: Sample, *, crop: int, augmentation: AugmentationSection, seed: int = 0, **options):
    settings = {"edge_width": 3, "generator": np.random.default_rng(seed)} | options
    return augment(sample, crop_size=crop, augmentation=augmentation, **settings)


def test_without_changes_an_image_of_the_size_of_the_crop_is_copied():
    sample = sample_of(64, 64)
    result = run(sample, crop=64, augmentation=STILL)
    assert np.array_equal(result.image, sample.image)
    assert np.array_equal(result.mask, sample.mask)
    assert np.array_equal(result.edge, edge_map(sample.mask, width=3))
    assert result.id == "a"


@pytest.mark.parametrize("seed", range(5))
def test_without_scale_and_rotation_a_crop_is_a_window_of_the_image(seed):
    sample = sample_of(80, 97)
    result = run(sample, crop=48, augmentation=STILL, seed=seed)
    outline = crop_outline(sample_of(80, 97), crop_size=48, augmentation=STILL, generator=np.random.default_rng(seed))
    left, top = outline[0].astype(int)
    assert np.array_equal(result.image, sample.image[top : top + 48, left : left + 48])
    assert np.array_equal(result.mask, sample.mask[top : top + 48, left : left + 48])


def test_mirror_flips_left_and_right():
    sample = sample_of(64, 64)
    result = run(sample, crop=64, augmentation=STILL.model_copy(update={"mirror": 1.0}))
    assert np.array_equal(result.image, sample.image[:, ::-1])
    assert np.array_equal(result.mask, sample.mask[:, ::-1])


@pytest.mark.parametrize("shape", [(20, 30), (1, 1), (1, 40), (200, 7)])
def test_images_smaller_than_the_crop_are_covered_by_reflection(shape):
    sample = sample_of(*shape)
    result = run(sample, crop=64, augmentation=STILL)
    assert result.image.shape == (64, 64, 3)
    assert result.mask.shape == result.edge.shape == (64, 64)
    outline = crop_outline(sample_of(*shape), crop_size=64, augmentation=STILL, generator=np.random.default_rng(0))
    left, top = outline[0].astype(int)
    pads = [(max(-start, 0), max(start + 64 - size, 0)) for start, size in zip((top, left), shape, strict=True)]
    padded = np.pad(sample.image, [*pads, (0, 0)], mode="reflect")
    expected = padded[max(top, 0) :, max(left, 0) :][:64, :64]
    assert np.array_equal(result.image, expected)


def test_every_place_of_the_image_and_every_margin_can_be_drawn():
    lefts = {crop_outline(sample_of(70, 70), crop_size=64, augmentation=STILL, generator=np.random.default_rng(s))[0, 0]
             for s in range(200)}  # fmt: skip
    assert lefts == set(range(7))
    small = {crop_outline(sample_of(60, 60), crop_size=64, augmentation=STILL, generator=np.random.default_rng(s))[0, 0]
             for s in range(200)}  # fmt: skip
    assert small == set(range(-4, 1))


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_are_moved_by_the_same_geometry_as_an_independent_warp(seed):
    sample = smooth_sample(200, 180)
    settings = FULL.model_copy(update={"color_jitter": 0.0})
    result = run(sample, crop=64, augmentation=settings, seed=seed)
    outline = crop_outline(
        sample_of(200, 180), crop_size=64, augmentation=settings, generator=np.random.default_rng(seed)
    )
    across, down = (outline[1] - outline[0]) / 64, (outline[3] - outline[0]) / 64
    rows, columns = np.mgrid[:64, :64] + 0.5
    x = outline[0, 0] + columns * across[0] + rows * down[0] - 0.5
    y = outline[0, 1] + columns * across[1] + rows * down[1] - 0.5
    inside = (x > 1) & (x < 178) & (y > 1) & (y < 198)
    assert inside.sum() > 500
    for channel in range(3):
        expected = ndimage.map_coordinates(sample.image[..., channel].astype(float), [y, x], order=1, mode="mirror")
        assert np.abs(result.image[..., channel] - expected)[inside].max() <= 1.5
    away = inside & (np.abs(x - 90.5) > 0.6)
    assert np.array_equal(result.mask[away], (x > 90.5).astype(np.uint8)[away])


def test_scale_and_rotation_stay_in_their_ranges():
    for seed in range(100):
        outline = crop_outline(
            sample_of(300, 300), crop_size=64, augmentation=FULL, generator=np.random.default_rng(seed)
        )
        across, down = outline[1] - outline[0], outline[3] - outline[0]
        scale = 64 / np.hypot(*across)
        assert 0.5 <= scale <= 2.0
        assert np.hypot(*down) == pytest.approx(np.hypot(*across))
        # A mirrored crop runs to the left.
        tilt = math.degrees(math.atan2(across[1], across[0]))
        assert min(abs(tilt), 180 - abs(tilt)) <= 10.0 + 1e-9


def test_the_turn_is_about_the_centre_of_the_crop():
    only_rotation = STILL.model_copy(update={"rotation": 40.0})
    for seed in range(5):
        outline = crop_outline(
            sample_of(64, 64), crop_size=64, augmentation=only_rotation, generator=np.random.default_rng(seed)
        )
        assert outline.mean(axis=0) == pytest.approx([32, 32])


def test_the_width_of_the_edge_is_the_same_at_every_scale():
    mask = np.zeros((256, 256), np.uint8)
    mask[:, 128:] = 1
    sample = Sample("a", np.zeros((256, 256, 3), np.uint8), mask)
    for factor in (0.5, 1.0, 2.0):
        settings = STILL.model_copy(update={"scale": (factor, factor)})
        for seed in range(40):
            edge = run(sample, crop=64, augmentation=settings, seed=seed, edge_width=5).edge
            if edge[:, 3:-3].any() and not edge[:, [0, 1, 2, -3, -2, -1]].any():
                assert set(edge.sum(axis=1).tolist()) == {5}


def test_the_same_generator_gives_the_same_sample_and_another_one_another():
    sample = sample_of(90, 90)
    first, again, other = (run(sample, crop=64, augmentation=FULL, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.edge, again.edge)
    assert not np.array_equal(first.image, other.image)


def test_the_source_is_left_alone():
    sample = sample_of(64, 64)
    image, mask = sample.image.copy(), sample.mask.copy()
    run(sample, crop=64, augmentation=FULL.model_copy(update={"color_jitter": 1.0}))
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.mask, mask)


def test_labels_are_never_mixed():
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 3, 255], np.uint8), (70, 70))
    sample = Sample("a", np.zeros((70, 70, 3), np.uint8), mask)
    for seed in range(10):
        result = run(sample, crop=64, augmentation=FULL, seed=seed, ignore_index=255)
        assert set(np.unique(result.mask).tolist()) <= {0, 3, 255}
        assert np.array_equal(result.edge == 255, result.mask == 255)


def test_image_size_is_applied_before_the_crop():
    sample = smooth_sample(200, 100)
    result = run(sample, crop=64, augmentation=STILL, image_size=(64, 64))
    assert np.array_equal(result.image, resize_image(sample.image, (64, 64)))
    assert np.array_equal(result.mask, resize_mask(sample.mask, (64, 64)))
    outline = crop_outline(
        sample_of(200, 100), crop_size=64, augmentation=STILL, image_size=(64, 64), generator=np.random.default_rng(0)
    )
    assert outline.tolist() == [[0, 0], [100, 0], [100, 200], [0, 200]]


def test_color_matrix_without_changes_is_the_identity():
    matrix = color_matrix(np.array([10.0, 20, 30]), brightness=1, contrast=1, saturation=1, hue=0)
    assert np.allclose(matrix, np.eye(3, 4))


def test_color_matrix_is_its_four_steps_one_after_the_other():
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 255, (50, 3))
    luma = np.array([0.299, 0.587, 0.114])
    mean = pixels.mean(axis=0)
    step = pixels * 1.1
    step = (step - step.mean(axis=0) @ luma) * 0.85 + step.mean(axis=0) @ luma
    grey = (step @ luma)[:, None]
    step = grey + 1.3 * (step - grey)
    result = np.c_[pixels, np.ones(50)] @ color_matrix(mean, brightness=1.1, contrast=0.85, saturation=1.3, hue=0).T
    assert np.allclose(result, step)


def test_hue_keeps_grey_and_luma_and_turns_colors_about_as_far_as_hsv_does():
    matrix = color_matrix(np.zeros(3), brightness=1, contrast=1, saturation=1, hue=1 / 3)[:, :3]
    assert np.allclose(matrix @ [90, 90, 90], 90, atol=0.2)
    assert [0.299, 0.587, 0.114] @ (matrix @ [200, 30, 60]) == pytest.approx(
        0.299 * 200 + 0.587 * 30 + 0.114 * 60, abs=0.3
    )
    before = colorsys.rgb_to_hsv(0.6, 0.45, 0.4)[0]
    turned = np.clip(matrix @ [0.6, 0.45, 0.4], 0, 1)
    difference = (colorsys.rgb_to_hsv(*turned)[0] - before) % 1
    assert min(abs(difference - 1 / 3), abs(difference - 2 / 3)) < 0.07


def test_jitter_clips_once_and_stays_in_bytes():
    image = np.full((8, 8, 3), 250, np.uint8)
    strong = FULL.model_copy(update={"brightness": 1.0})
    results = [jitter_color(image, augmentation=strong, generator=np.random.default_rng(s)) for s in range(20)]
    assert all(result.dtype == np.uint8 for result in results)
    assert any((result == 255).all() for result in results)
    assert any((result < 200).all() for result in results)


def test_jitter_of_zero_range_changes_nothing():
    image = sample_of(16, 16).image
    none = FULL.model_copy(update={"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0})
    assert np.array_equal(jitter_color(image, augmentation=none, generator=np.random.default_rng(0)), image)


def test_jitter_comes_with_its_probability():
    sample = Sample("a", np.full((16, 16, 3), 100, np.uint8), np.zeros((16, 16), np.uint8))
    changed = [(run(sample, crop=16, augmentation=FULL, seed=s).image != 100).any() for s in range(300)]
    assert 0.4 < np.mean(changed) < 0.6


def test_one_sample_costs_no_second_interpolation(monkeypatch):
    calls = []
    real = cv2.warpAffine
    monkeypatch.setattr(cv2, "warpAffine", lambda *args, **options: calls.append(1) or real(*args, **options))
    run(sample_of(90, 90), crop=64, augmentation=FULL)
    assert len(calls) == 2
