"""A cell's figures in percent from the counts of its runs: mean, spread over seeds, interval over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.reproduce.tables import Metric

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Figure:
    """What a cell says for one metric, in percent.

    Attributes:
        mean: Mean over seeds of the score of all test pixels together.
        deviation: Standard deviation over seeds (n - 1); None for one seed.
        interval: 95 % bootstrap interval of `mean` over test images; None for a single image.
        image_mean: Mean over seeds and images of each image's own score.
    """

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    image_mean: float


def figures_of(scores: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> list[Figure]:
    """Figures of a cell.

    Args:
        scores: Content of `scores.json` of each of its runs, at least one, all on the same images.
        metrics: What to measure.
    """
    # [S, N, C, C]: seed, image, true class, predicted class.
    counts = np.array([[image["matrix"] for image in run["images"]] for run in scores], dtype=np.float64)
    return [_figure(counts, _members(scores[0], metric)) for metric in metrics]


def image_score(scores: dict[str, Any], image_id: str, metric: Metric) -> float:
    """Score of one image in percent; NaN where it is undefined.

    Args:
        scores: Content of a run's `scores.json`.
        image_id: One of its images.
        metric: What to measure.
    """
    matrix = next(image["matrix"] for image in scores["images"] if image["id"] == image_id)
    return 100 * float(_score(np.array(matrix, dtype=np.float64), _members(scores, metric)))


def _figure(counts: FloatArray, structure: tuple[int, ...] | str) -> Figure:
    per_seed = 100 * _score(counts.sum(axis=1), structure)
    each = 100 * _score(counts, structure)
    images = counts.shape[1]
    drawn = np.random.default_rng(SEED).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    # The same draw for every seed: the interval is about which images were photographed, not about seeds.
    resampled = np.einsum("rn,sncd->rscd", drawn, counts, optimize=True)
    scores = 100 * _score(resampled, structure).mean(axis=1)
    return Figure(
        mean=float(per_seed.mean()),
        deviation=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None,
        interval=_interval(scores[~np.isnan(scores)]) if images > 1 else None,
        image_mean=float(np.nanmean(each)) if not np.isnan(each).all() else math.nan,
    )


def _interval(scores: FloatArray) -> tuple[float, float] | None:
    if not scores.size:
        return None
    low, high = np.percentile(scores, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _members(scores: dict[str, Any], metric: Metric) -> tuple[int, ...] | str:
    """Class indices of the structure that a metric is about, or the key of a metric over all classes."""
    if metric.structure is None:
        return metric.key
    names = scores["class_names"]
    return tuple(names.index(name) for name in scores["class_groups"].get(metric.structure, [metric.structure]))


def _score(counts: FloatArray, structure: tuple[int, ...] | str) -> FloatArray:
    """Score of confusion matrices [..., C, C]: Dice of a structure, accuracy, or mean IoU over classes that occur."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        if structure == "accuracy":
            return np.asarray(hit.sum(axis=-1) / counts.sum(axis=(-2, -1)))
        if structure == "mean_iou":
            iou = hit / (counts.sum(axis=-1) + counts.sum(axis=-2) - hit)
            return np.asarray(np.nanmean(iou, axis=-1))
        inside = np.zeros(counts.shape[-1], dtype=bool)
        inside[list(structure)] = True
        true, predicted = counts[..., inside, :].sum(axis=(-2, -1)), counts[..., inside].sum(axis=(-2, -1))
        both = counts[..., inside, :][..., inside].sum(axis=(-2, -1))
        return np.asarray(2 * both / (true + predicted))
