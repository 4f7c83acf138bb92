from __future__ import annotations

import numpy as np
import pytest

from etnet.errors import OutOfMemory
from etnet.inference.halving import HalvingBackend
from helpers.backends import PixelBackend, image_of, random_labels


class SmallDevice(PixelBackend):
    """Holds only so many images at once."""

    def __init__(self, most: int, error: type[Exception] = OutOfMemory, **options) -> None:
        super().__init__(**options)
        self.most, self.error, self.refused = most, error, []

    def run(self, images, *, probabilities=True):
        if len(images) > self.most:
            self.refused.append(len(images))
            raise self.error("too little memory")
        return super().run(images, probabilities=probabilities)


def batch(count: int) -> np.ndarray:
    return np.stack([image_of(random_labels(16, 16, seed=seed)) for seed in range(count)])


@pytest.mark.parametrize("error", [OutOfMemory, MemoryError])
@pytest.mark.parametrize("with_edges", [True, False])
def test_a_batch_is_halved_until_it_fits_and_nothing_of_it_is_lost(error, with_edges):
    told: list[int] = []
    device = SmallDevice(3, error, with_edges=with_edges)
    outputs = HalvingBackend(device, told.append).run(batch(13))
    expected = PixelBackend(with_edges=with_edges).run(batch(13))
    for found, right in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(found, right)
    assert told == [6]
    assert device.refused == [13, 6]
    assert [shape[0] for shape in device.shapes] == [3, 3, 3, 3, 1]


def test_the_smaller_size_is_kept_for_the_batches_to_come():
    device = SmallDevice(2)
    backend = HalvingBackend(device)
    for _ in range(3):
        assert backend.run(batch(4), probabilities=False).probabilities is None
    assert device.refused == [4]


def test_one_image_that_does_not_fit_is_refused():
    with pytest.raises(OutOfMemory, match="too little memory"):
        HalvingBackend(SmallDevice(0)).run(batch(2))


def test_a_batch_that_fits_goes_through_as_it_is():
    device = PixelBackend()
    HalvingBackend(device).run(batch(5))
    assert device.shapes == [(5, 16, 16, 3)]


def test_other_sizes_keep_their_batches():
    class ByPixels(SmallDevice):
        def run(self, images, *, probabilities=True):
            self.most = 1 if images.shape[1] > 16 else 100
            return super().run(images, probabilities=probabilities)

    device = ByPixels(0)
    backend = HalvingBackend(device)
    backend.run(np.zeros((4, 32, 16, 3), np.uint8))
    device.shapes.clear()
    backend.run(batch(8))
    assert device.shapes == [(8, 16, 16, 3)]
