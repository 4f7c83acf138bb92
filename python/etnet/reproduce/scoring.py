"""Scores a trained network on the test images of its data set, through the code that `etnet evaluate` uses."""

from __future__ import annotations

from etnet.data.dataset import SegmentationDataset
from etnet.data.datasets import open_dataset
from etnet.data.io import write_png
from etnet.inference.evaluate import evaluate, write_per_image
from etnet.inference.predictor import Predictor
from etnet.metrics.report import WHOLE_IMAGE, EvaluationReport
from etnet.output import disk_faults, write_json
from etnet.reproduce.job import SCORES_FORMAT, Job, pictured


def score(job: Job) -> None:
    """Write `evaluation/` and `scores.json`.

    Raises:
        DataError: A test image cannot be used.
        ModelFileError: The weights cannot be read.
        EnvironmentFault: A file cannot be written, or the device has too little memory.
    """
    recipe, folder = job.recipe, job.evaluation_folder
    dataset = open_dataset(recipe.data, job.data_root, "test", seed=recipe.training.seed)
    with disk_faults(folder):
        (folder / "masks").mkdir(parents=True, exist_ok=True)
    with Predictor.load(job.weights, backend="torch", device=job.device) as predictor:
        report = evaluate(
            predictor,
            dataset,
            class_names=recipe.data.class_names,
            class_groups=recipe.contract().class_groups,
            ignore_index=recipe.data.ignore_index,
        )
        write_json(folder / "metrics.json", report.to_dict())
        write_per_image(report, folder / "per_image.csv")
        _write_masks(job, predictor, dataset)
    write_json(job.scores_file, _counts(job, report))


def _write_masks(job: Job, predictor: Predictor, dataset: SegmentationDataset) -> None:
    """Keep what the picture shows of every method."""
    for image_id in pictured(dataset.ids):
        sample = dataset.load(dataset.ids.index(image_id))
        labels = predictor.predict(sample.image, probabilities=False).labels
        write_png(job.evaluation_folder / "masks" / f"{image_id}.png", labels)


def _counts(job: Job, report: EvaluationReport) -> dict[str, object]:
    """Confusion matrices per image, from which every figure of the tables follows."""
    data = job.recipe.data
    return {
        "format": SCORES_FORMAT,
        "centers": job.centers,
        "region": WHOLE_IMAGE,
        "class_names": list(data.class_names),
        "class_groups": {name: list(members) for name, members in data.class_groups.items()},
        "images": [{"id": image.id, "matrix": image.matrices[WHOLE_IMAGE].tolist()} for image in report.images],
    }
