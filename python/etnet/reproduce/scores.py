"""A cell's figures in percent from the counts of its runs: mean, spread over seeds, interval over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet.metrics.overlap import StructureCounts, means_of_defined
from etnet.metrics.statistics import bootstrap_weights, percentile_interval
from etnet.reproduce.tables import ACCURACY, Metric

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """What a cell says for one metric, in percent; NaN where it is undefined.

    Attributes:
        mean: Mean over seeds of the score of all test pixels together.
        deviation: Standard deviation over seeds (n - 1); None for one seed.
        interval: 95 % bootstrap interval of `mean` over test images; None for a single image.
        image_mean: Mean over seeds and images of each image's own score, where that is defined.
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
    return [
        _figure([_counts([image["matrix"] for image in run["images"]], run, metric) for run in scores], metric)
        for metric in metrics
    ]


def image_score(scores: dict[str, Any], image_id: str, metric: Metric) -> float:
    """Score of one image in percent; NaN where it is undefined.

    Args:
        scores: Content of a run's `scores.json`.
        image_id: One of its images.
        metric: What to measure.
    """
    matrix = next(image["matrix"] for image in scores["images"] if image["id"] == image_id)
    return 100 * float(_score(_counts(matrix, scores, metric), metric))


def _figure(counts: Sequence[StructureCounts], metric: Metric) -> Figure:
    """From the counts of each seed, whose arrays begin with the images."""
    images = len(counts[0].total)
    all_images = np.ones((1, images), np.int64)
    per_seed = np.array([_score(seed.weighted(all_images), metric)[0] for seed in counts])
    each = np.array([_score(seed, metric) for seed in counts])
    # The same draw for every seed: the interval is about which images were photographed, not about seeds.
    drawn = bootstrap_weights(images)
    resampled = np.mean([_score(seed.weighted(drawn), metric) for seed in counts], axis=0)
    low, high = percentile_interval(100 * resampled, images=images)
    return Figure(
        mean=float(100 * per_seed.mean()),
        deviation=float(100 * per_seed.std(ddof=1)) if len(per_seed) > 1 else None,
        interval=None if np.isnan(low) else (low, high),
        image_mean=float(100 * means_of_defined(each.ravel())),
    )


def _counts(matrices: Any, scores: dict[str, Any], metric: Metric) -> StructureCounts:
    """Counts of confusion matrices [..., C, C] for what a metric is about: its structure, or every class."""
    names = scores["class_names"]
    structures = [[index] for index in range(len(names))]
    if metric.structure is not None:
        members = scores["class_groups"].get(metric.structure, [metric.structure])
        structures = [[names.index(name) for name in members]]
    return StructureCounts.from_confusion(np.array(matrices, dtype=np.int64), structures)


def _score(counts: StructureCounts, metric: Metric) -> FloatArray:
    """Score of each element of the counts, 0..1."""
    if metric == ACCURACY:
        return counts.accuracy()
    if metric.structure is not None:
        return counts.rates()["dice"][..., 0]
    return means_of_defined(counts.rates()["iou"])
