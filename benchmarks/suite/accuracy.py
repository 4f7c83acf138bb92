"""Trains by the paper's recipes, scores on the test images, and exports: as many data sets as fit into the time left.

In order of value: DRIVE, Drishti-GS, Montgomery. Epochs are never shortened. A training that will not fit, by the rate
that it or one before it showed, is left; its checkpoints stay, and the same command goes on with it. Encoders begin
with random weights or with a given file. All training images are trained on, as in the paper's tables. Below OUT:

    <recipe>/train/        the run; <recipe>/scores/ what `etnet evaluate` wrote
    <recipe>-fp16.onnx     the network in half precision
    <recipe>.jpg           test images with the network's outlines
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measurement import without_folder, write_result
from PIL import Image

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.training.schedule import total_iterations
from suite.progress import Stopped, stoppable
from suite.running import GRACE, Ended, run_bounded
from suite.steps import UNFINISHED

FOLDERS = {"drive": "DRIVE", "drishti_gs": "Drishti-GS", "montgomery": "Montgomery"}
"""Folder below --data of each recipe's data set, in order of value."""

AFTERWARDS = 90.0
"""Seconds that are kept for scoring and exporting a network."""

MEASURED = 20.0
"""Seconds of training, after its first epoch, from which its length is told."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--data", type=Path, help="folder with the folders of the data sets")
    parser.add_argument("--drive", type=Path, help="folder of DRIVE, where it is not below --data")
    parser.add_argument("--encoder-weights", type=Path, help="to begin with [default: random weights]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipes")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


class LeftOut(Exception):
    """The text is the reason."""


class Failed(Exception):
    """The text is the reason."""


@dataclass
class Training:
    """One data set's way from its recipe to its files.

    Attributes:
        recipe: Its name.
        data: Folder of the data set.
        options: The command line.
        settings: Changes of the recipe.
        commands: What was run, as typed.
        step_seconds: Seconds per optimizer step, once they are known.
    """

    recipe: str
    data: Path
    options: argparse.Namespace
    settings: list[str]
    commands: list[str] = field(default_factory=list)
    step_seconds: float | None = None

    def __post_init__(self) -> None:
        recipe = load_recipe(self.recipe, self.settings)
        images = len(open_dataset(recipe.data, self.data, "train", seed=recipe.training.seed))
        self.epochs = recipe.training.epochs
        self.steps = total_iterations(num_images=images, epochs=self.epochs, batch_size=recipe.training.batch_size)
        self.folder = self.options.out / self.recipe

    @property
    def run(self) -> Path:
        """Run folder."""
        return self.folder / "train"

    def rows(self) -> list[dict[str, Any]]:
        """What the run wrote of its epochs."""
        try:
            return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text("utf-8").splitlines()]
        except (OSError, ValueError):
            return []

    def done_steps(self) -> int:
        """Optimizer steps of the last epoch that ended."""
        rows = self.rows()
        return int(rows[-1]["iteration"]) if rows else 0

    def etnet(self, seconds: float, *words: object, give_up: Any = None) -> Ended:
        """Run one command of the product.

        Raises:
            Failed: It failed.
        """
        command = [str(word) for word in words]
        self.commands.append(shlex.join(["etnet", *map(without_folder, command)]))
        log = self.folder / f"{command[0]}.log"
        # A stop of the suite ends this script within the usual time, and the training has to be done by then.
        python = [sys.executable, "-m", "etnet", *command]
        ended = run_bounded(python, log, seconds=seconds, grace=GRACE - 5, give_up=give_up)
        if ended.code and not ended.cut_off and not ended.given_up:
            lines = log.read_text("utf-8", errors="replace").splitlines()
            raise Failed(f"etnet {command[0]}: {next((line for line in reversed(lines) if line.strip()), 'no output')}")
        return ended


def train(training: Training, deadline: float) -> None:
    """Train to the end of the recipe.

    Raises:
        LeftOut: There is too little time; what was trained stays.
        Failed: The training failed.
    """
    clock = Clock(training, deadline - AFTERWARDS)
    settings = [word for setting in training.settings for word in ("--set", setting)]
    words = ("train", "--recipe", training.recipe, "--data", training.data, "--output", training.run, *settings)
    left = deadline - AFTERWARDS - time.monotonic()
    ended = training.etnet(
        left, *words, "--device", training.options.device, "--resume-or-start", give_up=clock.will_be_late
    )
    training.step_seconds = clock.step_seconds or training.step_seconds
    if ended.cut_off or ended.given_up:
        left = max(deadline - AFTERWARDS - time.monotonic(), 0)
        raise LeftOut(too_long(training, training.steps - training.done_steps(), left))


class Clock:
    """Tells from the epochs that have ended when a training will end.

    Args:
        training: The one that runs.
        deadline: When it has to be done.
    """

    def __init__(self, training: Training, deadline: float) -> None:
        self.step_seconds: float | None = None
        self._training, self._deadline = training, deadline
        self._first: tuple[float, int] | None = None
        self._before = training.done_steps()

    def will_be_late(self) -> bool:
        """Whether the steps that are left take longer than there is time."""
        done, now = self._training.done_steps(), time.monotonic()
        if self._first is None:
            # The first epoch also warms up.
            self._first = (now, done) if done > self._before else None
            return False
        since, steps = now - self._first[0], done - self._first[1]
        if not steps:
            return False
        self.step_seconds = since / steps
        return since >= MEASURED and now + (self._training.steps - done) * self.step_seconds > self._deadline


def too_long(training: Training, steps: int, left: float) -> str:
    """Why a training is left out."""
    rate = training.step_seconds
    needs = f"the {steps} steps that are left take about {steps * rate / 60:.0f} min" if rate else "its rate is unknown"
    return (
        f"{needs}, {left / 60:.0f} min are there; {training.done_steps()} of {training.steps} steps are done and kept, "
        "epochs are not shortened"
    )


def score_and_export(training: Training, deadline: float) -> dict[str, Any]:
    """Scores by region, and the files to take along."""
    options, scores = training.options, training.folder / "scores"
    exported = options.out / f"{training.recipe}-fp16.onnx"
    where = ("--data", training.data, "--device", options.device, "--output")
    for words in (
        ("evaluate", training.run, *where, scores, "--overwrite"),
        ("export", training.run, "--fp16", "--output", exported, "--device", options.device, "--overwrite"),
    ):
        if training.etnet(max(deadline - time.monotonic(), 1.0), *words).cut_off:
            raise LeftOut(f"the time was over in etnet {words[0]}; the trained network is kept")
    picture = options.out / f"{training.recipe}.jpg"
    draw(sorted((scores / "overlays").glob("*.png")), picture)
    found = json.loads((scores / "metrics.json").read_text("utf-8"))
    regions = {name: region["pooled"] for name, region in found["regions"].items()}
    rows = training.rows()
    return {
        "scores": regions,
        "test_images": found["images"],
        "images_per_second": rows[-1]["images_per_second"] if rows else None,
        "onnx": {"file": exported.name, "bytes": exported.stat().st_size},
        "picture": picture.name,
    }


def draw(overlays: list[Path], picture: Path, *, height: int = 320) -> None:
    """Three of the overlays side by side in a small file."""
    chosen = overlays[:: max(1, len(overlays) // 3)][:3]
    images = []
    for path in chosen:
        with Image.open(path) as image:
            images.append(image.convert("RGB").resize((round(image.width * height / image.height), height)))
    sheet = Image.new("RGB", (sum(image.width for image in images) or 1, height))
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    sheet.save(picture, quality=85)


def settings_of(options: argparse.Namespace) -> list[str]:
    """What is changed in every recipe."""
    weights = "none" if options.encoder_weights is None else options.encoder_weights
    return [f"model.encoder_weights={weights}", "data.validation_fraction=0", *options.set]


def outcome_of(recipe: str, options: argparse.Namespace, deadline: float, rate: float | None) -> dict[str, Any]:
    """What became of one data set; `seconds_per_step` is the rate of the next one's guess."""
    data = options.drive if recipe == "drive" and options.drive else (options.data or Path("DATA")) / FOLDERS[recipe]
    if not data.is_dir():
        return {"status": "left out", "reason": f"there is no folder {FOLDERS[recipe]} below --data"}
    begin = time.monotonic()
    training = None
    try:
        (options.out / recipe).mkdir(parents=True, exist_ok=True)
        training = Training(recipe, data, options, settings_of(options), step_seconds=rate)
        left = deadline - AFTERWARDS - begin
        remaining = training.steps - training.done_steps()
        if remaining and (left <= 0 or (rate is not None and remaining * rate > left)):
            raise LeftOut(too_long(training, remaining, max(left, 0)))
        train(training, deadline)
        found = {"status": "done", **score_and_export(training, deadline)}
    except LeftOut as reason:
        found = {"status": "no time", "reason": str(reason)}
    except Exception as error:  # one data set must not cost the others
        found = {"status": "failed", "reason": f"{error}" if isinstance(error, Failed) else repr(error)}
    found["seconds"] = round(time.monotonic() - begin, 1)
    if training is not None:
        facts = {"epochs": training.epochs, "steps": training.steps, "done_steps": training.done_steps()}
        found |= {"data": data.name, **facts, "seconds_per_step": training.step_seconds, "commands": training.commands}
    return found


