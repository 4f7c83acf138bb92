"""Which samples are for training, validation and testing: seeded hold-outs and folds, and split files that list ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from etnet.config.folds import Fold
from etnet.errors import DataError


class HoldOut(NamedTuple):
    """Positions of both parts, each ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


def hold_out(count: int, *, fraction: float, seed: int, patients: Sequence[str] = ()) -> HoldOut:
    """Draws a validation part without replacement.

    A fraction above zero holds out at least one sample, and one always stays for training. All samples of a patient are
    held out or none, so that the part may be larger by some.

    Args:
        count: Number of samples.
        fraction: Share that is held out, 0 <= fraction < 1.
        seed: The same seed gives the same parts.
        patients: Who is on each sample; empty means another patient on every one.

    Example:
        >>> [len(part) for part in hold_out(20, fraction=0.2, seed=0)]
        [16, 4]
        >>> hold_out(4, fraction=0.25, seed=0, patients=["a", "a", "b", "b"]).validation
        (2, 3)
    """
    held = 0 if fraction == 0 else min(max(1, round(fraction * count)), max(count - 1, 0))
    order = np.random.default_rng([seed, count]).permutation(count).tolist()
    if not patients:
        return HoldOut(train=tuple(sorted(order[held:])), validation=tuple(sorted(order[:held])))
    sizes, chosen, reached = Counter(patients), set[str](), 0
    for patient in (patients[index] for index in order):
        if patient not in chosen and reached < held and len(chosen) + 1 < len(sizes):
            chosen.add(patient)
            reached += sizes[patient]
    validation = tuple(index for index in range(count) if patients[index] in chosen)
    return HoldOut(train=tuple(index for index in range(count) if patients[index] not in chosen), validation=validation)


def hold_out_fold(count: int, *, fold: Fold, seed: int, patients: Sequence[str] = ()) -> HoldOut:
    """Cuts the samples into folds and holds one of them out, for k-fold cross-validation.

    The folds of one seed are disjoint and together are all samples. A patient is in one fold only. The patients, those
    with the most samples first and otherwise in random order, each go to the fold that is smallest so far; where every
    sample has a patient of its own, the sizes of the folds differ by one at most.

    Args:
        count: Number of samples.
        fold: Which fold is held out, and of how many.
        seed: The same seed cuts the same folds.
        patients: Who is on each sample; empty means another patient on every one.

    Raises:
        DataError: There are fewer patients than folds.

    Example:
        >>> [hold_out_fold(4, fold=Fold(k, 2), seed=0, patients=["a", "a", "b", "b"]).validation for k in (1, 2)]
        [(2, 3), (0, 1)]
    """
    members: dict[str | int, list[int]] = {}
    for index in range(count):
        members.setdefault(patients[index] if patients else index, []).append(index)
    if len(members) < fold.count:
        raise DataError(
            f"data.fold {fold}: there are {len(members)} training "
            f"{'patients' if patients else 'images'}; expected one for every fold at least, so ask for fewer folds"
        )
    groups = list(members.values())
    # The trailing word keeps this apart from the draw of `hold_out`.
    shuffled = [groups[place] for place in np.random.default_rng([seed, count, 1]).permutation(len(groups))]
    folds: list[list[int]] = [[] for _ in range(fold.count)]
    for group in sorted(shuffled, key=len, reverse=True):
        min(folds, key=len).extend(group)
    held = set(folds[fold.number - 1])
    return HoldOut(train=tuple(index for index in range(count) if index not in held), validation=tuple(sorted(held)))


@dataclass(frozen=True)
class SplitFile:
    """Ids of a data set by part, from JSON such as `{"train": ["a", "b"], "test": ["c"], "excluded": []}`.

    Attributes:
        origin: The file, for messages.
        train: Ids to train on; the validation part is held out of them.
        test: Ids to test on.
        excluded: Ids that are in neither.
    """

    origin: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...] = ()


def builtin_split(name: str) -> SplitFile:
    """The split that comes with the package for a data set; its file says how it was drawn."""
    file = resources.files("etnet.data") / "split_files" / f"{name}.json"
    return _parse_split(file.read_text("utf-8"), origin=f"the split file of {name}")


def read_split(path: Path | str) -> SplitFile:
    """Reads a split file of the user's own.

    Raises:
        DataError: The file is missing, is not such JSON, or names an id twice.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a split file ({error}); check data.split_file") from None
    return _parse_split(text, origin=str(path))


def choose_part(
    ids: Sequence[str], split: SplitFile, part: Literal["train", "test"], *, where: Path
) -> tuple[str, ...]:
    """The ids of one part, in the order of `ids`.

    Args:
        ids: Every id that the folder holds.
        split: Which of them go where.
        part: Which part.
        where: The folder, for messages.

    Raises:
        DataError: The split names an id that the folder does not hold, or does not name one that it does.
    """
    known = {*split.train, *split.test, *split.excluded}
    missing = sorted({*split.train, *split.test} - set(ids))
    if missing:
        raise DataError(
            f"{where}: {missing[0]} is missing ({len(missing)} of the {len(known)} that {split.origin} names); "
            "unpack the archive again, or name a split of the images that are there with data.split_file"
        )
    strange = [name for name in ids if name not in known]
    if strange:
        raise DataError(
            f"{where}: {strange[0]} ({len(strange)} of {len(ids)}) is not in {split.origin}; remove it if it is a "
            "copy, or name a split of your own with data.split_file, where it may stand under train, test or excluded"
        )
    chosen = set(split.train if part == "train" else split.test)
    return tuple(name for name in ids if name in chosen)


def _parse_split(text: str, *, origin: str) -> SplitFile:
    try:
        content = json.loads(text)
        parts = {key: tuple(map(str, content.get(key, ()))) for key in ("train", "test", "excluded")}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f'{origin}: is no split file ({error}); expected JSON such as {{"train": ["a", "b"], "test": ["c"]}}'
        ) from None
    names = [name for part in parts.values() for name in part]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{origin}: names {twice[0]} twice; expected every id in one part only")
    if not parts["train"]:
        raise DataError(f'{origin}: names no id under "train"; expected ids of images, without suffix')
    return SplitFile(origin, **parts)
