"""Area under the ROC curve of many images in bounded memory: their pixels are counted in bins of probability.

A network is often sure: a vessel detector gave half of DRIVE's pixels a probability under 0.0014. Bins of equal width
would put most of the pixels into a few; these are as narrow, relative to the distance from 0 or 1, all the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etnet.types import BoolArray, Float32Array

BINS = 2**16
"""Bins of a histogram."""

COARSE_BINS = 2**12
"""Bins of what is kept of each image for the bootstrap."""

_DROPPED_BITS = 15
"""Bits of a float32 that do not matter: 8 of the 23 bits of its fraction remain."""

_ROUNDING = 1e-4
"""How far resizing may take a probability beyond 0 or 1."""

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankingCounts:
    """Pixels per bin of probability, in rising order of probability.

    Attributes:
        positives: Pixels of the class [B], int64.
        negatives: The other pixels [B], int64.
    """

    positives: Counts
    negatives: Counts

    @classmethod
    def from_probabilities(
        cls, probabilities: Float32Array, truth: BoolArray, *, where: BoolArray | None = None
    ) -> RankingCounts:
        """Count pixels by probability and truth in `BINS` bins.

        Args:
            probabilities: Probability of the class, any shape, 0..1.
            truth: Whether a pixel belongs to the class, same shape.
            where: Pixels that count, same shape; None counts all.

        Raises:
            ValueError: Shapes differ, or a probability is not in 0..1.
        """
        if probabilities.shape != truth.shape or (where is not None and where.shape != truth.shape):
            raise ValueError(
                f"probabilities have shape {probabilities.shape} and truth {truth.shape}; expected the same"
            )
        if where is not None:
            probabilities, truth = probabilities[where], truth[where]
        bins = _bin_of(probabilities.astype(np.float32, copy=False).ravel())
        inside = truth.ravel()
        return cls(
            np.bincount(bins[inside], minlength=BINS).astype(np.int64),
            np.bincount(bins[~inside], minlength=BINS).astype(np.int64),
        )

    def __add__(self, other: RankingCounts) -> RankingCounts:
        return RankingCounts(self.positives + other.positives, self.negatives + other.negatives)

    def coarse(self) -> RankingCounts:
        """The same pixels in `COARSE_BINS` bins."""
        return RankingCounts(
            self.positives.reshape(COARSE_BINS, -1).sum(axis=1), self.negatives.reshape(COARSE_BINS, -1).sum(axis=1)
        )

    @property
    def auc(self) -> float:
        """Area under the ROC curve; NaN when one of the two kinds of pixels is missing.

        It is the probability that a pixel of the class has a higher probability than another pixel, ties counting half
        (Hanley and McNeil, Radiology 143, 1982). Two pixels of one bin are taken as a tie; see `error_bound`.
        """
        pairs = float(self.positives.sum()) * float(self.negatives.sum())
        return float(_wins(self.positives[None], self.negatives[None])[0, 0]) / pairs if pairs else math.nan

    @property
    def error_bound(self) -> float:
        """The exact area differs from `auc` by at most this: half the share of pairs that fall into one bin."""
        pairs = float(self.positives.sum()) * float(self.negatives.sum())
        in_one_bin = float(self.positives.astype(np.float64) @ self.negatives.astype(np.float64))
        return 0.5 * in_one_bin / pairs if pairs else math.nan


def pooled_auc_of_resamples(images: Sequence[RankingCounts], weights: npt.NDArray[np.int64]) -> FloatArray:
    """Area under the ROC curve of the pooled pixels of each resample of images.

    Args:
        images: Counts of N images.
        weights: How often each image is in each resample [R, N], int64.

    Returns:
        Areas [R]; NaN where a resample lacks one of the two kinds of pixels.
    """
    positives = np.stack([image.positives for image in images])
    negatives = np.stack([image.negatives for image in images])
    # Pairs within an image and between two: every resample is a weighted sum of these N x N numbers.
    wins = _wins(positives, negatives)
    drawn = weights.astype(np.float64)
    pairs = (drawn @ positives.sum(axis=1)) * (drawn @ negatives.sum(axis=1))
    won = np.einsum("ri,ij,rj->r", drawn, wins, drawn, optimize=True)
    return np.asarray(np.divide(won, pairs, out=np.full(len(drawn), math.nan), where=pairs > 0))


def _wins(positives: Counts, negatives: Counts) -> FloatArray:
    """Pairs [N, M] of a positive of one row and a negative of another that the positive wins, ties counting half."""
    below = np.cumsum(negatives, axis=1, dtype=np.float64) - 0.5 * negatives
    return np.asarray(positives.astype(np.float64) @ below.T)


def _bin_of(probabilities: Float32Array) -> npt.NDArray[np.int64]:
    """Index of the bin: the leading bits of a float32 rise with its value, near 0 as finely as elsewhere.

    Above one half the bits of 1 - p are used, which float32 holds exactly there; both halves take just under half of
    the bins.
    """
    if not np.all((probabilities >= -_ROUNDING) & (probabilities <= 1 + _ROUNDING)):
        raise ValueError("a probability is not in 0..1")
    probabilities = np.clip(probabilities, 0, 1)
    lower = probabilities <= 0.5
    distance = np.where(lower, probabilities, np.float32(1) - probabilities)
    # The absolute value turns -0, whose bits are those of a large integer, into 0.
    bits = (np.abs(distance).view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
    return np.asarray(np.where(lower, bits, BINS - 1 - bits))
