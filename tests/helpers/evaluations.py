"""Folders as `etnet evaluate` leaves them, written in a moment."""

from __future__ import annotations

from pathlib import Path

from etnet.inference.evaluate import evaluate, write_per_image
from etnet.inference.predictor import Predictor
from etnet.output import write_json
from etnet.types import Sample
from helpers.backends import CLASS_NAMES, PixelBackend, contract
from helpers.samples import Samples


def write_evaluation(folder: Path, *samples: Sample, sha256: str = "0" * 64, **options) -> Path:
    """An evaluation of these samples by `PixelBackend`."""
    folder.mkdir(parents=True)
    predictor = Predictor(PixelBackend(), contract())
    report = evaluate(predictor, Samples(*samples), class_names=CLASS_NAMES, **options)
    model = {"path": f"{folder.name}.safetensors", "sha256": sha256, "recipe": "small", "epoch": 1}
    write_json(folder / "metrics.json", {"model": model, **report.to_dict()})
    write_per_image(report, folder / "per_image.csv")
    return folder
