"""From a folder of images and masks to a recipe that fits them and the time there is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from etnet.config.data_section import DataSection
from etnet.config.load import apply_overrides, recipe_from_values
from etnet.config.schema import Recipe
from etnet.planning.classes import ClassPlan, plan_classes
from etnet.planning.decisions import Decision, Means, decide
from etnet.planning.survey import Survey, find_pairs, survey
from etnet.training.profiling import images_per_second

STEPS = {"gpu": 6000, "cpu": 2500}
"""Training steps without a limit of time: about those with which the recipes of the package reached their scores."""

EPOCHS = (10, 1000)
VALIDATIONS = 20
_USED = 0.9
"""Share of the time that training gets; the rest is for scoring and saving."""

_WORTH = 1.25
"""How much faster bfloat16 has to be to be taken on a processor."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A recipe and why it is so.

    Attributes:
        survey: What the images and masks are like.
        classes: What the values of the masks stand for.
        decisions: Every key with its reason.
        recipe: The recipe of these decisions, checked.
        images_per_second: Measured speed of a training by it, on this machine.
        minutes: How long that training takes, without scoring and saving.
    """

    survey: Survey
    classes: ClassPlan
    decisions: tuple[Decision, ...]
    recipe: Recipe
    images_per_second: float
    minutes: float


def make_plan(
    root: Path,
    *,
    name: str,
    device: torch.device,
    class_names: Sequence[str] | None = None,
    minutes: float | None = None,
    from_scratch: bool = False,
    progress: Progress = lambda _: None,
) -> Plan:
    """Plan a training on one's own folder.

    Args:
        root: Folder with `images/` and `masks/`.
        name: Of the recipe.
        device: Where the training will run; its speed is measured there.
        class_names: Classes, the background first; None for names made of their numbers.
        minutes: How long the training may take; None for a usual number of steps.
        from_scratch: Whether the encoder starts at random.
        progress: Called with a few words when a step begins.

    Raises:
        DataError: The folder cannot be trained on.
        UsageError: The names do not fit the masks, or a value is none that a recipe may have.
    """
    progress("reading the masks")
    pairs, summaries = find_pairs(root, DataSection(dataset="folder"))
    classes = plan_classes(summaries, class_names)
    progress("looking at images and structures")
    found = survey(pairs, summaries, classes)
    decisions = decide(found, classes, Means(gpu=device.type == "cuda", from_scratch=from_scratch))
    training, speed = _training(name, decisions, found, root=root, device=device, minutes=minutes, progress=progress)
    decisions = sorted(
        [*decisions, *training], key=lambda one: list(Recipe.model_fields).index(one.key.partition(".")[0])
    )
    recipe = recipe_of(name, decisions)
    steps = _steps_per_epoch(recipe, found.pairs) * recipe.training.epochs
    return Plan(found, classes, tuple(decisions), recipe, speed, steps * recipe.training.batch_size / speed / 60)


def recipe_of(name: str, decisions: Sequence[Decision]) -> Recipe:
    """The checked recipe of some decisions; keys without one have their default.

    Raises:
        UsageError: A value is none that the recipe may have.
    """
    overrides = [f"{one.key}={yaml.safe_dump(one.value, default_flow_style=True)}" for one in decisions]
    return recipe_from_values(apply_overrides({"name": name}, overrides), f"the plan {name}")


def _training(
    name: str,
    decisions: Sequence[Decision],
    found: Survey,
    *,
    root: Path,
    device: torch.device,
    minutes: float | None,
    progress: Progress,
) -> tuple[list[Decision], float]:
    """The section `training`, and the images per second that it was made for."""
    trained = round(found.pairs * (1 - _value(decisions, "data.validation_fraction")))
    batch = min(_batch_size(_value(decisions, "data.crop_size"), device), max(1, trained))
    chosen = [Decision("training.batch_size", batch)]
    speeds = {}
    for precision in ("float32", "bfloat16") if device.type == "cpu" else ("auto",):
        progress(f"measuring the speed of training{'' if precision == 'auto' else ' in ' + precision}")
        tried = recipe_of(name, [*decisions, *chosen, Decision("training.precision", precision)])
        with tempfile.TemporaryDirectory() as folder:
            speeds[precision] = images_per_second(tried, data_root=root, folder=Path(folder), device=device)
    best = next(iter(speeds))
    if speeds.get("bfloat16", 0.0) >= _WORTH * speeds[best]:
        times = speeds["bfloat16"] / speeds[best]
        best = "bfloat16"
        chosen.append(Decision("training.precision", best, f"{times:.1f} times as fast as float32 on this processor"))
    elif best == "float32":
        chosen.append(Decision("training.precision", best, "bfloat16 is hardly faster on this processor"))
    recipe = recipe_of(name, [*decisions, *chosen])
    per_epoch = _steps_per_epoch(recipe, found.pairs)
    if minutes is None:
        steps = STEPS["gpu" if device.type == "cuda" else "cpu"]
        reason = f"about {steps} steps"
    else:
        steps = int(60 * minutes * _USED * speeds[best] / batch)
        reason = f"what {minutes:g} minutes hold at {speeds[best]:.1f} images/s, measured here"
    epochs = min(max(round(steps / per_epoch), EPOCHS[0]), EPOCHS[1])
    every = max(1, epochs // VALIDATIONS)
    chosen += [
        Decision("training.epochs", epochs, reason),
        Decision("training.validate_every", every),
        Decision("training.save_every", every),
    ]
    return chosen, speeds[best]


def _value(decisions: Sequence[Decision], key: str) -> float:
    return float(next(one.value for one in decisions if one.key == key))


def _batch_size(crop: float, device: torch.device) -> int:
    """The paper's 16 on a GPU; on a processor fewer large crops, so that there are enough steps."""
    if device.type == "cuda":
        return 16
    return 8 if crop <= 256 else 4


def _steps_per_epoch(recipe: Recipe, pairs: int) -> float:
    trained = max(1, round(pairs * (1 - recipe.data.validation_fraction)))
    return trained / recipe.training.batch_size
