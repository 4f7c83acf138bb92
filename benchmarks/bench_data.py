"""Training samples per second and core: the product's data path and one as people write it with torchvision v2.

    taskset -c 1 python benchmarks/bench_data.py --data DRIVE/ --json data.json

All contestants make the crops of one recipe in this process, with one thread: mirror, scale, rotation, crop, colours,
edge target, stacked to batches. `plain` (see plain_pipeline.py) and `memory` have the decoded images in memory; `disk`
reads them from the files of the cache, `file` and `plain_file` decode them every time. Plain batches are normalised
float32 with int64 targets, which their losses need. Ours are bytes: our losses read them as they are, and the step
normalises where the network runs; `complete` is `memory` with that done by the processor.

Each round runs every contestant once, so that a slow moment of the machine hits all of them; medians over the rounds
are reported, and a ratio is the median of the rounds' ratios. Before the first round every contestant has seen every
image.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from measurement import Comparison, Target, write_result
from measurement import show as show_verdicts
from plain_pipeline import PlainDataset
from torch.utils.data import DataLoader, RandomSampler

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.datasets import open_dataset
from etnet.data.loader import Batch, build_training_loader
from etnet.environment.versions import versions
from etnet.training.normalisation import Normalisation

BASE = "plain"
ENDLESS = 10**6
SAMPLES_PER_SECOND = 200.0
SPEEDUP = 8.0
"""What `memory` is meant to reach on one core with the recipe `drive`: by itself, and beside `plain`."""

RIVALS = {
    "memory": (BASE, "bytes, which the step normalises"),
    "disk": (BASE, "bytes, which the step normalises"),
    "complete": (BASE, "normalised float32 like theirs"),
    "file": ("plain_file", "bytes, which the step normalises"),
}
"""What each of ours is compared with, and what its batches hold."""

NAMES = {
    BASE: "torchvision v2, decoded images in memory",
    "plain_file": "torchvision v2, files decoded every time",
    "memory": "etnet, images in memory",
    "disk": "etnet, images in the disk cache",
    "complete": "etnet, images in memory, normalised",
    "file": "etnet, files decoded every time",
}

LIMITS: dict[str, dict[str, float]] = {
    "memory": {},
    "complete": {},
    "disk": {"cache_memory": 0.0},
    "file": {"cache_memory": 0.0, "cache_disk": 0.0},
}
"""Settings of the recipe's data section for each of our contestants."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--recipe", default="drive", help="whose crops are made [default: drive]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=3, help="of each contestant in a round [default: 3]")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args(words)


def plain_batches(dataset: SegmentationDataset, recipe: Recipe, *, keep_decoded: bool) -> Iterator[Any]:
    """Batches without end of the plain data path."""
    plain = PlainDataset(dataset, recipe, keep_decoded=keep_decoded)
    for index in range(len(plain) if keep_decoded else 0):
        plain[index]
    # With replacement, so that no epoch ends and every batch is full.
    sampler = RandomSampler(plain, replacement=True, num_samples=ENDLESS)
    yield from DataLoader(plain, batch_size=recipe.training.batch_size, sampler=sampler)


def our_batches(dataset: SegmentationDataset, recipe: Recipe, name: str, folder: Path) -> Iterator[Batch]:
    """Batches without end of the product's data path, as a run reads them."""
    limited = recipe.model_copy(update={"data": recipe.data.model_copy(update=LIMITS[name])})
    batches = build_training_loader(
        dataset, limited, start_iteration=0, total_iterations=ENDLESS, workers=0, cache_folder=folder
    )
    if name == "complete":
        normalise = Normalisation(recipe.contract(), torch.device("cpu"))
        yield from (batch._replace(images=normalise(batch.images)) for batch in batches)
    else:
        yield from batches


