"""What lies below a data folder, by name only: pictures, archives that were not (fully) unpacked, litter of systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from etnet.data.file_names import natural_key
from etnet.data.io import IMAGE_SUFFIXES
from etnet.errors import DataError

_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz")
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp", ".filepart")
_LITTER_FOLDERS = ("__MACOSX", "@eaDir")
_LITTER_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class FileTree:
    """Files below a folder, each kind in natural order.

    Attributes:
        root: The folder.
        pictures: Files with the suffix of a picture.
        archives: Archives.
        unfinished: Downloads and extractions that stopped half-way.
        litter: What operating systems leave behind; never read.
    """

    root: Path
    pictures: tuple[Path, ...]
    archives: tuple[Path, ...] = ()
    unfinished: tuple[Path, ...] = ()
    litter: tuple[Path, ...] = ()


def list_files(root: Path) -> FileTree:
    """Looks through a folder and all below it without opening any file.

    Raises:
        DataError: The folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of a data set")
    kinds: dict[str, list[Path]] = {"pictures": [], "archives": [], "unfinished": [], "litter": []}
    for path in sorted(all_files(root), key=lambda path: natural_key(str(path))):
        kind = _kind(path.relative_to(root))
        if kind is not None:
            kinds[kind].append(path)
    return FileTree(root, **{kind: tuple(paths) for kind, paths in kinds.items()})


def all_files(root: Path) -> Iterator[Path]:
    """Every file below a folder, also below linked ones, in no particular order."""
    seen: set[str] = set()
    # Data folders are often links to a big disk; a link to a folder above must not lead round in circles.
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names)


def _kind(path: Path) -> str | None:
    if path.name in _LITTER_FILES or path.name.startswith("._") or set(path.parts) & set(_LITTER_FOLDERS):
        return "litter"
    if any(part.startswith(".") for part in path.parts):
        return None
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "pictures"
    if suffix in _ARCHIVES:
        return "archives"
    return "unfinished" if suffix in _UNFINISHED else None
