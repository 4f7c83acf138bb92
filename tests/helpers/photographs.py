"""Generated pictures that look to a statistic like photographs of the fundus, and a data set of them."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from etnet.types import Sample, UInt8Array


def photograph(seed: int, *, size: int = 480) -> UInt8Array:
    """Texture of every scale in a reddish disc on black [size, size, 3], lighting and colour varying with the seed."""
    generator = np.random.default_rng(seed)
    texture = np.zeros((size, size), np.float32)
    # Finer detail is weaker, as in photographs.
    for cells, strength in ((8, 14), (20, 11), (50, 9), (120, 7), (320, 5)):
        noise = generator.normal(0, strength, (cells, cells)).astype(np.float32)
        texture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    color = np.array([170.0, 95.0, 50.0]) * generator.uniform(0.85, 1.15) * generator.uniform(0.95, 1.05, 3)
    picture = np.clip(generator.uniform(0.85, 1.15) * texture[..., None] + color, 20, 250)
    disc = cv2.circle(np.zeros((size, size), np.uint8), (size // 2, size // 2), int(0.46 * size), 1, -1)
    return np.where(disc[..., None] > 0, picture, 0).astype(np.uint8)


class PhotographFolder:
    """A data set of generated photographs, or of the images given.

    Attributes:
        images: RGB images.
        ids: Their names.
        read: Indices that were loaded, in order.
    """

    def __init__(self, seeds: Iterable[int] = (), *, images: Iterable[UInt8Array] = ()) -> None:
        self.images = [*(photograph(seed) for seed in seeds), *images]
        self.ids = tuple(str(index) for index in range(len(self.images)))
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> Sample:
        """The image with an empty mask."""
        self.read.append(index)
        image = self.images[index]
        return Sample(self.ids[index], image, np.zeros(image.shape[:2], np.uint8))