def contestants(dataset: SegmentationDataset, recipe: Recipe, folder: Path) -> dict[str, Iterator[Any]]:
    """Batches without end by name; the first is what others are compared with."""
    return {
        BASE: plain_batches(dataset, recipe, keep_decoded=True),
        **{name: our_batches(dataset, recipe, name, folder / name) for name in LIMITS},
        "plain_file": plain_batches(dataset, recipe, keep_decoded=False),
    }


def measure(options: argparse.Namespace, recipe: Recipe) -> dict[str, list[float]]:
    """Seconds per sample of every contestant in every round."""
    dataset = open_dataset(recipe.data, options.data, "train")
    size = recipe.training.batch_size
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        running = contestants(dataset, recipe, Path(folder))
        for batches in running.values():
            seconds_of(batches, -(-len(dataset) // size))
        for _ in range(options.rounds):
            for name, batches in running.items():
                seconds.setdefault(name, []).append(seconds_of(batches, options.batches) / options.batches / size)
        for batches in running.values():
            batches.close()  # type: ignore[attr-defined]
    return seconds


def seconds_of(batches: Iterator[Any], count: int) -> float:
    """Time to make so many batches."""
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - begin


def row(seconds: list[float], base: list[float]) -> dict[str, float]:
    """Figures of one contestant from its seconds per sample in every round, and those of the base."""
    median = statistics.median(seconds)
    return {
        "samples_per_s": round(1 / median, 1),
        "ms_per_sample": round(1000 * median, 3),
        "fastest_ms": round(1000 * min(seconds), 3),
        "speedup": round(statistics.median(b / own for b, own in zip(base, seconds, strict=True)), 2),
    }


COLUMNS = {
    "samples_per_s": "samples/s",
    "ms_per_sample": "ms/sample",
    "fastest_ms": "fastest ms",
    "speedup": "x plain",
}


def show(results: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    print(" " * 12 + "".join(f"{heading:>12}" for heading in COLUMNS.values()))
    for name, figures in results.items():
        print(f"{name:12}" + "".join(f"{figures[column]:12.2f}" for column in COLUMNS))


def compared(seconds: dict[str, list[float]], recipe: Recipe) -> list[Comparison]:
    """Each of ours beside the plain path that has its images from the same place."""
    rates = {name: [1 / value for value in values] for name, values in seconds.items()}
    side = recipe.data.crop_size
    return [
        Comparison.of_rounds(
            (NAMES[own], rates[own]),
            (NAMES[rival], rates[rival]),
            version=versions(("torchvision",))["torchvision"],
            better="higher",
            subject="training samples on one core",
            case=f"recipe {recipe.name}, crops of {side}x{side}, batch {recipe.training.batch_size}",
            unit="samples/s",
            result=f"same recipe, other random crops; ours are {form}",
            target=SPEEDUP if own == "memory" else None,
        )
        for own, (rival, form) in RIVALS.items()
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = arguments(words)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    recipe = load_recipe(options.recipe, options.set)
    seconds = measure(options, recipe)
    results = {name: row(values, seconds[BASE]) for name, values in seconds.items()}
    print(f"{recipe.name}: crops of {recipe.data.crop_size} x {recipe.data.crop_size}, one thread")
    show(results)
    comparisons = compared(seconds, recipe)
    targets = [
        Target(
            "training samples from memory on one core, samples/s",
            SAMPLES_PER_SECOND,
            results["memory"]["samples_per_s"],
        )
    ]
    show_verdicts(comparisons, targets)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="data",
            what="training samples on one core: the product's data path beside one written with torchvision v2",
            figures={
                "device": "cpu",
                "threads": 1,
                "data": options.data.name,
                "recipe": recipe.name,
                "set": options.set,
                "crop_size": recipe.data.crop_size,
                "batch_size": recipe.training.batch_size,
                "rounds": options.rounds,
                "batches_per_round": options.batches,
                "results": results,
            },
            comparisons=comparisons,
            targets=targets,
            packages=("torchvision",),
        )


if __name__ == "__main__":
    main()
