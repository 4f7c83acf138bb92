"""Scores a trained network on the test images of its data set, through the code that `etnet evaluate` uses.

Discs and cups are scored inside the square around the disc. Where that lies, a first network finds (paper Sec. 3); what
the same network reaches around the true centres is kept beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from etnet.data.dataset import SegmentationDataset
from etnet.data.datasets import open_dataset
from etnet.data.io import write_png
from etnet.errors import EnvironmentFault
from etnet.inference.evaluate import REGION_OF_INTEREST, evaluate, write_per_image
from etnet.inference.evaluate_regions import RegionEvaluation, evaluate_regions, prediction_of
from etnet.inference.localize import LocalizationRule
from etnet.inference.model_file import ModelDescription
from etnet.inference.predictor import ImagePredictor, Predictor
from etnet.inference.two_stage import TwoStagePredictor
from etnet.metrics.report import WHOLE_IMAGE, EvaluationReport
from etnet.output import disk_faults, write_json
from etnet.reproduce.job import SCORES_FORMAT, Job, pictured
from etnet.types import Prediction, Sample

LOCALIZED_STRUCTURE = "optic_disc"


def score(job: Job) -> None:
    """Write `evaluation/` and `scores.json`.

    Raises:
        DataError: A test image cannot be used.
        ModelFileError: The weights cannot be read.
        EnvironmentFault: There is no localizer, a file cannot be written, or the device has too little memory.
    """
    recipe = job.recipe
    dataset = open_dataset(recipe.data, job.data_root, "test", seed=recipe.training.seed)
    with disk_faults(job.evaluation_folder):
        (job.evaluation_folder / "masks").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        segmenter = stack.enter_context(_open(job.weights, job))
        if recipe.data.roi is None:
            scores = _score_whole_images(job, segmenter, dataset)
            predict = _whole_image_prediction(segmenter)
        else:
            localizer = stack.enter_context(_open(_localizer_weights(job), job))
            both = TwoStagePredictor(localizer, segmenter, LocalizationRule(LOCALIZED_STRUCTURE))
            scores = _score_regions(job, both, dataset)
            predict = prediction_of(both, ignore_index=recipe.data.ignore_index)
        _write_masks(job, predict, dataset)
    write_json(job.scores_file, _common(job) | scores)


def _open(weights: Path, job: Job) -> Predictor:
    return Predictor.load(weights, backend="torch", device=job.device)


def _localizer_weights(job: Job) -> Path:
    if job.localizer is None or not job.localizer.is_file():
        raise EnvironmentFault(
            f"{job.folder}: there is no network that finds the region of interest (expected {job.localizer}); it is "
            "trained before the methods, so mend what made that fail and start again"
        )
    return job.localizer


def _score_whole_images(job: Job, predictor: Predictor, dataset: SegmentationDataset) -> dict[str, Any]:
    data, folder = job.recipe.data, job.evaluation_folder
    report = evaluate(
        predictor,
        dataset,
        class_names=data.class_names,
        class_groups=job.recipe.contract().class_groups,
        ignore_index=data.ignore_index,
    )
    write_json(folder / "metrics.json", {"model": _model(job), **report.to_dict()})
    write_per_image(report, folder / "per_image.csv")
    return {"centers": "", "region": WHOLE_IMAGE, "images": _counts(report, WHOLE_IMAGE)}


def _score_regions(job: Job, predictor: ImagePredictor, dataset: SegmentationDataset) -> dict[str, Any]:
    data, folder = job.recipe.data, job.evaluation_folder
    evaluation: RegionEvaluation = evaluate_regions(
        predictor,
        dataset,
        class_names=data.class_names,
        class_groups=job.recipe.contract().class_groups,
        ignore_index=data.ignore_index,
    )
    write_json(folder / "metrics.json", {"model": _model(job), **evaluation.to_dict()})
    write_per_image(evaluation.report, folder / "per_image.csv")
    write_per_image(evaluation.true_centers, folder / "per_image_true_centers.csv")
    scores: dict[str, Any] = {"centers": "true", "region": REGION_OF_INTEREST}
    if evaluation.localization is not None:
        evaluation.localization.write_csv(folder / "localization.csv")
        scores |= {"centers": "found", "localization": evaluation.localization.to_dict()}
    return scores | {
        "images": _counts(evaluation.report, REGION_OF_INTEREST),
        "images_around_true_centers": _counts(evaluation.true_centers, REGION_OF_INTEREST),
    }


def _model(job: Job) -> dict[str, Any]:
    """What `etnet compare` asks of an evaluation: which weights it scored."""
    return ModelDescription.of_file(job.weights).to_dict()


def _whole_image_prediction(predictor: Predictor) -> Callable[[Sample], Prediction]:
    return lambda sample: predictor.predict(sample.image, probabilities=False)


def _write_masks(job: Job, predict: Callable[[Sample], Prediction], dataset: SegmentationDataset) -> None:
    """Keep what the picture shows of every method."""
    for image_id in pictured(dataset.ids):
        sample = dataset.load(dataset.ids.index(image_id))
        write_png(job.evaluation_folder / "masks" / f"{image_id}.png", predict(sample).labels)


def _common(job: Job) -> dict[str, Any]:
    data = job.recipe.data
    return {
        "format": SCORES_FORMAT,
        "localizer_key": job.localizer_key,
        "localizer_sha256": job.localizer_sha256(),
        "class_names": list(data.class_names),
        "class_groups": {name: list(members) for name, members in data.class_groups.items()},
    }


def _counts(report: EvaluationReport, region: str) -> list[dict[str, Any]]:
    """Confusion matrices per image, from which every figure of the tables follows."""
    return [{"id": image.id, "matrix": image.matrices[region].tolist()} for image in report.images]
