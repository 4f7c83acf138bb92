"""Whether the binned Lovasz loss trains as well as the exact one: the same seeds with both, scored on held-out images.

    python benchmarks/compare_loss_methods.py --drive DRIVE/ --json loss_methods.json

Trains and evaluates through the `etnet` commands: the demo's generated images by the recipe `demo`, and DRIVE (where
--drive names it) from scratch by the recipe `drive` with a network and a length that fit a CPU. Runs that are complete
in --work are not repeated, so an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measurement import write_result

from etnet.cli.demo import IMAGE_SIZE, SEED, TEST_IMAGES, TRAINING_IMAGES
from etnet.data.synthetic import write_fundus_dataset

METHODS = ("sort", "histogram")
DRIVE_ON_A_CPU = (
    "--epochs=150",
    "--batch-size=4",
    "--set=data.crop_size=256",
    "--set=data.validation_fraction=0",
    "--set=model.encoder=resnet18",
    "--set=model.encoder_weights=none",
    "--set=model.decoder_channels=64",
    "--set=optimizer.base_lr=0.003",
    "--set=training.precision=bfloat16",
)


@dataclass(frozen=True)
class Task:
    """A data set and how it is trained.

    Attributes:
        name: Also the name of the recipe.
        data: Folder of the data set.
        options: What is added to `etnet train --recipe NAME --data DATA`.
    """

    name: str
    data: Path
    options: tuple[str, ...]


def etnet(*words: str | Path) -> None:
    """Runs an `etnet` command in a process of its own.

    Raises:
        SystemExit: It failed; its messages are on stderr.
    """
    done = subprocess.run([sys.executable, "-m", "etnet", *map(str, words)], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def train_and_score(task: Task, method: str, seed: int, *, device: str, work: Path) -> dict[str, float]:
    """Dice of each class and their mean over the pooled pixels of the test images."""
    folder = work / f"{task.name}-{method}-{seed}"
    metrics = folder / "scores" / "metrics.json"
    if not metrics.exists():
        run = folder / "run"
        etnet(
            *("train", "--recipe", task.name, "--data", task.data, "--output", run, "--device", device),
            *("--seed", str(seed), "--set", f"loss.method={method}", *task.options),
        )
        etnet("evaluate", run, "--data", task.data, "--output", metrics.parent, "--device", device, "--overwrite")
    pooled = json.loads(metrics.read_text("utf-8"))["regions"]["whole_image"]["pooled"]
    foreground = list(pooled["classes"].items())[1:]
    return {"mean": pooled["mean_foreground_dice"], **{name: scores["dice"] for name, scores in foreground}}


def compare(task: Task, *, seeds: int, device: str, work: Path) -> dict[str, Any]:
    """Dice of every method and seed, and the difference of the methods' means beside the spread between seeds."""
    dice: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for seed in range(seeds):
        for method in METHODS:
            dice[method].append(train_and_score(task, method, seed, device=device, work=work))
    means = {method: statistics.fmean(run["mean"] for run in runs) for method, runs in dice.items()}
    spread = {method: statistics.stdev([run["mean"] for run in runs]) for method, runs in dice.items()}
    return {
        "options": list(task.options),
        "dice": dice,
        "mean": means,
        "standard_deviation": spread,
        "histogram_minus_sort": means["histogram"] - means["sort"],
    }


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """One line for each task and method: mean foreground Dice of every seed, their mean and standard deviation."""
    for name, result in results.items():
        print(f"\n{name}: mean foreground Dice, test images pooled")
        for method in METHODS:
            seeds = "  ".join(f"{run['mean']:.4f}" for run in result["dice"][method])
            mean, deviation = result["mean"][method], result["standard_deviation"][method]
            print(f"  {method:10} {seeds}   mean {mean:.4f} +- {deviation:.4f}")
        print(f"  histogram - sort: {result['histogram_minus_sort']:+.4f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--drive", type=Path, metavar="DIR", help="folder of DRIVE; without it only the demo is trained"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs for each method, at least 2 (default: 3)")
    parser.add_argument("--device", default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for the runs (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: at least 2 runs are needed to see the spread between seeds")
    return options


def main() -> None:
    """Trains, scores, prints the table and writes the figures."""
    options = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = options.work or Path(temporary)
        demo_data = work / "demo_data"
        if not demo_data.exists():
            write_fundus_dataset(demo_data, train=TRAINING_IMAGES, test=TEST_IMAGES, size=IMAGE_SIZE, seed=SEED)
        tasks = [Task("demo", demo_data, ())]
        if options.drive is not None:
            tasks.append(Task("drive", options.drive, DRIVE_ON_A_CPU))
        results = {task.name: compare(task, seeds=options.seeds, device=options.device, work=work) for task in tasks}
    print_table(results)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="loss_methods",
            what="test Dice after training with the exact (sort) and the binned (histogram) Lovasz loss",
            figures={"device": options.device, "seeds": options.seeds, "tasks": results},
            packages=("timm",),
        )


if __name__ == "__main__":
    main()
