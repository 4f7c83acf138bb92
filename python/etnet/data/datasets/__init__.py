"""The registry of data sets: one entry per value of the recipe's `data.dataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from etnet.config.schema import DataSection
from etnet.data.dataset import PairedFiles
from etnet.data.datasets.drishti_gs import open_drishti_gs
from etnet.data.datasets.drive import open_drive
from etnet.data.datasets.folder import open_folder
from etnet.data.datasets.montgomery import open_montgomery
from etnet.data.splits import hold_out
from etnet.errors import DataError, UsageError

Split = Literal["train", "validation", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "all")

Opener = Callable[..., PairedFiles]

OPENERS: dict[str, Opener] = {
    "folder": open_folder,
    "drive": open_drive,
    "drishti_gs": open_drishti_gs,
    "montgomery": open_montgomery,
}
"""Functions `(data, root, *, part)` that return all pairs of the part "train" or "test"."""


def open_dataset(data: DataSection, root: Path, split: Split, *, seed: int = 0) -> PairedFiles:
    """Opens one split of a data set and checks it: pairs complete, sizes equal, mask values mapped.

    `validation` is a seeded hold-out of `data.validation_fraction` of the training images (0 holds out none), `train`
    the rest, `all` both together, and `test` the images that the data set keeps apart.

    Args:
        data: What the recipe says about data.
        root: Folder of the data set.
        split: Which samples.
        seed: Chooses the hold-out.

    Raises:
        DataError: A folder or file is missing, unreadable or does not fit the others.
        UsageError: The split does not exist.
    """
    if split not in SPLITS:
        raise UsageError(f"split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    if split in ("test", "all"):
        return _open_part(data, root, "test" if split == "test" else "train")
    training, validation = open_training_splits(data, root, seed=seed)
    return training if split == "train" else validation


def open_training_splits(data: DataSection, root: Path, *, seed: int) -> tuple[PairedFiles, PairedFiles]:
    """Opens `train` and `validation` together, so that every mask is read and checked once.

    Args:
        data: What the recipe says about data.
        root: Folder of the data set.
        seed: Chooses the hold-out.

    Raises:
        DataError: A folder or file is missing, unreadable or does not fit the others.
    """
    dataset = _open_part(data, root, "train")
    parts = hold_out(len(dataset), fraction=data.validation_fraction, seed=seed)
    return dataset.subset(parts.train), dataset.subset(parts.validation)


def _open_part(data: DataSection, root: Path, part: Literal["train", "test"]) -> PairedFiles:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected the folder of the {data.dataset!r} data set")
    return OPENERS[data.dataset](data, root, part=part)
