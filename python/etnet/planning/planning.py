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
from etnet.planning.decisions import Decision, Means, decide, decide_localizer, is_spot
from etnet.planning.survey import Survey, find_pairs, survey
from etnet.training.profiling import images_per_second

STEPS = {"cuda": 6000, "cpu": 2500}
"""Training steps without a limit of time: about those with which the recipes of the package reached their scores."""

EPOCHS = (10, 1000)
VALIDATIONS = 20
_FOR_THE_LOCALIZER = 0.15
"""Share of the time, where there is one."""

_USED = 0.9
"""Share of the time that training gets; the rest is for scoring and saving."""

_WORTH = 1.25
"""How much faster bfloat16 has to be to be taken on a processor."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PlannedRecipe:
    """One network and why it is so.

    Attributes:
        decisions: Every key with its reason.
        recipe: The recipe of these decisions, checked.
        images_per_second: Measured speed of a training by it, on this machine.
        minutes: How long that training takes, without scoring and saving.
    """

    decisions: tuple[Decision, ...]
    recipe: Recipe
    images_per_second: float
    minutes: float


@dataclass(frozen=True)
class Plan:
    """How to train on a folder.

    Attributes:
        survey: What the images and masks are like.
        classes: What the values of the masks stand for.
        segmenter: The network that segments.
        localizer: The network that finds where to segment; None where the whole image is segmented.
    """

    survey: Survey
    classes: ClassPlan
    segmenter: PlannedRecipe
    localizer: PlannedRecipe | None

    @property
    def recipes(self) -> tuple[PlannedRecipe, ...]:
        """The networks in the order in which they are used."""
        return (self.segmenter,) if self.localizer is None else (self.localizer, self.segmenter)


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
    means = Means(gpu=device.type == "cuda", from_scratch=from_scratch)
    shares = [1 - _FOR_THE_LOCALIZER, _FOR_THE_LOCALIZER] if is_spot(found) else [1.0]
    parts = [(name, decide(found, classes, means)), (f"{name}-localizer", decide_localizer(found, classes, means))]
    planned = [
        _with_length(
            part,
            decisions,
            found.pairs,
            root=root,
            device=device,
            minutes=None if minutes is None else share * minutes,
            progress=progress,
        )
        for share, (part, decisions) in zip(shares, parts, strict=False)
    ]
    return Plan(found, classes, planned[0], planned[1] if len(planned) == 2 else None)


def recipe_of(name: str, decisions: Sequence[Decision]) -> Recipe:
    """The checked recipe of some decisions; keys without one have their default.

    Raises:
        UsageError: A value is none that the recipe may have.
    """
    overrides = [f"{one.key}={yaml.safe_dump(one.value, default_flow_style=True)}" for one in decisions]
    return recipe_from_values(apply_overrides({"name": name}, overrides), f"the plan {name}")


def _with_length(
    name: str,
    decisions: Sequence[Decision],
    pairs: int,
    *,
    root: Path,
    device: torch.device,
    minutes: float | None,
    progress: Progress,
) -> PlannedRecipe:
    """The recipe with a section `training` for the speed that this machine has."""
    trained = max(1, round(pairs * (1 - _value(decisions, "data.validation_fraction"))))
    batch = min(_batch_size(_value(decisions, "data.crop_size"), device), trained)
    chosen = [*decisions, Decision("training.batch_size", batch)]
    precision, speed = _precision(name, chosen, root=root, device=device, progress=progress)
    steps, reason = STEPS[device.type], f"about {STEPS[device.type]} steps"
    if minutes is not None:
        steps = int(60 * minutes * _USED * speed / batch)
        reason = f"what {minutes:.3g} minutes hold at {speed:.1f} images/s, measured here"
    epochs = min(max(round(steps * batch / trained), EPOCHS[0]), EPOCHS[1])
    every = max(1, epochs // VALIDATIONS)
    chosen += [
        precision,
        Decision("training.epochs", epochs, reason),
        Decision("training.validate_every", every),
        Decision("training.save_every", every),
    ]
    sections = list(Recipe.model_fields)
    chosen.sort(key=lambda one: sections.index(one.key.partition(".")[0]))
    return PlannedRecipe(tuple(chosen), recipe_of(name, chosen), speed, epochs * trained / speed / 60)


def _precision(
    name: str, decisions: Sequence[Decision], *, root: Path, device: torch.device, progress: Progress
) -> tuple[Decision, float]:
    """The number format in which this machine trains fastest, and its images per second."""

    def measured(precision: str) -> float:
        progress(f"measuring how fast {name} trains in {precision}")
        tried = recipe_of(name, [*decisions, Decision("training.precision", precision)])
        with tempfile.TemporaryDirectory() as folder:
            return images_per_second(tried, data_root=root, folder=Path(folder), device=device)

    if device.type != "cpu":
        return Decision("training.precision", "auto"), measured("auto")
    exact, short = measured("float32"), measured("bfloat16")
    if short < _WORTH * exact:
        return Decision("training.precision", "float32", "bfloat16 is hardly faster on this processor"), exact
    reason = f"{short / exact:.1f} times as fast as float32 on this processor"
    return Decision("training.precision", "bfloat16", reason), short


def _value(decisions: Sequence[Decision], key: str) -> float:
    return float(next(one.value for one in decisions if one.key == key))


def _batch_size(crop: float, device: torch.device) -> int:
    """The paper's 16 on a GPU; on a processor fewer large crops, so that there are enough steps."""
    if device.type == "cuda":
        return 16
    return 8 if crop <= 256 else 4
