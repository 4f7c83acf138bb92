"""What a training says before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from etnet.config.schema import Recipe
from etnet.data.dataset import PairedFiles


def what_is_trained(
    recipe: Recipe, training_set: PairedFiles, *, held_out: int, device: torch.device, run: Path
) -> Iterator[str]:
    """Sentences on network, images and place, and warnings of classes that no image shows and of nothing held out.

    Args:
        recipe: All choices.
        training_set: Images that are trained on.
        held_out: Number of images that are not.
        device: Where the network is trained.
        run: Run folder.
    """
    model = recipe.model
    what = f"{model.name} with {model.encoder}" if model.traits.has_encoder else model.name
    yield f"Training {what} on {device} into {run}"
    count, fold = len(training_set), recipe.data.fold
    held = "held out" if fold is None else f"held out as fold {fold}"
    yield f"{count} training {'image' if count == 1 else 'images'}, {held_out} {held}"
    if not held_out and recipe.data.validation_fraction:
        there_is = "all images are of one patient" if training_set.patients else "there is only one image"
        yield f"Warning: {there_is}, so none is held out, and no score tells which weights are best"
    names = recipe.data.class_names
    absent = [name for index, name in enumerate(names) if index not in training_set.classes_present]
    if absent:
        yield (
            f"Warning: no training mask holds {', '.join(absent)}, so the network will not learn that; "
            "see data.class_names and data.mask_values"
        )
