"""Data sets in memory, whose images `PixelBackend` segments as each test says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from etnet.types import Sample
from helpers.backends import image_of


class Samples:
    """A data set in memory."""

    def __init__(self, *samples: Sample) -> None:
        self._samples = samples

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sample.id for sample in self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> Sample:
        return self._samples[index]

    def image_path(self, index: int) -> Path:
        return Path(self.ids[index])


def sample(name: str, predicted, target, field_of_view=None) -> Sample:
    """A sample for which `PixelBackend` predicts `predicted`."""
    predicted, target = np.array(predicted, np.uint8), np.array(target, np.uint8)
    inside = None if field_of_view is None else np.array(field_of_view, np.bool_)
    return Sample(name, image_of(predicted), target, inside)
