"""The registry of data sets: one entry per value of the recipe's `data.dataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.config.folds import Fold
from etnet.data.dataset import PairedFiles
from etnet.data.datasets.chase_db1 import find_chase_db1
from etnet.data.datasets.completeness import report_incomplete
from etnet.data.datasets.drishti_gs import find_drishti_gs
from etnet.data.datasets.drive import find_drive
from etnet.data.datasets.folder import find_folder
from etnet.data.datasets.lung_ct import find_lung_ct
from etnet.data.datasets.montgomery import find_montgomery
from etnet.data.datasets.opening import open_pairs
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.datasets.refuge import find_refuge
from etnet.data.datasets.stare import find_stare
from etnet.data.findings import Report, refuse
from etnet.data.splits import HoldOut, hold_out, hold_out_fold
from etnet.errors import DataError, UsageError

Split = Literal["train", "validation", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "all")

Finder = Callable[..., FoundPairs]

FINDERS: dict[str, Finder] = {
    "folder": find_folder,
    "drive": find_drive,
    "chase_db1": find_chase_db1,
    "stare": find_stare,
    "drishti_gs": find_drishti_gs,
    "refuge": find_refuge,
    "montgomery": find_montgomery,
    "lung_ct": find_lung_ct,
}
"""Functions `(data, root, *, part, report)` that match the files of the part "train" or "test" by name."""


def open_dataset(data: DataSection, root: Path, split: Split, *, seed: int = 0) -> PairedFiles:
    """Opens one split of a data set and checks it: pairs complete, sizes equal, mask values mapped.

    `validation` is a seeded hold-out of `data.validation_fraction` of the training images (0 holds out none), or the
    fold that `data.fold` names; `train` is the rest, `all` both together, and `test` the images that the data set keeps
    apart.

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
    parts = _held_out(data, dataset, seed=seed)
    return dataset.subset(parts.train), dataset.subset(parts.validation)


def _held_out(data: DataSection, dataset: PairedFiles, *, seed: int) -> HoldOut:
    if data.fold is None:
        return hold_out(len(dataset), fraction=data.validation_fraction, seed=seed, patients=dataset.patients)
    return hold_out_fold(len(dataset), fold=Fold.parse(data.fold), seed=seed, patients=dataset.patients)


def find_part(data: DataSection, root: Path, part: Literal["train", "test"], *, report: Report = refuse) -> FoundPairs:
    """Matches the files of one part by name, without opening any.

    Args:
        data: What the recipe says about data.
        root: Folder of the data set.
        part: Which part.
        report: Takes what is wrong; by default errors are raised.

    Raises:
        DataError: The part cannot be read at all; with the default `report`, also for any error.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected the folder of the {data.dataset!r} data set")
    pairs = FINDERS[data.dataset](data, root, part=part, report=report)
    if data.split_file is None:
        report_incomplete(pairs, dataset=data.dataset, root=root, part=part, report=report)
    return pairs


def _open_part(data: DataSection, root: Path, part: Literal["train", "test"]) -> PairedFiles:
    return open_pairs(data, find_part(data, root, part))
