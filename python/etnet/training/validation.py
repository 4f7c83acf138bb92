"""Scores on the held-out images during training, by the code that users predict with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.roi import true_center
from etnet.inference.backends.torch_backend import TorchBackend
from etnet.inference.predictor import Predictor
from etnet.metrics.overlap import OverlapScores, confusion_matrix
from etnet.models import SegmentationNetwork
from etnet.training.distributed import ALONE, ProcessGroup


@dataclass(frozen=True)
class ValidationScores:
    """Pooled scores over the held-out images.

    Attributes:
        overlap: All scores, each image at its own size.
    """

    overlap: OverlapScores

    @property
    def mean_foreground_dice(self) -> float:
        """Mean Dice over the classes but the background that occur; 0 when none does."""
        dice = [value for value in self.overlap.dice[1:] if not math.isnan(value)]
        return float(np.mean(dice)) if dice else 0.0

    def row(self) -> dict[str, float]:
        """Columns for metrics.csv; classes and groups that do not occur are left out."""
        row = {
            "validation_mean_iou": self.overlap.mean_iou,
            "validation_accuracy": self.overlap.accuracy,
            "validation_mean_foreground_dice": self.mean_foreground_dice,
        }
        names = self.overlap.class_names[1:]
        row |= {f"validation_dice_{name}": value for name, value in zip(names, self.overlap.dice[1:], strict=True)}
        row |= {f"validation_dice_{name}": scores["dice"] for name, scores in self.overlap.groups.items()}
        return {key: float(value) for key, value in row.items() if not math.isnan(value)}


def validate(
    network: SegmentationNetwork, dataset: SegmentationDataset, *, recipe: Recipe, group: ProcessGroup = ALONE
) -> ValidationScores:
    """Predict in float32, as users do, and score every image of a data set; the network is left in training mode.

    Where the recipe names a region of interest, it is the one around the true centre: what finds it is another network,
    which is not being trained here. The score is over the whole image, with background around the region.

    Args:
        network: On its device.
        dataset: Held-out images, at least one.
        recipe: Names the classes and the ignored index.
        group: Processes that share the images; all call this and get the same scores, those of one process.
    """
    contract = recipe.contract()
    device = str(next(network.parameters()).device)
    predictor = Predictor(TorchBackend(network, contract, device=device), contract)
    total = np.zeros((contract.num_classes, contract.num_classes), np.int64)
    try:
        for index in range(group.rank, len(dataset), group.world_size):
            sample = dataset.load(index)
            center = true_center(sample, contract.roi, ignore_index=recipe.data.ignore_index)
            labels = predictor.predict(sample.image, center=center, probabilities=False).labels
            total += confusion_matrix(
                labels, sample.mask, num_classes=contract.num_classes, ignore_index=recipe.data.ignore_index
            )
    finally:
        network.train()
    total = group.total(total, torch.device(device))
    return ValidationScores(OverlapScores.from_confusion(total, contract.class_names, contract.class_groups))
