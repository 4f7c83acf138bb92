"""Folders of drawn images, runs over them by pixel arithmetic, and what such a run leaves."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from etnet.inference.folder import predict_folder
from etnet.inference.inputs import find_inputs
from etnet.inference.pipeline import Work
from etnet.inference.predictor import Predictor
from etnet.inference.result_files import OutputChoice
from helpers.backends import PixelBackend, contract, image_of


def save(path: Path, labels: np.ndarray, **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_of(labels)).save(path, **options)
    return labels


def grey_of(labels: np.ndarray) -> np.ndarray:
    """Grey values of which `PixelBackend` makes these labels; as edges they are told from labels by the last class."""
    return np.where(labels == 2, 77, labels).astype(np.uint8)


def run(inputs: Path, output: Path, *, backend: PixelBackend | None = None, **options):
    output.mkdir(exist_ok=True)
    return predict(Predictor(backend or PixelBackend(), contract()), find_inputs(inputs), output, **options)


def predict(predictor, inputs, output: Path, *, overlay=False, edges=True, batch_size=1, **options):
    """Segment a folder; edges are written unless a test says otherwise."""
    choice = OutputChoice(overlay=overlay, edges=edges)
    return predict_folder(predictor, inputs, output, choice=choice, work=Work(batch_size), **options)


def failures(outcome) -> list[tuple[str, str]]:
    return list(outcome.failures())


def stored(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def failed_rows(output: Path) -> list[list[str]]:
    with (output / "failed.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def measurement_rows(output: Path) -> list[dict[str, str]]:
    with (output / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
