"""Data paths that people write themselves beside etnet's: torchvision transforms v2, and OpenCV alone.

    benchmarks/peers/.venvs/data/bin/python benchmarks/peers/peer_data.py --data DRIVE/ --json FILE

All make crops by the recipe `drive` from decoded images in memory, on one thread, in both forms of `crop_sources.py`.
torchvision's pipeline is that of `plain_pipeline.py`, the one of OpenCV that of `opencv_crops.py`. torchvision fills
what a rotation uncovers with black; OpenCV and etnet reflect.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import crop_sources
import side_by_side
import torch
from crop_sources import ENDLESS, Crops, Form, Source
from opencv_crops import opencv_crops
from plain_pipeline import PlainDataset
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms import v2

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset

SMOKE = ("data.crop_size=64", "training.batch_size=2")


def torchvision_crops(dataset: SegmentationDataset, recipe: Recipe, form: Form) -> Iterator[Crops]:
    """Batches without end of the plain data path; see `crop_sources`."""
    plain = PlainDataset(dataset, recipe, keep_decoded=True)
    for index in range(len(plain)):
        plain[index]  # decodes and keeps it
    if form == "bytes":
        # Without what follows the last change: conversion and normalisation.
        plain.transforms = v2.Compose(plain.transforms.transforms[:-2])
    # With replacement, so that no epoch ends and every batch is full.
    sampler = RandomSampler(plain, replacement=True, num_samples=ENDLESS)
    for image, mask, edge in DataLoader(plain, batch_size=recipe.training.batch_size, sampler=sampler):
        yield (image, mask, edge.to(torch.uint8)) if form == "bytes" else (image, mask, edge)


def rivals() -> dict[str, tuple[Source, str]]:
    """The data paths beside ours, with the versions of their packages."""
    return {
        "torchvision v2": (torchvision_crops, version("torchvision")),
        "OpenCV": (opencv_crops, version("opencv-python-headless")),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = side_by_side.arguments(__doc__, rounds=9, words=words)
    side_by_side.use_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        dataset, recipe = side_by_side.open_pictures(options, Path(scratch), *(SMOKE if options.smoke else ()))
        rows = crop_sources.rows(dataset, recipe, rivals(), forms=("bytes", "float32"), rounds=options.rounds)
    options.threads = 1
    side_by_side.conclude(
        options,
        rows,
        peer="data",
        what="training crops per second of data paths written with torchvision v2 and with OpenCV",
        packages=("torchvision",),
        figures={"pictures": len(dataset), "batch_size": recipe.training.batch_size},
    )


if __name__ == "__main__":
    main()
