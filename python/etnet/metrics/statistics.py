"""How sure a score is: bootstrap intervals over images, and a paired test of two models.

Images are drawn, not pixels: pixels of one image are far from independent. Images of one patient are not independent
either, which these intervals do not know; they are then too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etnet.errors import EnvironmentFault

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
PERMUTATIONS = 9999

FloatArray = npt.NDArray[np.float64]
Weights = npt.NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedDifference:
    """Two models on the same images: B minus A.

    Attributes:
        pairs: Images on which the score of both is defined.
        mean_a: Mean of A over these images.
        mean_b: Mean of B over these images.
        difference: Mean of B minus A.
        interval: 95 % bootstrap interval of the difference; NaN for fewer than two pairs.
        p_value: Of the hypothesis that A and B are interchangeable; NaN for fewer than two pairs.
    """

    pairs: int
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    p_value: float


def bootstrap_weights(images: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> Weights:
    """How often each image is drawn in each resample with replacement [resamples, images], int64.

    Example:
        >>> bootstrap_weights(3, resamples=2).sum(axis=1).tolist()
        [3, 3]
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def means_of_resamples(values: FloatArray, weights: Weights) -> FloatArray:
    """Mean of each resample over the images whose value is defined.

    Args:
        values: A score per image [N], NaN where it is undefined.
        weights: Resamples [R, N] of `bootstrap_weights`.

    Returns:
        Means [R]; NaN for a resample without any defined value.
    """
    defined = ~np.isnan(values)
    count = weights @ defined.astype(np.float64)
    total = weights @ np.where(defined, values, 0.0)
    return np.asarray(np.divide(total, count, out=np.full(len(weights), math.nan), where=count > 0))


def percentile_interval(resampled: FloatArray, *, images: int) -> Interval:
    """The middle 95 % of a resampled score (Efron and Tibshirani, "An Introduction to the Bootstrap", Sec. 13.3).

    Args:
        resampled: The score of each resample [R]; NaN where undefined, which is left out.
        images: Number of images on which the score is defined.

    Returns:
        Lower and upper end; NaN for fewer than two images, of which nothing can be said.
    """
    defined = resampled[~np.isnan(resampled)]
    if images < 2 or not defined.size:
        return math.nan, math.nan
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(a: FloatArray, b: FloatArray) -> PairedDifference:
    """Compare two models on the same images.

    The test is a paired permutation test: under the hypothesis that it makes no difference which model segmented an
    image, the sign of each difference is random. It tests the mean difference, which is what the interval is about
    (Wilcoxon's signed ranks would test another quantity), and assumes no distribution. All sign patterns are tried when
    there are at most `PERMUTATIONS` of them, otherwise as many random ones; the p value is two-sided.

    Args:
        a: Score per image [N] of model A; NaN where undefined.
        b: Score per image [N] of model B; NaN where undefined. Images where either is undefined are left out.

    Raises:
        EnvironmentFault: SciPy is missing.
    """
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    pairs = len(a)
    if not pairs:
        return PairedDifference(0, *(math.nan,) * 3, (math.nan, math.nan), math.nan)
    difference = b - a
    resampled = means_of_resamples(difference, bootstrap_weights(pairs))
    return PairedDifference(
        pairs=pairs,
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=float(difference.mean()),
        interval=percentile_interval(resampled, images=pairs),
        p_value=_permutation_test(a, b) if pairs > 1 else math.nan,
    )


def _permutation_test(a: FloatArray, b: FloatArray) -> float:
    try:
        from scipy.stats import permutation_test
    except ImportError as error:
        raise EnvironmentFault(
            "comparing two evaluations needs SciPy, which is not installed here; install it with: "
            "pip install 'etnet[train]'"
        ) from error

    def mean_difference(first: FloatArray, second: FloatArray, axis: int) -> FloatArray:
        return np.asarray(np.mean(second - first, axis=axis))

    result = permutation_test(
        (a, b),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1000,
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)
