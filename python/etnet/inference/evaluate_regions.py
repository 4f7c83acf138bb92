"""Scores of networks that segment a region of interest: around true centres, and around those that were found.

The paper localizes the disc before it segments (Sec. 3) and does not say whether its scores contain that step. Both are
reported. Each image is scored as a whole and inside the region of interest around its true centre, so that both kinds
of centre are scored on the same pixels. An image in which nothing was found is scored as all background, and listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from etnet.data.dataset import SegmentationDataset
from etnet.data.roi import require_center, true_center
from etnet.errors import UsageError
from etnet.inference.evaluate import evaluate, predict_samples
from etnet.inference.localize import LocalizationFailed
from etnet.inference.predictor import ImagePredictor
from etnet.inference.preprocess import Center
from etnet.metrics.overlap import ClassGroups
from etnet.metrics.report import EvaluationReport
from etnet.output import write_csv
from etnet.types import Contract, Prediction, Sample


@dataclass(frozen=True)
class LocalizedImage:
    """What localization gave in one image.

    Attributes:
        id: The image's name.
        true_center: Centre of gravity (row, column) of the true structure, in pixels, the first pixel's middle at 0.5.
        found: The centre that was found; None where none was.
        diameter: Diameter of the circle that has the area of the true structure, in pixels. Ours: areas do not depend
            on how the disc is turned, as its height does.
        reason: Why none was found; empty where one was.
    """

    id: str
    true_center: Center
    found: Center | None
    diameter: float
    reason: str = ""

    @property
    def error(self) -> float:
        """Distance between found and true centre in pixels; NaN where none was found."""
        return math.nan if self.found is None else math.dist(self.found, self.true_center)

    @property
    def error_in_diameters(self) -> float:
        """The same in diameters of the true structure."""
        return self.error / self.diameter


@dataclass(frozen=True)
class LocalizationReport:
    """What localization gave in a data set."""

    images: tuple[LocalizedImage, ...]

    @property
    def failed(self) -> tuple[LocalizedImage, ...]:
        """Images in which no centre was found."""
        return tuple(image for image in self.images if image.found is None)

    def to_dict(self) -> dict[str, Any]:
        """Errors over the images with a centre, and the images without one, for `metrics.json`."""
        found = [image for image in self.images if image.found is not None]
        return {
            "images": len(self.images),
            "found": len(found),
            "error_in_disc_diameters": _summary([image.error_in_diameters for image in found]),
            "error_px": _summary([image.error for image in found]),
            "diameter": "of the circle with the area of the true structure",
            "failed_images_are_scored_as": "background",
            "failed": [{"image": image.id, "reason": image.reason} for image in self.failed],
        }

    def write_csv(self, path: Path) -> None:
        """Write one row per image; what was not found is an empty cell."""
        header = ("true_row_px", "true_column_px", "found_row_px", "found_column_px", "diameter_px", "error_px")
        rows = [
            [
                image.id,
                *map(_cell, (*image.true_center, *(image.found or (math.nan, math.nan)), image.diameter, image.error)),
                _cell(image.error_in_diameters),
                image.reason,
            ]
            for image in self.images
        ]
        write_csv(path, ("image", *header, "error_in_disc_diameters", "reason"), rows)


@dataclass(frozen=True)
class RegionEvaluation:
    """Scores by where the region of interest was.

    Attributes:
        true_centers: Around the true centres.
        found_centers: Around the centres that were found; None for a network that finds none.
        localization: How far those are from each other; None likewise.
    """

    true_centers: EvaluationReport
    found_centers: EvaluationReport | None = None
    localization: LocalizationReport | None = None

    @property
    def report(self) -> EvaluationReport:
        """What a user of the model gets: with the centres that were found, if it finds them."""
        return self.found_centers or self.true_centers

    def to_dict(self) -> dict[str, Any]:
        """Everything for `metrics.json`: the scores of `report`, and beside them those with true centres."""
        if self.found_centers is None or self.localization is None:
            return {"centers": "true", **self.true_centers.to_dict()}
        return {
            "centers": "found",
            **self.found_centers.to_dict(),
            "localization": self.localization.to_dict(),
            "true_centers": self.true_centers.to_dict(),
        }


def evaluate_regions(
    predictor: ImagePredictor,
    dataset: SegmentationDataset,
    *,
    class_names: tuple[str, ...],
    class_groups: ClassGroups = (),
    ignore_index: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> RegionEvaluation:
    """Score a network with a region of interest, alone or behind one that finds the centre.

    Args:
        predictor: Its contract names a region of interest.
        dataset: Images with ground truth, each with something to centre the region on.
        class_names: Classes of the ground truth, in index order.
        class_groups: Structures of several classes.
        ignore_index: Value of the ground truth without a label.
        progress: Called with the id of an image when it was scored with one kind of centre.

    Raises:
        ModelFileError: The weights were trained for other classes.
        DataError: The data set is empty, a file cannot be used, or a mask has nothing to centre the region on.
        UsageError: The network has no region of interest.
    """
    roi = predictor.contract.roi
    if roi is None:
        raise UsageError("this network segments whole images; score it with etnet.inference.evaluate.evaluate")

    def at_true_center(sample: Sample) -> Prediction:
        center = true_center(sample, roi, ignore_index=ignore_index)
        return predictor.predict(sample.image, center=center, probabilities=len(class_names) == 2)

    score = partial(
        evaluate,
        predictor,
        dataset,
        class_names=class_names,
        class_groups=class_groups,
        ignore_index=ignore_index,
        progress=progress,
    )
    true_centers = score(predict=at_true_center)
    if predictor.needs_center:
        return RegionEvaluation(true_centers)
    finding = FoundCenters(predictor, ignore_index)
    found_centers = score(predict=finding.predict)
    return RegionEvaluation(true_centers, found_centers, LocalizationReport(tuple(finding.images.values())))


def prediction_of(predictor: ImagePredictor, *, ignore_index: int | None = None) -> Callable[[Sample], Prediction]:
    """How a sample is predicted for `RegionEvaluation.report`: with the centre that is found, or else the true one."""
    if predictor.needs_center:
        return predict_samples(predictor, ignore_index=ignore_index)
    return FoundCenters(predictor, ignore_index).predict


class FoundCenters:
    """Prediction of samples around the centres that a model finds, and what localization gave in each.

    Args:
        predictor: Finds centres itself.
        ignore_index: Value of the ground truth without a label.

    Attributes:
        images: What localization gave, by the names of the samples that were predicted.
    """

    def __init__(self, predictor: ImagePredictor, ignore_index: int | None = None) -> None:
        self._predictor, self._ignore_index = predictor, ignore_index
        self.images: dict[str, LocalizedImage] = {}

    def predict(self, sample: Sample) -> Prediction:
        """Predict a sample; all background where no centre was found."""
        contract = self._predictor.contract
        probabilities, reason = contract.num_classes == 2, ""
        try:
            prediction = self._predictor.predict(sample.image, probabilities=probabilities)
        except LocalizationFailed as error:
            prediction, reason = background(sample.mask.shape, contract, probabilities=probabilities), str(error)
        structure = sample.mask > 0
        if self._ignore_index is not None:
            structure &= sample.mask != self._ignore_index
        self.images[sample.id] = LocalizedImage(
            sample.id,
            require_center(sample.id, sample.mask, ignore_index=self._ignore_index),
            prediction.center,
            2 * math.sqrt(np.count_nonzero(structure) / math.pi),
            reason,
        )
        return prediction


def background(shape: tuple[int, ...], contract: Contract, *, probabilities: bool) -> Prediction:
    """The prediction of an image [H, W] in which nothing was found: certain background."""
    maps = None
    if probabilities:
        maps = np.zeros((contract.num_classes, *shape), np.float32)
        maps[0] = 1.0
    return Prediction(np.zeros(shape, np.uint8), maps, None)


def _summary(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "median": float(np.median(values)), "max": max(values)}


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
