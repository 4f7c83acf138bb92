from __future__ import annotations

import numpy as np

from etnet.data.resize import resize_image, resize_mask


def test_shrinking_averages_areas_and_masks_take_the_nearest_pixel():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2, ::2] = 200
    assert (resize_image(image, (2, 2)) == 50).all()
    assert resize_mask(np.arange(16, dtype=np.uint8).reshape(4, 4), (4, 4))[2, 3] == 11
    assert resize_mask(np.array([[0, 7]], np.uint8), (2, 4)).tolist() == [[0, 0, 7, 7]] * 2
    assert resize_image(image, (4, 4)) is image
