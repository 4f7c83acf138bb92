"""Scores of trained weights on a labelled data set, at each image's own size (paper Sec. 3).

Two figures are always told apart: `pooled` counts the pixels of all images together, as the paper's tables are read
here, and `image_mean` scores every image and averages. Data sets with a field of view get both for both regions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etnet.data.dataset import SegmentationDataset
from etnet.data.io import write_png
from etnet.errors import DataError, ModelFileError
from etnet.inference.overlay import draw_comparison
from etnet.inference.predictor import Predictor
from etnet.metrics.overlap import ConfusionMatrix, OverlapScores, confusion_matrix, mean_of_defined
from etnet.output import disk_faults, write_csv
from etnet.types import BoolArray

WHOLE_IMAGE = "whole_image"
FIELD_OF_VIEW = "field_of_view"
SHOWN_AT_EACH_END = 3

_CLASS_SCORES = ("dice", "iou", "sensitivity", "specificity")


@dataclass(frozen=True)
class ImageCounts:
    """One image: its confusion matrices [C, C] per region, and the seconds its prediction took."""

    id: str
    matrices: dict[str, ConfusionMatrix]
    seconds: float


@dataclass(frozen=True)
class RegionScores:
    """Scores of one region over a data set.

    Attributes:
        pooled: Scores of the pixels of all images counted together.
        image_mean: Mean over images of each image's scores, in the layout of `OverlapScores.to_dict` without `pixels`;
            an image where a score is undefined is left out of that score's mean.
        images: Number of images that have this region.
    """

    pooled: OverlapScores
    image_mean: dict[str, Any]
    images: int


@dataclass(frozen=True)
class EvaluationReport:
    """Counts of every image, and the scores that follow from them."""

    class_names: tuple[str, ...]
    images: tuple[ImageCounts, ...]

    @property
    def regions(self) -> dict[str, RegionScores]:
        """Scores per region: the whole image always, the field of view where the data set has one."""
        names = [WHOLE_IMAGE]
        if any(FIELD_OF_VIEW in image.matrices for image in self.images):
            names.append(FIELD_OF_VIEW)
        return {name: self._region(name) for name in names}

    def scores_of(self, image: ImageCounts, region: str = WHOLE_IMAGE) -> OverlapScores:
        """Scores of one image in one region."""
        return OverlapScores.from_confusion(image.matrices[region], self.class_names)

    def worst_to_best(self) -> list[ImageCounts]:
        """Images by mean foreground Dice; those without any foreground, true or predicted, are left out."""
        dice = {image.id: self.scores_of(image).mean_dice for image in self.images}
        ranked = [image for image in self.images if not math.isnan(dice[image.id])]
        return sorted(ranked, key=lambda image: (dice[image.id], image.id))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the matrices, for `metrics.json`."""
        return {
            "images": len(self.images),
            "seconds_per_image": round(math.fsum(image.seconds for image in self.images) / len(self.images), 4),
            "regions": {
                name: {"images": region.images, "pooled": region.pooled.to_dict(), "image_mean": region.image_mean}
                for name, region in self.regions.items()
            },
        }

    def _region(self, name: str) -> RegionScores:
        matrices = [image.matrices[name] for image in self.images if name in image.matrices]
        each = [OverlapScores.from_confusion(matrix, self.class_names).to_dict() for matrix in matrices]
        pooled = OverlapScores.from_confusion(np.sum(matrices, axis=0), self.class_names)
        return RegionScores(pooled, _mean_scores(each, self.class_names), len(matrices))


