"""The polar transform against SciPy's sampling at the same positions, and against its own inverse."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from etnet.models.baselines.polar import from_polar, to_polar


def smooth(height: int, width: int, *, sigma: float = 3.0) -> np.ndarray:
    """Noise whose standard deviation is 1 and whose blobs have about `sigma` pixels."""
    noise = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
    return blurred / blurred.std()


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None, None]


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_a_polar_pixel_is_the_image_at_its_radius_and_angle(size):
    height, width = size
    image = smooth(height, width)
    rows, columns = np.mgrid[0:height, 0:width]
    radius, angle = (rows + 0.5) / height, 2 * np.pi * (columns + 0.5) / width
    y = height / 2 * (1 + radius * np.sin(angle)) - 0.5
    x = width / 2 * (1 + radius * np.cos(angle)) - 0.5
    expected = map_coordinates(image, [y, x], order=1, mode="nearest")
    np.testing.assert_allclose(to_polar(tensor(image))[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_a_pixel_is_the_polar_map_at_its_radius_and_angle_across_the_seam(size):
    height, width = size
    polar = smooth(height, width)
    rows, columns = np.mgrid[0:height, 0:width]
    y, x = (2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1
    turn = np.mod(np.arctan2(y, x) / (2 * np.pi), 1)
    # Three turns side by side, so that nothing depends on how the seam is treated.
    around = np.concatenate([polar] * 3, axis=1)
    where = [np.clip(np.hypot(x, y) * height - 0.5, 0, height - 1), width * (turn + 1) - 0.5]
    expected = map_coordinates(around, where, order=1, mode="nearest")
    np.testing.assert_allclose(from_polar(tensor(polar))[0, 0], expected, atol=1e-4)


def test_there_and_back_leaves_the_inside_of_the_circle():
    # The outer circle has three pixels per column of the polar map: finer details are lost there.
    image = smooth(96, 96, sigma=8)
    back = from_polar(to_polar(tensor(image)))[0, 0].numpy()
    rows, columns = np.mgrid[0:96, 0:96]
    inside = np.hypot(rows - 47.5, columns - 47.5) < 46
    assert np.abs(back - image)[inside].max() < 0.05


def test_a_disc_becomes_a_band_on_top():
    disc = cv2.circle(np.zeros((128, 128), np.float32), (64, 64), 32, 1.0, -1)
    polar = to_polar(tensor(disc))[0, 0]
    assert (polar[:60] > 0.99).all()
    assert (polar[70:] < 0.01).all()


def test_half_precision_is_sampled_at_the_positions_of_float32():
    image = tensor(smooth(512, 512))
    for transform in (to_polar, from_polar):
        half = transform(image.half())
        assert half.dtype == torch.float16
        torch.testing.assert_close(half.float(), transform(image.half().float()), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("transform", [to_polar, from_polar])
def test_autocast_samples_in_float32(transform):
    image = tensor(smooth(512, 512))
    expected = transform(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform(image), expected)
