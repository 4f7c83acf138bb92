"""Training samples per second and core: the product's data path and one as people write it with torchvision v2.

    taskset -c 1 python benchmarks/bench_data.py --data DRIVE/ --json benchmarks/results/data_cpu_2026-11-24.json

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
from plain_pipeline import PlainDataset
from torch.utils.data import DataLoader, RandomSampler

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.datasets import open_dataset
from etnet.data.loader import Batch, build_training_loader
from etnet.environment.versions import versions
from etnet.export.benchmark import environment
from etnet.output import write_json

BASE = "plain"
ENDLESS = 10**6
TARGETS = {"samples_per_s": 200.0, "speedup": 8.0}
"""What `memory` is meant to reach on one core with the recipe `drive`."""

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
    yield from (completed(batch, recipe) for batch in batches) if name == "complete" else batches


def completed(batch: Batch, recipe: Recipe) -> Batch:
    """What a step on the processor makes of a batch before the network sees it."""
    contract = recipe.contract()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (contract.mean, contract.std))
    return batch._replace(images=((batch.images.float() - mean) / std).to(memory_format=torch.channels_last))


def contestants(dataset: SegmentationDataset, recipe: Recipe, folder: Path) -> dict[str, Iterator[Any]]:
    """Batches without end by name; the first is what others are compared with."""
    return {
        BASE: plain_batches(dataset, recipe, keep_decoded=True),
        **{name: our_batches(dataset, recipe, name, folder / name) for name in LIMITS},
        "plain_file": plain_batches(dataset, recipe, keep_decoded=False),
    }


def measure(options: argparse.Namespace, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Samples per second of every contestant, and their ratios to the plain path."""
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
    return {name: row(values, seconds[BASE]) for name, values in seconds.items()}


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


def judge(results: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """Every target, printed with the figure and whether it is met."""
    verdicts: list[dict[str, object]] = []
    for figure, bound in TARGETS.items():
        value = results["memory"][figure]
        verdicts.append({"figure": figure, "bound": bound, "value": value, "met": value >= bound})
        print(f"  target: memory {figure} >= {bound:g}; got {value:g}; met: {'yes' if value >= bound else 'no'}")
    return verdicts


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = arguments(words)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    recipe = load_recipe(options.recipe, options.set)
    results = measure(options, recipe)
    print(f"{recipe.name}: crops of {recipe.data.crop_size} x {recipe.data.crop_size}, one thread")
    show(results)
    figures: dict[str, Any] = {
        "data": options.data.name,
        "recipe": recipe.name,
        "set": options.set,
        "crop_size": recipe.data.crop_size,
        "batch_size": recipe.training.batch_size,
        "rounds": options.rounds,
        "batches_per_round": options.batches,
        "threads": 1,
        "results": results,
        "targets": judge(results),
        **environment(),
    }
    figures["versions"] |= versions(("torchvision", "opencv-python-headless", "numpy"))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
