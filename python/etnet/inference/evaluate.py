"""Scores of trained weights on a labelled data set, at each image's own size (paper Sec. 3).

Which scores follow from the predictions is in `etnet.metrics.report`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from etnet.data.dataset import SegmentationDataset
from etnet.data.roi import true_center, window_around
from etnet.errors import DataError, ModelFileError
from etnet.inference.predictor import ImagePredictor
from etnet.metrics.clinical import clinical_measures
from etnet.metrics.overlap import ClassGroups, confusion_matrix
from etnet.metrics.ranking import RankingCounts
from etnet.metrics.report import (
    CLASS_SCORES,
    FIELD_OF_VIEW,
    GENERAL_SCORES,
    SURFACE_SCORES,
    WHOLE_IMAGE,
    EvaluationReport,
    ImageScores,
    surface_values,
)
from etnet.metrics.surface import surface_scores_of
from etnet.output import write_csv
from etnet.types import BoolArray, Prediction, RegionOfInterest, Sample

REGION_OF_INTEREST = "region_of_interest"

Regions = dict[str, BoolArray | None]
"""What is scored apart: names and pixels [H, W]; None is every pixel."""


def evaluate(
    predictor: ImagePredictor,
    dataset: SegmentationDataset,
    *,
    class_names: tuple[str, ...],
    class_groups: ClassGroups = (),
    ignore_index: int | None = None,
    predict: Callable[[Sample], Prediction] | None = None,
    regions: Callable[[Sample], Regions] | None = None,
    progress: Callable[[str], None] | None = None,
) -> EvaluationReport:
    """Predict every image of a data set and score it.

    Args:
        predictor: Network with its contract.
        dataset: Images with ground truth.
        class_names: Classes of the ground truth, in index order.
        class_groups: Structures of several classes, scored beside the classes.
        ignore_index: Value of the ground truth without a label.
        predict: How a sample is predicted; by default as `predict_samples` says.
        regions: What is scored apart in a sample; by default as `regions_of` says.
        progress: Called with the id of each image when it is counted.

    Raises:
        ModelFileError: The weights were trained for other classes.
        DataError: The data set is empty, or one of its files cannot be used.
    """
    check_classes(predictor, class_names)
    if not len(dataset):
        raise DataError("the data set holds no images for this split; choose another with --split")
    predict = predict or predict_samples(predictor, ignore_index=ignore_index)
    regions = regions or partial(regions_of, roi=predictor.contract.roi, ignore_index=ignore_index)
    scorer = _Scorer(class_names, class_groups, ignore_index)
    images = []
    for index in range(len(dataset)):
        sample = dataset.load(index)
        start = time.perf_counter()
        prediction = predict(sample)
        seconds = time.perf_counter() - start
        images.append(scorer.score(sample, prediction, regions(sample), seconds))
        if progress is not None:
            progress(sample.id)
    return EvaluationReport(
        tuple(class_names), tuple(images), tuple(class_groups), scorer.ranking, scorer.ground_truth.hexdigest()
    )


def predict_samples(predictor: ImagePredictor, *, ignore_index: int | None = None) -> Callable[[Sample], Prediction]:
    """Prediction of samples, around the true centre where the predictor needs one and does not find it.

    Probabilities come with it where there are two classes: the area under the ROC curve needs them.
    """
    roi = predictor.contract.roi if predictor.needs_center else None
    probabilities = predictor.contract.num_classes == 2

    def predict(sample: Sample) -> Prediction:
        center = true_center(sample, roi, ignore_index=ignore_index)
        return predictor.predict(sample.image, center=center, probabilities=probabilities)

    return predict


def regions_of(sample: Sample, *, roi: RegionOfInterest | None = None, ignore_index: int | None = None) -> Regions:
    """What is scored apart: the whole image, the field of view of a data set and the region of interest of a network.

    The region of interest is that around the true centre, wherever the network looked.
    """
    regions: Regions = {WHOLE_IMAGE: None}
    if sample.field_of_view is not None:
        regions[FIELD_OF_VIEW] = sample.field_of_view
    center = true_center(sample, roi, ignore_index=ignore_index)
    if roi is not None and center is not None:
        regions[REGION_OF_INTEREST] = window_around(center, sample.mask.shape, roi).inside(sample.mask.shape)
    return regions


class _Scorer:
    """Scores images one by one and keeps what is pooled over them."""

    def __init__(self, class_names: tuple[str, ...], class_groups: ClassGroups, ignore_index: int | None) -> None:
        self.class_names = class_names
        self.ignore_index = ignore_index
        self.structures = {name: (index,) for index, name in enumerate(class_names) if index} | dict(class_groups)
        self.ranking: dict[str, RankingCounts] = {}
        self.ground_truth = hashlib.sha256()

    def score(self, sample: Sample, prediction: Prediction, regions: Regions, seconds: float) -> ImageScores:
        self.ground_truth.update(f"{sample.id} {sample.mask.shape}".encode() + np.ascontiguousarray(sample.mask).data)
        labels, mask = prediction.labels, sample.mask
        labelled = None if self.ignore_index is None else mask != self.ignore_index
        scored = {name: _both(where, labelled) for name, where in regions.items()}
        ranking = self._rank(prediction, sample, scored)
        for name, counts in ranking.items():
            self.ranking[name] = self.ranking[name] + counts if name in self.ranking else counts
        return ImageScores(
            id=sample.id,
            matrices={
                name: confusion_matrix(
                    labels, mask, num_classes=len(self.class_names), ignore_index=self.ignore_index, where=where
                )
                for name, where in regions.items()
            },
            seconds=seconds,
            surface={
                name: surface_scores_of(labels, mask, self.structures, where=where) for name, where in scored.items()
            },
            clinical=clinical_measures(
                labels,
                mask,
                self.structures,
                field_of_view=None if sample.field_of_view is None else _both(sample.field_of_view, labelled),
                labelled=labelled,
                reference_cdr=sample.reference_cdr,
            ),
            auc={name: counts.auc for name, counts in ranking.items()},
            ranking={name: counts.coarse() for name, counts in ranking.items()},
        )

    def _rank(self, prediction: Prediction, sample: Sample, regions: Regions) -> dict[str, RankingCounts]:
        if len(self.class_names) != 2 or prediction.probabilities is None:
            return {}
        positive = sample.mask == 1
        return {
            name: RankingCounts.from_probabilities(prediction.probabilities[1], positive, where=where)
            for name, where in regions.items()
        }


def check_classes(predictor: ImagePredictor, class_names: tuple[str, ...]) -> None:
    """Refuse weights that were trained for other classes than the data set has.

    Raises:
        ModelFileError: The class names differ.
    """
    trained = predictor.contract.class_names
    if tuple(class_names) != trained:
        raise ModelFileError(
            f"a weights file for other classes: it was trained for {', '.join(trained)}, "
            f"the data set has {', '.join(class_names)}; use weights trained for these classes"
        )


def write_per_image(report: EvaluationReport, path: Path) -> None:
    """Write one row per image with the scores of every region; an undefined score is an empty cell."""
    rows = [_row(report, image) for image in report.images]
    header = dict.fromkeys(column for row in rows for column in row)
    write_csv(
        path,
        ["image", *header, "seconds"],
        [
            [image.id, *(_cell(row.get(column)) for column in header), f"{image.seconds:.4f}"]
            for image, row in zip(report.images, rows, strict=True)
        ],
    )


def _row(report: EvaluationReport, image: ImageScores) -> dict[str, float | None]:
    """All scores of an image by their column."""
    row: dict[str, float | None] = {}
    for region in report.regions:
        values = report.scores_of(image, region).to_dict() if region in image.matrices else {}
        row |= {f"{region}_{score}": values.get(score) for score in GENERAL_SCORES}
        places = [("classes", name) for name in report.class_names] + [
            ("groups", name) for name, _ in report.class_groups
        ]
        for kind, name in places:
            scores = values.get(kind, {}).get(name, {})
            row |= {f"{region}_{name}_{score}": scores.get(score) for score in CLASS_SCORES}
        for name in report.regions[region].boundary:
            surface = image.surface.get(region, {})
            scores = surface_values(surface[name]) if name in surface else {}
            row |= {f"{region}_{name}_{score}": scores.get(score) for score in SURFACE_SCORES}
        if report.regions[region].auc is not None:
            row[f"{region}_auc"] = image.auc.get(region)
    return row | image.clinical


def _cell(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.6f}"


def _both(first: BoolArray | None, second: BoolArray | None) -> BoolArray | None:
    if first is None or second is None:
        return second if first is None else first
    return np.logical_and(first, second)
