"""Training crops without end in one of two forms, from etnet's data path and from others, and rows that compare them.

Forms: `bytes` are images [N, 3, H, W], masks and edges [N, H, W], all uint8, as etnet's step reads them: its losses
take bytes, and the device normalises. `float32` are normalised images in float32 and int64 targets, which most losses
ask for. Both sides of a row end in the same form, have the decoded images in memory and use one thread.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import side_by_side
import torch
from measurement import Comparison, take_turns
from torch import Tensor

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.datasets import open_dataset
from etnet.data.loader import build_training_loader
from etnet.training.normalisation import Normalisation

Form = Literal["bytes", "float32"]
Crops = tuple[Tensor, Tensor, Tensor]
"""Images, masks, edges of a batch."""

Source = Callable[[SegmentationDataset, Recipe, Form], Iterator[Crops]]
"""Gives batches of a recipe's size from a data set, without end."""

ENDLESS = 10**6
STILL = ("mirror=0", "rotation=0", "color_jitter=0", "scale=[1, 1]")
"""Settings under which a crop of an image's own size is that image."""


def our_crops(dataset: SegmentationDataset, recipe: Recipe, form: Form) -> Iterator[Crops]:
    """etnet's data path, as a run without worker processes reads it."""
    normalise = Normalisation(recipe.contract(), torch.device("cpu"))
    for batch in build_training_loader(dataset, recipe, start_iteration=0, total_iterations=ENDLESS, workers=0):
        if form == "bytes":
            yield batch.images, batch.masks, batch.edges
        else:
            # As a training step begins.
            yield normalise(batch.images), batch.masks.long(), batch.edges.long()


def rows(
    dataset: SegmentationDataset,
    recipe: Recipe,
    rivals: Mapping[str, tuple[Source, str]],
    *,
    forms: tuple[Form, ...],
    rounds: int,
) -> list[Comparison]:
    """Crops per second of ours and of each rival, which take turns with a batch each.

    Args:
        dataset: Where the images come from.
        recipe: What is done to them.
        rivals: By name, with their versions.
        forms: In which the batches end, one row for each.
        rounds: Rounds that count.
    """
    batch_size = recipe.training.batch_size
    compared = []
    for form in forms:
        sources = {"etnet": our_crops, **{name: source for name, (source, _) in rivals.items()}}
        running = {name: source(dataset, recipe, form) for name, source in sources.items()}
        for batches in running.values():  # until every image is decoded and in memory
            for _ in range(-(-len(dataset) // batch_size)):
                next(batches)
        times = take_turns({name: functools.partial(next, own) for name, own in running.items()}, rounds=rounds)
        rates = {name: [1000 * batch_size / value for value in own] for name, own in times.items()}
        for batches in running.values():
            batches.close()  # type: ignore[attr-defined]
        compared += [
            Comparison.of_rounds(
                ("etnet", rates["etnet"]),
                (name, rates[name]),
                version=version,
                better="higher",
                subject="training crops from memory",
                case=f"crops of {recipe.data.crop_size}x{recipe.data.crop_size} by the recipe {recipe.name}, ending in "
                f"{form}, 1 thread",
                unit="crops/s",
                result=agreement(source, form),
            )
            for name, (source, version) in rivals.items()
        ]
    return compared


def agreement(source: Source, form: Form, *, size: int = 96) -> str:
    """What is left of the difference to ours where nothing is changed at random, for drawn pictures, in words."""
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = still_batches(source, form, Path(scratch), size=size)
    if [(part.dtype, part.shape) for part in ours] != [(part.dtype, part.shape) for part in theirs]:
        raise AssertionError(f"the batches end in other forms: {ours[0].dtype} and {theirs[0].dtype}")
    apart, masks, edges = 0.0, 1.0, 1.0
    for image, mask, edge in zip(*theirs, strict=True):
        distances = (ours[0].double() - image.double()).abs().amax(dim=(1, 2, 3))
        nearest = int(distances.argmin())  # both shuffle
        apart = max(apart, float(distances[nearest]))
        masks = min(masks, float((ours[1][nearest] == mask).double().mean()))
        edges = min(edges, float((ours[2][nearest] == edge).double().mean()))
    pixels = "equal pixels" if apart == 0 else f"pixels that differ by at most {apart:.1g}"
    return f"without random changes {pixels}, {masks:.2%} equal labels and {edges:.2%} equal edge targets"


def still_batches(source: Source, form: Form, scratch: Path, *, size: int) -> tuple[Crops, Crops]:
    """A batch of ours and one of theirs of the same images, unchanged."""
    count = 4
    root = side_by_side.draw_pictures(scratch, count=count, size=size)
    recipe = side_by_side.load_recipe(
        "drive",
        [
            "data.dataset=folder",
            "data.validation_fraction=0",
            "model.encoder_weights=none",
            f"data.crop_size={size}",
            f"training.batch_size={count}",
            *(f"augmentation.{setting}" for setting in STILL),
        ],
    )
    dataset = open_dataset(recipe.data, root, "train")
    return next(our_crops(dataset, recipe, form)), next(source(dataset, recipe, form))