def summary(found: dict[str, dict[str, Any]]) -> str:
    """A few words on each data set."""
    words = []
    for recipe, result in found.items():
        regions = list(result.get("scores", {}).values())
        dice = f"Dice {regions[-1]['mean_foreground_dice']:.4f}" if regions else result["status"]
        words.append(f"{recipe} {dice}")
    return ", ".join(words)


def go_through(options: argparse.Namespace) -> int:
    """Train on each data set; the result is written after each. Gives the exit code."""
    deadline = time.monotonic() + float(os.environ.get("ETNET_SUITE_SECONDS", "3600")) - 15
    found: dict[str, dict[str, Any]] = {}
    rate: float | None = None
    for recipe in FOLDERS:
        found[recipe] = outcome_of(recipe, options, deadline, rate)
        rate = found[recipe].get("seconds_per_step") or rate
        statuses = [result["status"] for result in found.values()]
        settings = [without_folder(setting) for setting in settings_of(options)]
        figures: dict[str, Any] = {"device": options.device, "settings": settings, "data_sets": found}
        figures["headline"] = summary(found)
        wrong = {name: result for name, result in found.items() if result["status"] in ("failed", "no time")}
        if wrong:
            figures["failed"] = "; ".join(f"{name}: {result['reason']}" for name, result in wrong.items())
        what = "trainings by the paper's recipes, scored on the test images at their own size"
        write_result(options.json, benchmark="accuracy", what=what, figures=figures, packages=("torch", "timm"))
    if "failed" in statuses:
        return 1
    return UNFINISHED if "no time" in statuses else 0


def main() -> int:
    """Train; a SIGTERM reaches the training too, which saves its state."""
    options = arguments()
    try:
        with stoppable():
            return go_through(options)
    except Stopped:
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())
