"""Pictures of the images that were segmented worst and best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from etnet.data.dataset import SegmentationDataset
from etnet.data.io import write_png
from etnet.data.roi import cut, cut_mask, window_around
from etnet.inference.overlay import draw_comparison
from etnet.inference.predictor import ImagePredictor
from etnet.metrics.report import EvaluationReport, ImageScores
from etnet.output import disk_faults
from etnet.types import Contract, Prediction, Sample, UInt8Array

SHOWN_AT_EACH_END = 3

REGION_SIZE = 512
"""Height and width in pixels at which a region of interest is drawn."""


def write_extremes(
    report: EvaluationReport,
    predictor: ImagePredictor,
    dataset: SegmentationDataset,
    folder: Path,
    *,
    ignore_index: int | None = None,
    predict: Callable[[Sample], Prediction] | None = None,
) -> list[Path]:
    """Draw the worst and the best images by mean foreground Dice.

    Each of them is predicted again, so that no prediction has to stay in memory.

    Args:
        report: Scores of the images.
        predictor: Network that was scored.
        dataset: Images with ground truth.
        folder: Where the pictures go; made where it is missing.
        ignore_index: Value of the ground truth without a label.
        predict: How a sample is predicted; by default its whole image by the predictor.

    Returns:
        The pictures `worst_1_<id>.png`, ..., `best_1_<id>.png`, ...
    """
    position = {image_id: index for index, image_id in enumerate(dataset.ids)}
    pictures = []
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ranked = report.worst_to_best()
    predict = predict or (lambda sample: predictor.predict(sample.image, probabilities=False))
    for label, image in choose_extremes(ranked):
        sample = dataset.load(position[image.id])
        scores = report.scores_of(image)
        rank = f"rank {len(ranked) - ranked.index(image)} of {len(ranked)}"
        image_shown, labels, mask = _shown(sample, predict(sample), predictor.contract)
        picture = draw_comparison(
            image_shown,
            labels,
            mask,
            predictor.contract,
            title=f"{image.id}     Dice {scores.mean_dice:.3f}     accuracy {scores.accuracy:.3f}     {rank}",
            ignore_index=ignore_index,
        )
        path = folder / f"{label}_{image.id}.png"
        write_png(path, picture)
        pictures.append(path)
    _remove_former(folder, pictures)
    return pictures


def _shown(sample: Sample, prediction: Prediction, contract: Contract) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Image, predicted and true classes of what is drawn: the region of interest, enlarged, or the whole image."""
    if contract.roi is None or prediction.center is None:
        return sample.image, prediction.labels, sample.mask
    window = window_around(prediction.center, sample.mask.shape, contract.roi)
    return (
        cut(sample.image, window, REGION_SIZE),
        cut_mask(prediction.labels, window, REGION_SIZE),
        cut_mask(sample.mask, window, REGION_SIZE),
    )


def _remove_former(folder: Path, pictures: Sequence[Path]) -> None:
    """Remove what an earlier scoring wrote here under these names: it shows other scores."""
    with disk_faults(folder):
        for label in ("worst", "best"):
            for path in set(folder.glob(f"{label}_[0-9]_*.png")) - set(pictures):
                path.unlink()


def choose_extremes(ranked: Sequence[ImageScores]) -> list[tuple[str, ImageScores]]:
    """Up to three images of each end with labels `worst_1`.. and `best_1`..; no image appears twice."""
    worst = ranked[: min(SHOWN_AT_EACH_END, (len(ranked) + 1) // 2)]
    best = list(reversed(ranked[len(worst) :]))[:SHOWN_AT_EACH_END]
    return [
        (f"{kind}_{number}", image)
        for kind, images in (("worst", worst), ("best", best))
        for number, image in enumerate(images, start=1)
    ]