def evaluate(
    predictor: Predictor,
    dataset: SegmentationDataset,
    *,
    class_names: tuple[str, ...],
    ignore_index: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> EvaluationReport:
    """Predict every image of a data set and count its pixels by true and predicted class.

    Args:
        predictor: Network with its contract.
        dataset: Images with ground truth.
        class_names: Classes of the ground truth, in index order.
        ignore_index: Value of the ground truth without a label.
        progress: Called with the id of each image when it is counted.

    Raises:
        ModelFileError: The weights were trained for other classes.
        DataError: The data set is empty, or one of its files cannot be used.
    """
    check_classes(predictor, class_names)
    if not len(dataset):
        raise DataError("the data set holds no images for this split; choose another with --split")
    images = []
    for index in range(len(dataset)):
        sample = dataset.load(index)
        start = time.perf_counter()
        labels = predictor.predict(sample.image, probabilities=False).labels
        seconds = time.perf_counter() - start
        regions: dict[str, BoolArray | None] = {WHOLE_IMAGE: None}
        if sample.field_of_view is not None:
            regions[FIELD_OF_VIEW] = sample.field_of_view
        matrices = {
            name: confusion_matrix(
                labels, sample.mask, num_classes=len(class_names), ignore_index=ignore_index, where=where
            )
            for name, where in regions.items()
        }
        images.append(ImageCounts(sample.id, matrices, seconds))
        if progress is not None:
            progress(sample.id)
    return EvaluationReport(tuple(class_names), tuple(images))


def check_classes(predictor: Predictor, class_names: tuple[str, ...]) -> None:
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
    regions = list(report.regions)
    scores = [f"{name}_{score}" for name in report.class_names for score in _CLASS_SCORES]
    general = ("accuracy", "mean_iou", "mean_foreground_dice")
    header = ["image", *(f"{region}_{column}" for region in regions for column in (*general, *scores)), "seconds"]
    rows = []
    for image in report.images:
        row: list[object] = [image.id]
        for region in regions:
            values = report.scores_of(image, region).to_dict() if region in image.matrices else None
            row += _cells(values, report.class_names, general)
        rows.append([*row, f"{image.seconds:.4f}"])
    write_csv(path, header, rows)


def write_extremes(
    report: EvaluationReport,
    predictor: Predictor,
    dataset: SegmentationDataset,
    folder: Path,
    *,
    ignore_index: int | None = None,
) -> list[Path]:
    """Draw the worst and the best images by mean foreground Dice.

    Each of them is predicted again, so that no prediction has to stay in memory.

    Returns:
        The pictures `worst_1_<id>.png`, ..., `best_1_<id>.png`, ...
    """
    position = {image_id: index for index, image_id in enumerate(dataset.ids)}
    pictures = []
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ranked = report.worst_to_best()
    for label, image in choose_extremes(ranked):
        sample = dataset.load(position[image.id])
        scores = report.scores_of(image)
        rank = f"rank {len(ranked) - ranked.index(image)} of {len(ranked)}"
        picture = draw_comparison(
            sample.image,
            predictor.predict(sample.image, probabilities=False).labels,
            sample.mask,
            predictor.contract,
            title=f"{image.id}     Dice {scores.mean_dice:.3f}     accuracy {scores.accuracy:.3f}     {rank}",
            ignore_index=ignore_index,
        )
        path = folder / f"{label}_{image.id}.png"
        write_png(path, picture)
        pictures.append(path)
    _remove_former(folder, pictures)
    return pictures


def _remove_former(folder: Path, pictures: Sequence[Path]) -> None:
    """Remove what an earlier scoring wrote here under these names: it shows other scores."""
    with disk_faults(folder):
        for label in ("worst", "best"):
            for path in set(folder.glob(f"{label}_[0-9]_*.png")) - set(pictures):
                path.unlink()


def choose_extremes(ranked: Sequence[ImageCounts]) -> list[tuple[str, ImageCounts]]:
    """Up to three images of each end with labels `worst_1`.. and `best_1`..; no image appears twice."""
    worst = ranked[: min(SHOWN_AT_EACH_END, (len(ranked) + 1) // 2)]
    best = list(reversed(ranked[len(worst) :]))[:SHOWN_AT_EACH_END]
    return [
        (f"{kind}_{number}", image)
        for kind, images in (("worst", worst), ("best", best))
        for number, image in enumerate(images, start=1)
    ]


def _mean_scores(each: Sequence[dict[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    def mean(values: list[float | None]) -> float | None:
        result = mean_of_defined([value for value in values if value is not None])
        return None if math.isnan(result) else result

    return {
        **{key: mean([scores[key] for scores in each]) for key in ("accuracy", "mean_iou", "mean_foreground_dice")},
        "classes": {
            name: {score: mean([scores["classes"][name][score] for scores in each]) for score in _CLASS_SCORES}
            for name in class_names
        },
    }


def _cells(values: dict[str, Any] | None, class_names: Sequence[str], general: Sequence[str]) -> list[str]:
    if values is None:
        return [""] * (len(general) + len(class_names) * len(_CLASS_SCORES))
    numbers = [values[key] for key in general]
    numbers += [values["classes"][name][score] for name in class_names for score in _CLASS_SCORES]
    return ["" if number is None else f"{number:.6f}" for number in numbers]
