"""A training step of the product and one of a plain script, side by side, each with its own data path.

    python benchmarks/bench_train_step.py --data DRIVE/ --device cuda --workers 8 --json results.json
    python benchmarks/bench_train_step.py --data DRIVE/ --device cpu --set training.batch_size=4

Both train the network of one recipe on crops of the same size, in batches of the same size. `plain` is what people
write: the weighted block as its formula (bench_weighted_block.py), float32 in the default memory layout, torchvision v2
on files decoded every time (plain_pipeline.py), the Lovasz loss in eager torch (bench_ops.py), Adam as it is, and
`loss.item()` after each step. `ours` is the product's
loader and `Stepper` with the recipe's settings, as `etnet train` runs them.

Each round trains both for some steps, one after the other; the first round, which warms up, does not count. Data wait
is the time in which the host waits for a batch, step is everything else, until the device is done. A ratio is the
median of the rounds' ratios. On CUDA one more round of each, under the profiler, tells in which share of the time at
least one kernel or copy is running.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from bench_ops import public_lovasz_softmax
from bench_weighted_block import with_plain_blocks
from measurement import Comparison, Target, write_result
from measurement import show as show_verdicts
from plain_pipeline import PlainDataset, plain_loader

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.datasets import open_dataset
from etnet.data.loader import build_training_loader
from etnet.environment.versions import versions
from etnet.models import build_model
from etnet.training.distributed import ALONE
from etnet.training.optimizer import build_optimizer
from etnet.training.step import Stepper, resolve_precision

BASE, OURS = "plain", "ours"
ENDLESS = 10**6
FASTER = {"cpu": 1.3, "cuda": 4.0}
ON_AN_H200 = {"images_per_s": 600.0, "busy_share": 0.9}
"""What `ours` is meant to reach: beside `plain`, and by itself on an H200 with batch 16, 512 x 512 and ResNet-50."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--recipe", default="drive", help="what is trained [default: drive]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="of torch and OpenCV [default: their own]")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of each contestant [default: 0]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each contestant in a round [default: 2]")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args(words)


class Contestant(Protocol):
    """Trains on and on."""

    def next_batch(self) -> Any:
        """Waits for the next batch on the host."""

    def step(self, batch: Any) -> float | None:
        """One optimizer step; the loss, where it is known already."""

    def finish(self) -> list[float]:
        """The losses that were not known yet."""


class PlainTraining:
    """A training loop without any of the product's means."""

    def __init__(self, dataset: SegmentationDataset, recipe: Recipe, device: torch.device, workers: int) -> None:
        network = build_model(recipe.model, len(recipe.data.class_names))
        self.network = with_plain_blocks(network).to(device).train()
        optimizer = recipe.optimizer
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=optimizer.base_lr,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
        )
        self.alpha, self.device = recipe.loss.alpha, device
        self.batches = self._epochs(dataset, recipe, workers)

    @staticmethod
    def _epochs(dataset: SegmentationDataset, recipe: Recipe, workers: int) -> Iterator[Any]:
        loader = plain_loader(PlainDataset(dataset, recipe), num_workers=workers, persistent_workers=workers > 0)
        if not len(loader):
            raise SystemExit(f"{len(dataset)} images do not fill a batch of {recipe.training.batch_size}")
        while True:
            yield from loader

    def next_batch(self) -> Any:
        """Waits for the next batch on the host."""
        return next(self.batches)

    def step(self, batch: Any) -> float:
        """One optimizer step."""
        images, masks, edges = (tensor.to(self.device) for tensor in batch)
        output = self.network(images)
        loss = self.alpha * public_lovasz_softmax(output.seg_logits, masks)
        loss = loss + (1 - self.alpha) * public_lovasz_softmax(output.edge_logits, edges)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def finish(self) -> list[float]:
        """Nothing: each step waits for its loss."""
        return []


class OurTraining:
    """Loader and step of the product."""

    def __init__(self, dataset: SegmentationDataset, recipe: Recipe, device: torch.device, workers: int) -> None:
        network = build_model(recipe.model, len(recipe.data.class_names)).to(device)
        network = network.to(memory_format=torch.channels_last).train()
        optimizer = build_optimizer(network, recipe.optimizer)
        self.rate = recipe.optimizer.base_lr
        self.stepper = Stepper(network, recipe=recipe, optimizer=optimizer, device=device, group=ALONE, report=print)
        self.batches = iter(
            build_training_loader(dataset, recipe, start_iteration=0, total_iterations=ENDLESS, workers=workers)
        )

    def next_batch(self) -> Any:
        """Waits for the next batch on the host."""
        return next(self.batches)

    def step(self, batch: Any) -> float | None:
        """Hands one step out; the loss of the newest that is known."""
        self.stepper.submit(batch, self.rate)
        return next((step.result.loss for step in self.stepper.finished()), None)

    def finish(self) -> list[float]:
        """The losses of the last steps."""
        return [step.result.loss for step in self.stepper.finished(wait=True)]


@dataclass(frozen=True)
class Round:
    """Seconds per step of one contestant in one round."""

    data_wait: float
    step: float

    @property
    def total(self) -> float:
        """Both."""
        return self.data_wait + self.step


