"""What each option beyond the paper gains on DRIVE: one variant at a time, the same seeds and steps for all.

    python benchmarks/ablate_drive.py --drive DRIVE/ --work runs/ablation --json benchmarks/results/ablation.json
    python benchmarks/ablate_drive.py --drive DRIVE/ --work runs/ablation --variant paper --variant high_resolution
    python benchmarks/ablate_drive.py --drive DRIVE/ --work runs/ablation --extra both model.high_resolution=true \
        loss.cross_entropy=0.5

Every run is trained by `etnet train` with the recipe of --recipe and --epochs, and scored with and without mirror
images averaged (`--tta flips` of `etnet infer`). Runs go seed by seed, so that a table can be had early. A run that has
its result.json in --work is not repeated and one that was interrupted is resumed, so the same command goes on where it
stopped; runs with other options are refused. Differences are taken between runs of the same seed, which share the
order of the images, their augmentation and, where the networks are the same, the starting weights.

The last weights are scored, not the best. With --split test all 20 training images are trained on. Choosing by the test
images flatters what is chosen: --split validation trains on 15 and scores the other 5, which differ between seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measurement import write_result

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.environment.versions import versions
from etnet.inference.evaluate import evaluate
from etnet.inference.predictor import Predictor
from etnet.inference.refinement import Refinement, refine
from etnet.manifest import read_weights_info
from etnet.output import write_json

BASELINE = "paper"
VARIANTS: dict[str, tuple[str, ...]] = {
    BASELINE: (),
    "high_resolution": ("model.high_resolution=true",),
    "cross_entropy_0.5": ("loss.cross_entropy=0.5",),
    "edge_width_1": ("data.edge_width=1",),
    "edge_width_5": ("data.edge_width=5",),
    "resnet34": ("model.encoder=resnet34",),
    "resnet50": ("model.encoder=resnet50",),
}
"""What is added to the recipe for each row of the table."""

SCORINGS = {"plain": False, "flips": True}
"""How the images are predicted: as they are, or averaged over mirror images."""

REGION = "field_of_view"
VALIDATION_FRACTION = {"test": 0.0, "validation": 0.25}


@dataclass(frozen=True)
class Job:
    """One training and its scores; equal jobs give comparable results.

    Attributes:
        variant: Its name.
        overrides: `key=value` of the recipe: the common ones, then those of the variant.
        recipe: The recipe they change.
        epochs: Passes over the training images.
        seed: Of weights, order and augmentation, and with `split` validation of what is held out.
        split: What is scored.
        device: Where it is trained and scored.
    """

    variant: str
    overrides: tuple[str, ...]
    recipe: str
    epochs: int
    seed: int
    split: str
    device: str

    @property
    def settings(self) -> tuple[str, ...]:
        """All overrides of the recipe."""
        return (*self.overrides, f"data.validation_fraction={VALIDATION_FRACTION[self.split]}")


def run_job(job: Job, *, drive: Path, work: Path) -> dict[str, Any]:
    """Trains and scores a job, as far as that is not done yet.

    Raises:
        SystemExit: The folder holds a run with other options, or the training failed; its messages are on stderr.
    """
    folder = work / f"{job.variant}-seed{job.seed}"
    asked, result = folder / "job.json", folder / "result.json"
    description = json.loads(json.dumps(asdict(job)))
    if asked.exists() and json.loads(asked.read_text("utf-8")) != description:
        raise SystemExit(f"{folder}: holds a run with other options, see job.json; give another --work or remove it")
    if result.exists():
        return dict(json.loads(result.read_text("utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(asked, description)
    command = train_run(job, drive=drive, run=folder / "run")
    scored = score_run(job, drive=drive, run=folder / "run")
    outcome = {"job": description, "command": command, **scored, "versions": versions(("torch", "timm"))}
    write_json(result, outcome)
    return outcome


def train_run(job: Job, *, drive: Path, run: Path) -> list[str]:
    """Trains, or goes on where an interrupted training stopped; returns the command that began it."""
    options = [f"--set={setting}" for setting in job.settings]
    words = [
        *("train", "--recipe", job.recipe, "--data", str(drive), "--output", str(run), "--device", job.device),
        *("--epochs", str(job.epochs), "--seed", str(job.seed), *options),
    ]
    resumable = (run / "weights" / "last.safetensors").exists()
    if not resumable:
        # What a run leaves behind that was killed before its first checkpoint.
        shutil.rmtree(run, ignore_errors=True)
    now = ["train", "--resume", "--output", str(run), "--device", job.device] if resumable else words
    done = subprocess.run([sys.executable, "-m", "etnet", *now], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    # As someone elsewhere would type it.
    return ["etnet", *("DRIVE/" if word == str(drive) else "RUN" if word == str(run) else word for word in words)]


def score_run(job: Job, *, drive: Path, run: Path) -> dict[str, Any]:
    """Pooled scores of the last weights inside the field of view, with and without mirror images, and the speed."""
    weights = run / "weights" / "last.safetensors"
    info = read_weights_info(weights)
    dataset = open_dataset(info.recipe.data, drive, job.split, seed=job.seed)  # type: ignore[arg-type]
    scores, seconds = {}, {}
    for name, flips in SCORINGS.items():
        with Predictor.load(weights, backend="torch", device=job.device) as predictor:
            begin = time.perf_counter()
            refined = refine(predictor, Refinement(tiling=None, flips=flips))
            report = evaluate(refined, dataset, class_names=info.recipe.data.class_names)
            seconds[name] = time.perf_counter() - begin
        pooled = report.to_dict()["regions"][REGION]["pooled"]
        scores[name] = {"dice": pooled["mean_foreground_dice"], "accuracy": pooled["accuracy"], "pooled": pooled}
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(stream)]
    return {
        "iterations": info.iteration,
        "images_per_second": statistics.median(speeds),
        "scores": scores,
        "scoring_seconds": seconds,
    }


@dataclass(frozen=True)
class Row:
    """One variant over its seeds.

    Attributes:
        variant: Its name.
        dice: Vessel Dice of each seed that is done.
        accuracy: Accuracy of each seed.
        flips_dice: Dice of each seed with mirror images averaged.
        gains: Dice minus that of the baseline with the same seed, where both are done.
        speed: Images per second in training, median of the seeds.
    """

    variant: str
    dice: tuple[float, ...]
    accuracy: tuple[float, ...]
    flips_dice: tuple[float, ...]
    gains: tuple[float, ...]
    speed: float


def summarize(results: dict[str, dict[int, dict[str, Any]]]) -> list[Row]:
    """Rows of the table.

    Args:
        results: Contents of result.json by variant and seed.

    Raises:
        SystemExit: The runs do not have the same number of steps.
    """
    steps = {result["iterations"] for runs in results.values() for result in runs.values()}
    if len(steps) > 1:
        raise SystemExit(f"the runs have {sorted(steps)} iterations; only runs of equal length can be compared")
    reference = {seed: run["scores"]["plain"]["dice"] for seed, run in results.get(BASELINE, {}).items()}
    rows = []
    for variant, runs in results.items():
        plain = {seed: run["scores"]["plain"] for seed, run in runs.items()}
        rows.append(
            Row(
                variant,
                dice=tuple(scores["dice"] for scores in plain.values()),
                accuracy=tuple(scores["accuracy"] for scores in plain.values()),
                flips_dice=tuple(run["scores"]["flips"]["dice"] for run in runs.values()),
                gains=tuple(scores["dice"] - reference[seed] for seed, scores in plain.items() if seed in reference),
                speed=statistics.median(run["images_per_second"] for run in runs.values()),
            )
        )
    return rows


def print_table(rows: list[Row]) -> None:
    """One line for each variant: means over the seeds and, behind +-, the standard deviation between them."""
    print(
        f"\n{'variant':22}{'Dice':>16}{'gain of Dice':>19}{'better':>8}{'accuracy':>16}{'Dice, flips':>16}{'im/s':>7}"
    )
    for row in rows:
        own = row.variant == BASELINE
        gain = "" if own else spread(row.gains, sign="+")
        better = "" if own else f"{sum(value > 0 for value in row.gains)}/{len(row.gains)}"
        print(
            f"{row.variant:22}{spread(row.dice):>16}{gain:>19}{better:>8}{spread(row.accuracy):>16}"
            f"{spread(row.flips_dice):>16}{row.speed:7.2f}"
        )


def spread(values: tuple[float, ...], *, sign: str = "") -> str:
    """Mean and, for more than one value, standard deviation.

    >>> spread((0.5, 0.7)), spread((0.25,), sign="+"), spread(())
    ('0.6000 +- 0.1414', '+0.2500', '-')
    """
    if not values:
        return "-"
    mean = format(statistics.fmean(values), f"{sign}.4f")
    return f"{mean} +- {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, required=True, metavar="DIR", help="folder of DRIVE")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for the runs; kept")
    parser.add_argument("--recipe", default="drive_small", help="what the variants change (default: drive_small)")
    parser.add_argument("--epochs", type=int, default=200, help="length of every run (default: 200, 1000 steps)")
    parser.add_argument("--seeds", type=int, default=3, help="runs for each variant (default: 3)")
    parser.add_argument("--variant", action="append", default=[], choices=VARIANTS, help="only this one; repeatable")
    parser.add_argument(
        "--extra", action="append", default=[], nargs="+", metavar=("NAME", "KEY=VALUE"), help="one more variant"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every variant")
    parser.add_argument("--split", choices=VALIDATION_FRACTION, default="test", help="what is scored (default: test)")
    parser.add_argument("--device", default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--table-only", action="store_true", help="train nothing, print what is done")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    return parser.parse_args(words)


def jobs(options: argparse.Namespace) -> list[Job]:
    """Every run that is asked for, seed by seed; each recipe is checked before the first training.

    Raises:
        UsageError: An option is not one of a recipe.
    """
    chosen = {name: VARIANTS[name] for name in options.variant or VARIANTS}
    chosen |= {name: tuple(overrides) for name, *overrides in options.extra}
    found = [
        Job(name, (*options.set, *own), options.recipe, options.epochs, seed, options.split, options.device)
        for seed in range(options.seeds)
        for name, own in chosen.items()
    ]
    for job in found:
        load_recipe(job.recipe, job.settings)
    return found


def main() -> None:
    """Trains, scores, prints the table and writes the figures."""
    options = arguments()
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for job in jobs(options):
        if options.table_only and not (options.work / f"{job.variant}-seed{job.seed}" / "result.json").exists():
            continue
        results.setdefault(job.variant, {})[job.seed] = run_job(job, drive=options.drive, work=options.work)
    rows = summarize(results)
    print_table(rows)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="ablation",
            what=f"DRIVE, {options.split} images, inside the field of view: one option at a time, last weights",
            figures={
                "device": options.device,
                "recipe": options.recipe,
                "epochs": options.epochs,
                "rows": [asdict(row) for row in rows],
                "runs": [run for runs in results.values() for run in runs.values()],
            },
            packages=("timm",),
        )


if __name__ == "__main__":
    main()
