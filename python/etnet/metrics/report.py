"""Scores of a whole data set: what each image gave, the scores that follow, and how sure they are.

Two figures are always told apart: `pooled` counts the pixels of all images together, as the paper's tables are read
here, and `image_mean` scores every image and averages. Beside both stand 95 % bootstrap intervals over images. A score
that is undefined in an image leaves that image out of its mean, and the report says how many were.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, TypeVar

import numpy as np

from etnet.metrics.overlap import (
    ClassGroups,
    ConfusionMatrix,
    FloatArray,
    OverlapScores,
    StructureCounts,
    means_of_defined,
    plain,
)
from etnet.metrics.ranking import RankingCounts, pooled_auc_of_resamples
from etnet.metrics.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    Interval,
    Weights,
    bootstrap_weights,
    means_of_resamples,
    percentile_interval,
)
from etnet.metrics.surface import TOLERANCES, SurfaceScores

WHOLE_IMAGE = "whole_image"
FIELD_OF_VIEW = "field_of_view"

GENERAL_SCORES = ("accuracy", "mean_iou", "mean_foreground_dice")
CLASS_SCORES = ("dice", "iou", "sensitivity", "specificity")
SURFACE_SCORES = ("hd95_px", "assd_px", *(f"surface_dice_{tolerance:g}px" for tolerance in TOLERANCES), "boundary_iou")

_MOST_BIAS = 0.005
"""By how much the coarse bins of the bootstrap may change the pooled area under the ROC curve."""

ScorePath = tuple[str, ...]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ImageScores:
    """One image.

    Attributes:
        id: Its name.
        matrices: Confusion matrix [C, C] per region.
        seconds: What its prediction took.
        surface: Boundary scores per region and structure.
        clinical: Values and errors of `clinical_measures`.
        auc: Area under the ROC curve per region, of problems with two classes.
        ranking: Pixels by probability per region, in coarse bins.
    """

    id: str
    matrices: dict[str, ConfusionMatrix]
    seconds: float
    surface: dict[str, dict[str, SurfaceScores]] = field(default_factory=dict)
    clinical: dict[str, float] = field(default_factory=dict)
    auc: dict[str, float] = field(default_factory=dict)
    ranking: dict[str, RankingCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A score over images.

    Attributes:
        mean: Mean over the images where it is defined; NaN when there is none.
        interval: 95 % bootstrap interval of the mean; NaN for fewer than two such images.
        images: Number of images where it is defined.
        left_out: Number of images where it is not.
    """

    mean: float
    interval: Interval
    images: int
    left_out: int

    @classmethod
    def of(cls, values: FloatArray, weights: Weights) -> Summary:
        """Summary of values [N], NaN where undefined, with the resamples [R, N]."""
        images = int(np.count_nonzero(~np.isnan(values)))
        mean = float(np.nanmean(values)) if images else math.nan
        interval = percentile_interval(means_of_resamples(values, weights), images=images)
        return cls(mean, interval, images, len(values) - images)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; None where undefined."""
        return {
            "mean": plain(self.mean),
            "interval": plain_interval(self.interval),
            "images": self.images,
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class BoundarySummary:
    """Boundary scores of one structure in one region.

    Attributes:
        scores: By the names of `SURFACE_SCORES`.
        missed: Images where the structure was there and not found; they have no HD95 and no ASSD.
        false_alarms: Images where it was found and not there; likewise.
        absent: Images where it was neither.
    """

    scores: dict[str, Summary]
    missed: int
    false_alarms: int
    absent: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        counts = {"missed": self.missed, "false_alarms": self.false_alarms, "absent": self.absent}
        return {name: summary.to_dict() for name, summary in self.scores.items()} | counts


@dataclass(frozen=True)
class AucSummary:
    """Area under the ROC curve in one region.

    Attributes:
        pooled: Of the pixels of all images together.
        pooled_interval: Its 95 % bootstrap interval; NaN where the bins that are kept of each image are too coarse for
            it, as with a network that gives all pixels nearly one probability.
        error_bound: The exact pooled area differs by at most this from the one computed from bins.
        per_image: Over images.
    """

    pooled: float
    pooled_interval: Interval
    error_bound: float
    per_image: Summary

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {
            "pooled": plain(self.pooled),
            "pooled_interval": plain_interval(self.pooled_interval),
            "error_bound": plain(self.error_bound),
            "image_mean": self.per_image.to_dict(),
        }


@dataclass(frozen=True)
class RegionScores:
    """Scores of one region over a data set.

    Attributes:
        images: Number of images that have this region.
        pooled: Scores of the pixels of all images counted together.
        pooled_interval: 95 % intervals (low, high) in the layout of `OverlapScores.to_dict` without `pixels`.
        image_mean: Mean over images of each image's scores, in the same layout; an image where a score is undefined is
            left out of that score's mean.
        image_mean_interval: 95 % intervals of these.
        boundary: Boundary scores by structure.
        auc: Area under the ROC curve of a problem with two classes.
    """

    images: int
    pooled: OverlapScores
    pooled_interval: dict[str, Any]
    image_mean: dict[str, Any]
    image_mean_interval: dict[str, Any]
    boundary: dict[str, BoundarySummary]
    auc: AucSummary | None

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        content: dict[str, Any] = {
            "images": self.images,
            "pooled": self.pooled.to_dict(),
            "pooled_interval": self.pooled_interval,
            "image_mean": self.image_mean,
            "image_mean_interval": self.image_mean_interval,
            "boundary": {name: summary.to_dict() for name, summary in self.boundary.items()},
        }
        return content if self.auc is None else content | {"auc": self.auc.to_dict()}


@dataclass(frozen=True)
class EvaluationReport:
    """What every image gave, and the scores that follow.

    Attributes:
        class_names: Classes in index order.
        images: The images in the order of the data set.
        class_groups: Structures of several classes.
        ranking: Pixels of all images by probability per region.
        ground_truth_sha256: Of the names and masks of all images, so that two reports can be known to be comparable.
    """

    class_names: tuple[str, ...]
    images: tuple[ImageScores, ...]
    class_groups: ClassGroups = ()
    ranking: dict[str, RankingCounts] = field(default_factory=dict)
    ground_truth_sha256: str = ""

    @cached_property
    def regions(self) -> dict[str, RegionScores]:
        """Scores per region: the whole image always, others where the data set has them."""
        names = dict.fromkeys(name for image in self.images for name in image.matrices)
        return {name: self._region(name) for name in names}

    @cached_property
    def clinical(self) -> dict[str, Summary]:
        """Errors of clinical quantities over images; an image without a value counts as left out."""
        names = dict.fromkeys(name for image in self.images for name in image.clinical if name.endswith("_error"))
        weights = bootstrap_weights(len(self.images))
        return {
            name: Summary.of(np.array([image.clinical.get(name, math.nan) for image in self.images]), weights)
            for name in names
        }

    def scores_of(self, image: ImageScores, region: str = WHOLE_IMAGE) -> OverlapScores:
        """Scores of one image in one region."""
        return OverlapScores.from_confusion(image.matrices[region], self.class_names, self.class_groups)

    def worst_to_best(self) -> list[ImageScores]:
        """Images by mean foreground Dice; those without any foreground, true or predicted, are left out."""
        dice = {image.id: self.scores_of(image).mean_dice for image in self.images}
        ranked = [image for image in self.images if not math.isnan(dice[image.id])]
        return sorted(ranked, key=lambda image: (dice[image.id], image.id))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single images, for `metrics.json`."""
        return {
            "images": len(self.images),
            "seconds_per_image": round(math.fsum(image.seconds for image in self.images) / len(self.images), 4),
            "ground_truth_sha256": self.ground_truth_sha256,
            "interval": {
                "method": "percentile bootstrap over images",
                "level": LEVEL,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            "regions": {name: region.to_dict() for name, region in self.regions.items()},
            "clinical": {name: summary.to_dict() for name, summary in self.clinical.items()},
        }

    def _region(self, name: str) -> RegionScores:
        images = [image for image in self.images if name in image.matrices]
        matrices = np.stack([image.matrices[name] for image in images])
        weights = bootstrap_weights(len(images))
        members = [*((index,) for index in range(len(self.class_names))), *(group for _, group in self.class_groups)]
        counts = StructureCounts.from_confusion(matrices, members)
        each = {path: Summary.of(values, weights) for path, values in self._overlap(counts).items()}
        pooled = self._overlap(counts.weighted(weights))
        return RegionScores(
            images=len(images),
            pooled=OverlapScores.from_confusion(matrices.sum(axis=0), self.class_names, self.class_groups),
            pooled_interval=_nested(
                pooled, lambda values: plain_interval(percentile_interval(values, images=len(images)))
            ),
            image_mean=_nested(each, lambda summary: plain(summary.mean)),
            image_mean_interval=_nested(each, lambda summary: plain_interval(summary.interval)),
            boundary=_boundaries([image.surface.get(name, {}) for image in images], weights),
            auc=self._auc(name, images, weights),
        )

    def _overlap(self, counts: StructureCounts) -> dict[ScorePath, FloatArray]:
        """Each score [N] by its place in `OverlapScores.to_dict`."""
        classes = len(self.class_names)
        rates = counts.rates()
        scores: dict[ScorePath, FloatArray] = {
            ("accuracy",): counts.accuracy(),
            ("mean_iou",): means_of_defined(rates["iou"][:, :classes]),
            ("mean_foreground_dice",): means_of_defined(rates["dice"][:, 1:classes]),
        }
        places = [("classes", name) for name in self.class_names] + [("groups", name) for name, _ in self.class_groups]
        for index, place in enumerate(places):
            scores |= {(*place, score): rates[score][:, index] for score in CLASS_SCORES}
        return scores

    def _auc(self, name: str, images: Sequence[ImageScores], weights: Weights) -> AucSummary | None:
        if name not in self.ranking or any(name not in image.ranking for image in images):
            return None
        pooled, kept = self.ranking[name], [image.ranking[name] for image in images]
        resampled = pooled_auc_of_resamples(kept, weights)
        interval = percentile_interval(resampled, images=len(images))
        if abs(reduce(operator.add, kept).auc - pooled.auc) > _MOST_BIAS:
            interval = (math.nan, math.nan)
        return AucSummary(
            pooled=pooled.auc,
            pooled_interval=interval,
            error_bound=pooled.error_bound,
            per_image=Summary.of(np.array([image.auc[name] for image in images]), weights),
        )


def surface_values(scores: SurfaceScores) -> dict[str, float]:
    """The scores by the names of `SURFACE_SCORES`."""
    values = (scores.hd95, scores.assd, *scores.surface_dice, scores.boundary_iou)
    return dict(zip(SURFACE_SCORES, values, strict=True))


def plain_interval(interval: Interval) -> list[float] | None:
    """An interval for JSON; None where it is undefined."""
    return None if math.isnan(interval[0]) else list(interval)


def _boundaries(images: Sequence[Mapping[str, SurfaceScores]], weights: Weights) -> dict[str, BoundarySummary]:
    names = dict.fromkeys(name for image in images for name in image)
    summaries = {}
    for name in names:
        scores = [image[name] for image in images]
        values = [surface_values(score) for score in scores]
        states = [score.presence for score in scores]
        summaries[name] = BoundarySummary(
            scores={key: Summary.of(np.array([row[key] for row in values]), weights) for key in SURFACE_SCORES},
            missed=states.count("missed"),
            false_alarms=states.count("false_alarm"),
            absent=states.count("absent"),
        )
    return summaries


def _nested(scores: Mapping[ScorePath, _Value], make: Callable[[_Value], Any]) -> dict[str, Any]:
    """Nested dictionaries from places; `classes` and `groups` are always there."""
    content: dict[str, Any] = {"classes": {}, "groups": {}}
    for path, value in scores.items():
        place = content
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = make(value)
    general: Iterable[str] = [key for key in content if key not in ("classes", "groups")]
    return {key: content[key] for key in (*general, "classes", "groups")}