def run_round(contestant: Contestant, steps: int, device: torch.device) -> Round:
    """Train for some steps, until the device is done."""
    waited, losses = 0.0, []
    begin = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = contestant.next_batch()
        waited += time.perf_counter() - asked
        losses.append(contestant.step(batch))
    losses += contestant.finish()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    known = [loss for loss in losses if loss is not None]
    if len(known) != steps:
        raise AssertionError(f"{len(known)} losses of {steps} steps")
    return Round(waited / steps, (seconds - waited) / steps)


def busy_share(contestant: Contestant, steps: int, device: torch.device) -> float | None:
    """Share of a round in which the GPU computes or copies; None on a CPU."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = run_round(contestant, steps, device).total * steps
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(spans) / (1e6 * seconds)


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals: work on two streams at once counts once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def measure(options: argparse.Namespace, recipe: Recipe) -> tuple[dict[str, list[Round]], dict[str, float | None]]:
    """Rounds of both contestants, and the share of the time in which the GPU is busy with each."""
    device = torch.device(options.device)
    dataset = open_dataset(recipe.data, options.data, "train")
    makers = {BASE: PlainTraining, OURS: OurTraining}
    torch.manual_seed(recipe.training.seed)
    running: dict[str, Contestant] = {
        name: make(dataset, recipe, device, options.workers) for name, make in makers.items()
    }
    rounds: dict[str, list[Round]] = {name: [] for name in running}
    for number in range(options.rounds + 1):
        for name, contestant in running.items():
            result = run_round(contestant, options.steps, device)
            if number > 0:
                rounds[name].append(result)
    busy = {name: busy_share(contestant, options.steps, device) for name, contestant in running.items()}
    return rounds, busy


def row(own: list[Round], base: list[Round], batch_size: int) -> dict[str, float | None]:
    """Figures of one contestant from its rounds and those of the base."""
    ratios = [theirs.total / mine.total for mine, theirs in zip(own, base, strict=True)]
    return {
        "data_wait_ms": round(1000 * statistics.median(one.data_wait for one in own), 2),
        "step_ms": round(1000 * statistics.median(one.step for one in own), 2),
        "images_per_s": round(batch_size / statistics.median(one.total for one in own), 3),
        "times_plain": round(statistics.median(ratios), 3),
    }


COLUMNS = {
    "data_wait_ms": ("data wait ms", ".1f"),
    "step_ms": ("step ms", ".1f"),
    "images_per_s": ("images/s", ".2f"),
    "times_plain": ("x plain", ".2f"),
    "busy_share": ("GPU busy", ".2f"),
}
"""Figure, its heading and its format."""


def show(results: dict[str, dict[str, float | None]]) -> None:
    """Print the table."""
    print(" " * 6 + "".join(f"{heading:>14}" for heading, _ in COLUMNS.values()))
    for name, figures in results.items():
        cells = (("-" if figures[key] is None else format(figures[key], form)) for key, (_, form) in COLUMNS.items())
        print(f"{name:6}" + "".join(f"{cell:>14}" for cell in cells))


def compared(rounds: dict[str, list[Round]], recipe: Recipe, device: str) -> Comparison:
    """Ours beside the plain script."""
    data, training = recipe.data, recipe.training
    crops = f"{training.batch_size} crops of {data.crop_size}x{data.crop_size}"
    rates = {name: [training.batch_size / one.total for one in own] for name, own in rounds.items()}
    return Comparison.of_rounds(
        (f"etnet, {resolve_precision(training.precision, torch.device(device))}", rates[OURS]),
        ("plain script with torchvision v2, float32", rates[BASE]),
        version=versions(("torchvision",))["torchvision"],
        better="higher",
        subject="training step with its data path",
        case=f"recipe {recipe.name}, {recipe.model.encoder}, {crops}",
        unit="images/s",
        result="the same network, loss and optimizer",
        target=FASTER[device],
    )


def aims(results: dict[str, dict[str, float | None]], gpu: str) -> list[Target]:
    """The targets that are no ratios, for the GPU of this name; there are some for one only."""
    return [
        Target(f"training step, {COLUMNS[figure][0]}", bound, results[OURS][figure])
        for figure, bound in (ON_AN_H200 if "H200" in gpu else {}).items()
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = arguments(words)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    recipe = load_recipe(options.recipe, ["model.encoder_weights=none", *options.set])
    rounds, busy = measure(options, recipe)
    data, training = recipe.data, recipe.training
    results = {
        name: row(own, rounds[BASE], training.batch_size) | {"busy_share": busy[name]} for name, own in rounds.items()
    }
    print(f"{recipe.name}: batches of {training.batch_size} crops of {data.crop_size} x {data.crop_size}")
    show(results)
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else ""
    comparison, targets = compared(rounds, recipe, options.device), aims(results, gpu)
    show_verdicts([comparison], targets)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="train_step",
            what="a training step of the product beside a plain script's, each with its own data path",
            figures={
                "variant": recipe.name,
                "device": options.device,
                "threads": torch.get_num_threads(),
                "data": options.data.name,
                "recipe": recipe.name,
                "set": options.set,
                "crop_size": data.crop_size,
                "batch_size": training.batch_size,
                "workers": options.workers,
                "rounds": options.rounds,
                "steps_per_round": options.steps,
                "results": results,
            },
            comparisons=[comparison],
            targets=targets,
            packages=("torchvision", "timm"),
        )


if __name__ == "__main__":
    main()
