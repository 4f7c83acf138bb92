"""Which recipe trains a cell: the paper's, a small network's, or a quick one's, and what a table changes in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from etnet.config.load import builtin_recipes, load_recipe
from etnet.config.schema import Recipe
from etnet.errors import UsageError
from etnet.reproduce.tables import Method, PaperDataset

Profile = Literal["paper", "small", "quick"]
"""`paper`: the recipe of the data set's name; `small`: that with `_small`; `quick`: the paper's, made tiny."""

BANNERS: dict[Profile, str] = {
    "small": "SMALL NETWORKS, NOT THE PAPER'S: encoders from scratch with a schedule of their own, made for a CPU.",
    "quick": "QUICK RUN, NOT A REPRODUCTION: small encoder, small crops, few epochs, to see that everything works.",
}
"""What a table says above everything else, so that nobody mistakes it."""

PROTOCOL = ("data.validation_fraction=0",)
"""Ours: the paper names training and test images only, so a table trains on all of the former and scores the state at
the end of training; nothing is chosen by looking at a score."""

QUICK = (
    "model.encoder=resnet18",
    "model.encoder_weights=none",
    "model.decoder_channels=64",
    "model.edge_channels=32",
    "augmentation.scale=[0.8, 1.25]",
    "optimizer.base_lr=0.003",
    "training.batch_size=4",
)
"""A small encoder from scratch: minutes on two processor cores, scores that say that everything works and no more."""

QUICK_BY_DATASET = {
    "drive": ("data.crop_size=192", "training.epochs=16"),
    "montgomery": ("data.image_size=[192, 192]", "data.crop_size=192", "training.epochs=3"),
    "lung_ct": ("data.image_size=[192, 192]", "data.crop_size=192", "training.epochs=2"),
    "drishti_gs": ("data.roi.size=128", "data.crop_size=128", "training.epochs=6"),
    "refuge": ("data.roi.size=128", "data.crop_size=128", "training.epochs=2"),
}

QUICK_LOCALIZER = ("data.image_size=[128, 128]", "data.crop_size=128", "training.epochs=12")

RESERVED = {
    "model.name": "--methods",
    "model.use_egm": "--methods",
    "model.use_wam": "--methods",
    "training.seed": "--seeds",
    "training.epochs": "--epochs",
    "data.dataset": "--only",
}
"""Recipe keys that an option of `etnet reproduce` sets."""

LOCALIZER_RESERVED = {"training.seed": "the table, which trains one for all seeds", "data.dataset": "--only"}
"""Keys of the localizer's recipe that are not the user's."""


def check_overrides(overrides: Sequence[str], *, localizer_overrides: Sequence[str] = ()) -> None:
    """Refuse overrides under which a row or a column would no longer be what its title says.

    Raises:
        UsageError: An override sets a key that belongs to another option.
    """
    for option, given, reserved in (
        ("--set", overrides, RESERVED),
        ("--set-localizer", localizer_overrides, LOCALIZER_RESERVED),
    ):
        for override in given:
            key = override.partition("=")[0].strip()
            if key in reserved:
                raise UsageError(f"{option} {override}: {key} is chosen by {reserved[key]}; leave it out of {option}")


def recipe_for(
    dataset: PaperDataset,
    method: Method,
    *,
    seed: int,
    profile: Profile = "paper",
    epochs: int | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """The recipe that trains a method; later choices win: protocol, profile, overrides, epochs, method.

    Raises:
        UsageError: An override does not fit the recipe.
    """
    length = () if epochs is None else (f"training.epochs={epochs}",)
    quick = (*QUICK, *QUICK_BY_DATASET[dataset.key]) if profile == "quick" else ()
    row = (*length, *method.overrides, f"training.seed={seed}")
    return load_recipe(_recipe_name(dataset, profile), [*PROTOCOL, *quick, *overrides, *row])


def has_recipe(dataset: PaperDataset, profile: Profile) -> bool:
    """Whether a data set can be trained on in this way; not every one has a small recipe."""
    return _recipe_name(dataset, profile) in builtin_recipes()


def _recipe_name(dataset: PaperDataset, profile: Profile) -> str:
    return f"{dataset.key}_small" if profile == "small" else dataset.key


def localizer_recipe(dataset: PaperDataset, *, profile: Profile = "paper", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of the network that finds the region of interest, one for all methods and seeds.

    Raises:
        UsageError: An override does not fit the recipe.
    """
    quick = QUICK_LOCALIZER if profile == "quick" else ()
    fixed = (f"data.dataset={dataset.key}", "training.seed=0")
    return load_recipe("disc_localizer", [*PROTOCOL, *quick, *overrides, *fixed])
