"""What has to hold before a run begins, goes on or is saved; each refusal is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from etnet.config.schema import Recipe
from etnet.data.dataset import PairedFiles, SegmentationDataset
from etnet.data.roi import no_center
from etnet.errors import CheckFailed, DataError, UsageError
from etnet.manifest import WeightsInfo


def require_structures(dataset: PairedFiles, *, ignore_index: int | None) -> None:
    """Refuse images that would end the run when their turn comes: those without a centre for the region of interest.

    Raises:
        DataError: There is one.
    """
    classes = [{dataset.mask_values[value] for value in values} for values in dataset.values]
    without = [name for name, found in zip(dataset.ids, classes, strict=True) if found <= {0, ignore_index}]
    if without:
        raise no_center(without[0], others=len(without) - 1)


def require_same_images(info: WeightsInfo, ids: Sequence[str], dataset: SegmentationDataset) -> None:
    """Refuse to continue a run on other images than it was trained on.

    Raises:
        DataError: The data folder has changed, or is another one.
    """
    if list(ids) != list(dataset.ids):
        raise DataError(
            f"{info.path}: was trained on {len(ids)} images, the data folder now gives {len(dataset.ids)} or others; "
            "resume with the same --data, or start a new run"
        )


def require_epochs_left(run: Path, *, done: int, total: int, recipe: Recipe, images: int) -> None:
    """Refuse to continue a run to fewer epochs than lie behind it.

    Args:
        run: Run folder.
        done: Iterations that lie behind.
        total: Iterations that the recipe asks for.
        recipe: What to continue with.
        images: Number of training images.

    Raises:
        UsageError: `done` is above `total`.
    """
    if done > total:
        epochs = done * recipe.training.batch_size / images
        raise UsageError(
            f"{run}: {epochs:.4g} epochs are done, which is more than training.epochs={recipe.training.epochs}; "
            "give more with --epochs, or start a new run"
        )


def require_finite_weights(network: nn.Module, iteration: int, *, run: Path) -> None:
    """A step may spoil the weights after its own loss was seen to be finite; only the next loss would tell.

    Raises:
        CheckFailed: Weights of the network are not finite after this iteration.
    """
    spoilt = [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]
    if spoilt:
        raise CheckFailed(
            f"{run}: the weights are not finite after iteration {iteration} ({spoilt[0]} and "
            f"{len(spoilt) - 1} more), so they were not saved; lower optimizer.base_lr, or set "
            "optimizer.clip_gradient_norm: 1.0"
        )
