"""A data set and a recipe so small that a whole training run takes seconds."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.manifest import METADATA_KEY
from etnet.training.result import TrainingResult
from etnet.training.tracking import Observer, SilentObserver
from etnet.training.trainer import train

TINY = (
    "data.crop_size=32",
    "data.validation_fraction=0.25",
    "data.workers=0",
    "model.encoder=test_resnet",
    "model.encoder_weights=none",
    "model.decoder_channels=16",
    "model.edge_channels=8",
    "training.batch_size=2",
    "training.epochs=4",
    "training.validate_every=1",
    "training.save_every=1",
)


def write_disc_folder(root: Path, *, count: int = 8, size: int = 48, seed: int = 0) -> Path:
    """A `folder` data set of bright discs on a dark noisy ground; masks hold 0 and 255."""
    generator = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        center = generator.integers(size // 3, 2 * size // 3, 2).tolist()
        mask = cv2.circle(np.zeros((size, size), np.uint8), center, size // 5, 255, -1)
        image = np.where(mask[..., None] > 0, 190, 60) + generator.integers(-30, 30, (size, size, 3))
        cv2.imwrite(str(root / "images" / f"disc_{index}.png"), image.astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"disc_{index}.png"), mask)
    return root


def tiny_recipe(*overrides: str) -> Recipe:
    """The `folder` recipe made tiny."""
    return load_recipe("folder", [*TINY, *overrides])


def tiny_run(
    recipe: Recipe, data: Path, run: Path, *, resume: bool = False, observer: Observer | None = None
) -> TrainingResult:
    """Train on the CPU into `run`, which is made when it is missing."""
    run.mkdir(parents=True, exist_ok=True)
    return train(
        recipe,
        data_root=data,
        run=run,
        device=torch.device("cpu"),
        observer=observer or SilentObserver(),
        resume=resume,
    )


class StopAfter(SilentObserver):
    """Sends this process a signal when an iteration is done, as Ctrl-C does."""

    def __init__(self, iteration: int, number: signal.Signals = signal.SIGINT) -> None:
        self.iteration, self.number = iteration, number

    def on_step(self, *, iteration: int, **_: float) -> None:
        """Send it."""
        if iteration == self.iteration:
            os.kill(os.getpid(), self.number)


def network_in(tensors: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a network in a checkpoint; without a prefix, those that inference reads."""
    names = [name for name in tensors if (name.startswith(prefix) if prefix else not name.startswith("training/"))]
    return {name.removeprefix(prefix): tensors[name] for name in names}


class FixedScores:
    """Stands for `ValidationScores` of a known Dice."""

    def __init__(self, dice: float) -> None:
        self.mean_foreground_dice = dice

    def row(self) -> dict[str, float]:
        """Columns for metrics.csv."""
        return {"validation_mean_foreground_dice": self.mean_foreground_dice}


def forget_training_range(weights: Path) -> None:
    """Make a weights file one of the time before the range of the training images was stored."""
    with safe_open(weights, framework="numpy") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    del header["contract"]["training_range"]
    save_file(load_file(weights), weights, {METADATA_KEY: json.dumps(header)})
