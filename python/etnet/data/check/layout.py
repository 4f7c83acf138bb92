"""Which data set lies in a folder, told from the names of its files and folders."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.catalog import CATALOG, dataset_of
from etnet.data.file_tree import FileTree
from etnet.errors import DataError, UsageError

_EXAMPLES = 3
_HOME_MARKS = {"drive": "training", "montgomery": "CXR_png"}
"""Folders that lie directly in the data set's own, where its opener expects them."""


class Located(NamedTuple):
    """The folder to open a data set from, and how to read it."""

    home: Path
    recipe: Recipe


def locate(files: FileTree, recipe: Recipe | None) -> Located:
    """The recipe's data set in the folder itself, or, without a recipe, the one that the folder is recognised to hold.

    Raises:
        DataError: No data set was recognised.
        UsageError: Several data sets lie in folders of their own.
    """
    if recipe is not None:
        return Located(_home(files, recipe.data.dataset), recipe)
    dataset = recognise(files)
    return Located(_home(files, dataset), load_recipe(dataset))


def recognise(files: FileTree) -> str:
    """Tells the data set of a folder.

    A folder of one's own, with images/ and masks/, is recognised by these; a known data set by the names of its images.

    Raises:
        DataError: Neither is there.
        UsageError: Several data sets lie in folders of their own.
    """
    if _is_own_folder(files.root):
        return "folder"
    counts = Counter(name for name in map(_dataset_of, (*files.pictures, *files.archives)) if name is not None)
    if not counts:
        raise DataError(_unknown(files))
    homes = {name: _top_folders(files, name) for name in counts}
    if len(homes) > 1 and _disjoint(homes):
        raise UsageError(_several(files, homes))
    return counts.most_common(1)[0][0]


def _is_own_folder(root: Path) -> bool:
    return any((folder / "images").is_dir() and (folder / "masks").is_dir() for folder in (root, root / "train"))


def _dataset_of(path: Path) -> str | None:
    return dataset_of(path.name)


def _top_folders(files: FileTree, dataset: str) -> set[str]:
    """Folders directly below the root that hold images of a data set; "" for the root itself."""
    found = set()
    for path in (*files.pictures, *files.archives):
        if _dataset_of(path) == dataset:
            parts = path.relative_to(files.root).parts
            found.add(parts[0] if len(parts) > 1 else "")
    return found


def _disjoint(homes: Mapping[str, set[str]]) -> bool:
    everywhere = [folder for folders in homes.values() for folder in folders]
    return len(everywhere) == len(set(everywhere))


def _home(files: FileTree, dataset: str) -> Path:
    """The folder that the data set's opener wants: the given one, or one below in which all of it lies."""
    mark = _HOME_MARKS.get(dataset)
    if mark is None or (files.root / mark).is_dir():
        return files.root
    homes = {
        folder.parent
        for path in files.pictures
        for folder in path.parents
        if folder.name == mark and folder.is_relative_to(files.root)
    }
    return homes.pop() if len(homes) == 1 else files.root


def _several(files: FileTree, homes: Mapping[str, set[str]]) -> str:
    root, first = files.root, min(homes)
    listed = "; ".join(
        f"{CATALOG[name].title} in {', '.join(folder or '.' for folder in sorted(homes[name]))}"
        for name in sorted(homes)
    )
    if _each_in_one_folder(files, homes):
        remedy = f"check one at a time: etnet data check {shlex.quote(str(root / min(homes[first])))}"
    else:
        remedy = (
            "move each to a folder of its own, or check it as one of them: "
            f"etnet data check {shlex.quote(str(root))} --dataset {first}"
        )
    return f"{root}: holds several data sets ({listed}); {remedy}"


def _each_in_one_folder(files: FileTree, homes: Mapping[str, set[str]]) -> bool:
    """Whether every data set lies in one folder, masks included: no folder holds pictures of none of them."""
    recognised = set[str]().union(*homes.values()) - {""}
    tops = {path.relative_to(files.root).parts[0] for path in (*files.pictures, *files.archives)}
    return all(len(folders) == 1 for folders in homes.values()) and tops <= recognised


def _unknown(files: FileTree) -> str:
    seen = ", ".join(str(path.relative_to(files.root)) for path in files.pictures[:_EXAMPLES]) or "no picture"
    packed = f" and {files.archives[0].name}, which is not unpacked" if files.archives else ""
    return (
        f"{files.root}: no known layout; found {seen}{packed}; expected folders images/ and masks/, or a data set that "
        "'etnet data list' shows; unpack or rename, or name the data set with --dataset"
    )
