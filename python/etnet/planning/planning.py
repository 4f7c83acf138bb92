"""From a folder of images and masks to a recipe that fits them and the time there is."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from etnet.config.data_section import DataSection
from etnet.config.load import apply_overrides, recipe_from_values
from etnet.config.schema import Recipe, TrainingSection
from etnet.data.datasets.folder import patients_of
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.splits import hold_out
from etnet.errors import OutOfMemory, UsageError
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
        UsageError: The names do not fit the masks, the time is no number, or a value is none that a recipe may have.
        OutOfMemory: The device cannot train on a single crop.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes {minutes:g}: expected a number of minutes above 0")
    progress("reading the masks")
    pairs, summaries = find_pairs(root, DataSection(dataset="folder"))
    classes = plan_classes(summaries, class_names)
    progress("looking at images and structures")
    found = survey(pairs, summaries, classes)
    means = Means(gpu=device.type == "cuda", from_scratch=from_scratch)
    parts, shares = [(name, decide(found, classes, means))], [1.0]
    if is_spot(found):
        parts.append((f"{name}-localizer", decide_localizer(found, classes, means)))
        shares = [1 - _FOR_THE_LOCALIZER, _FOR_THE_LOCALIZER]
    planned = [
        _with_length(
            part,
            decisions,
            _trained_on(pairs, found.patient_pattern, fraction=_value(decisions, "data.validation_fraction")),
            root=root,
            device=device,
            minutes=None if minutes is None else share * minutes,
            progress=progress,
        )
        for (part, decisions), share in zip(parts, shares, strict=True)
    ]
    return Plan(found, classes, planned[0], planned[1] if len(planned) == 2 else None)


def recipe_of(name: str, decisions: Sequence[Decision]) -> Recipe:
    """The checked recipe of some decisions; keys without one have their default.

    Raises:
        UsageError: A value is none that the recipe may have.
    """
    values = [yaml.safe_dump(one.value, default_flow_style=True, sort_keys=False) for one in decisions]
    overrides = [f"{one.key}={value}" for one, value in zip(decisions, values, strict=True)]
    return recipe_from_values(apply_overrides({"name": name}, overrides), f"the plan {name}")


def _trained_on(pairs: FoundPairs, patient_pattern: str | None, *, fraction: float) -> int:
    """How many images training keeps when it holds out a part, of patients as a whole, with the seed of the recipe."""
    patients = () if patient_pattern is None else patients_of(pairs.ids, patient_pattern, pairs.images[0].parent)
    held_out = hold_out(len(pairs.ids), fraction=fraction, seed=TrainingSection().seed, patients=patients)
    return len(held_out.train)


def _with_length(
    name: str,
    decisions: Sequence[Decision],
    images: int,
    *,
    root: Path,
    device: torch.device,
    minutes: float | None,
    progress: Progress,
) -> PlannedRecipe:
    """The recipe with a section `training` for the speed that this machine has."""
    batch, too_large = min(_batch_size(_value(decisions, "data.crop_size"), device), images), ""
    while True:
        chosen = [*decisions, Decision("training.batch_size", batch, too_large)]
        try:
            precision, speed = _precision(name, chosen, root=root, device=device, progress=progress)
            break
        except OutOfMemory:
            if batch == 1:
                raise
            batch, too_large = batch // 2, "a larger one does not fit into memory"
    epochs, reason = _epochs(images, batch, speed, device=device, minutes=minutes)
    every = max(1, epochs // VALIDATIONS)
    chosen += [
        precision,
        Decision("training.epochs", epochs, reason),
        Decision("training.validate_every", every),
        Decision("training.save_every", every),
    ]
    sections = list(Recipe.model_fields)
    chosen.sort(key=lambda one: sections.index(one.key.partition(".")[0]))
    return PlannedRecipe(tuple(chosen), recipe_of(name, chosen), speed, epochs * images / speed / 60)


def _epochs(images: int, batch: int, speed: float, *, device: torch.device, minutes: float | None) -> tuple[int, str]:
    """How often training sees all its images, and why."""
    steps = STEPS[device.type]
    wanted, reason, longer = steps * batch / images, f"about {steps} steps", ""
    if minutes is not None:
        wanted = 60 * minutes * _USED * speed / images
        reason = f"what fits into {minutes:.3g} min at {speed:.1f} images/s, measured here"
        longer = f", which take longer than {minutes:.3g} min"
    if round(wanted) < EPOCHS[0]:
        return EPOCHS[0], f"the fewest that make sense{longer}"
    if round(wanted) > EPOCHS[1]:
        return EPOCHS[1], "the most that make sense"
    return round(wanted), reason


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
        reason = f"bfloat16 has only {short / exact:.2g} times its speed on this processor"
        return Decision("training.precision", "float32", reason), exact
    reason = f"{short / exact:.2g} times as fast as float32 on this processor"
    return Decision("training.precision", "bfloat16", reason), short


def _value(decisions: Sequence[Decision], key: str) -> float:
    return float(next(one.value for one in decisions if one.key == key))


def _batch_size(crop: float, device: torch.device) -> int:
    """The paper's 16 on a GPU; on a processor fewer large crops, so that there are enough steps."""
    if device.type == "cuda":
        return 16
    return 8 if crop <= 256 else 4
