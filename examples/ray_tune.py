"""Search for recipe values with Ray Tune: one training per trial, bad ones are stopped early.

    pip install '.[train,ray]'
    python examples/ray_tune.py --recipe drive --data DRIVE/ --trials 20 --gpus 1

A trial whose machine is lost starts again on another and goes on from its last checkpoint; for that, all machines see
the folder of the runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from etnet.config.load import load_recipe
from etnet.training.tracking import SilentObserver
from etnet.training.trainer import train

SCORE = "validation_mean_foreground_dice"

SPACE: dict[str, Any] = {
    "loss.alpha": tune.choice([0.3, 0.5, 0.7]),
    "optimizer.base_lr": tune.loguniform(1e-4, 1e-2),
}
"""Recipe keys and where to look for their values."""


class ReportToTune(SilentObserver):
    """Tells Tune every score of the held-out images."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Report the row where it has a score."""
        if SCORE in row:
            tune.report({"epoch": int(row["epoch"]), SCORE: row[SCORE]})


def trial(values: Mapping[str, Any], *, recipe: str, overrides: list[str], data: Path, runs: Path) -> None:
    """Train with the values of one trial, in a folder of its own."""
    run = runs / tune.get_context().get_trial_id()
    run.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, which recipe values are read as.
    chosen = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    train(
        load_recipe(recipe, [*overrides, *chosen]),
        data_root=data,
        run=run,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        observer=ReportToTune(),
        resume=(run / "weights" / "last.safetensors").exists(),
    )


def search(
    recipe: str, *, data: Path, runs: Path, trials: int, gpus: float, cpus: float, overrides: list[str]
) -> tune.ResultGrid:
    """Run the trials and return what each of them reached."""
    trainable = tune.with_parameters(
        trial, recipe=recipe, overrides=overrides, data=data.resolve(), runs=runs.resolve() / "trials"
    )
    # A trial that reports `max_t` is stopped before it could save its end, so that is an epoch later.
    scheduler = ASHAScheduler(time_attr="epoch", max_t=load_recipe(recipe, overrides).training.epochs + 1)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            num_samples=trials,
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(runs.resolve()), failure_config=tune.FailureConfig(max_failures=3)
        ),
    )
    return tuner.fit()


def main(arguments: list[str] | None = None) -> None:
    """Search, and print the best values as options of `etnet train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/tune"))
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--gpus", type=float, default=0, help="of each trial; 0.5 lets two share one")
    parser.add_argument("--cpus", type=float, default=1, help="of each trial")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    best = search(**vars(given)).get_best_result()
    print(f"{SCORE} {best.metrics[SCORE]:.4f} with", *(f"--set {key}={value}" for key, value in best.config.items()))


if __name__ == "__main__":
    main()
