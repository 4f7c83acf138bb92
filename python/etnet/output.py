"""Where results are written: fresh numbered folders, whole files only, and one sentence when the disk refuses."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etnet.errors import DiskFault, UsageError

LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.\d+\.\d+\.part(\.mha)?")
"""Names of the temporary files that a killed process leaves behind."""

_COUNTER = itertools.count()
_FULL = (errno.ENOSPC, errno.EDQUOT)


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files that killed processes left in these folders; call it where no other process writes.

    Raises:
        DiskFault: The disk refuses.
    """
    for folder in folders:
        with disk_faults(folder):
            for path in folder.glob(".*.part*"):
                if LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def check_output_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder given by the user that would mix old and new results; nothing is created or changed.

    Raises:
        UsageError: The path is a file, or a folder that is not empty and `overwrite` is off.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; --output expects a folder")
    # Locks and the like are no results.
    if folder.is_dir() and not overwrite and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(
            f"{folder}: is not empty, so nothing was written; choose another --output, or add --overwrite "
            "to replace results of the same name"
        )


def create_output_folder(explicit: Path | None, *, parent: Path, name: str) -> Path:
    """Create the folder for results: the user's own, or the first free one of `name`, `name-2`, `name-3` in `parent`.

    Raises:
        DiskFault: The folder cannot be created.
    """
    with disk_faults(explicit or parent):
        if explicit is not None:
            explicit.mkdir(parents=True, exist_ok=True)
            return explicit
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = parent / (name if number == 1 else f"{name}-{number}")
            try:
                # Creating decides which of two runs started together gets the name.
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1


def numbered_folders(parent: Path, name: str) -> list[Path]:
    """The folders that `create_output_folder` made for a name, the newest first."""
    folders: list[Path] = []
    while (folder := parent / (f"{name}-{len(folders) + 1}" if folders else name)).is_dir():
        folders.append(folder)
    return folders[::-1]


def run_name(model: Path) -> str:
    """The name under which results of a weights file are kept: its run's folder, or the file's own stem.

    >>> run_name(Path("runs/train/drive/weights/best.safetensors"))
    'drive'
    >>> run_name(Path("downloads/lungs.safetensors"))
    'lungs'
    """
    folder = model.absolute().parent
    return folder.parent.name if folder.name == "weights" and folder.parent.name else model.stem


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn an error of the file system inside the block into one sentence.

    Raises:
        DiskFault: The disk is full, read-only, or refuses for another reason.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "free some space there" if error.errno in _FULL else "check that it may be written"
        raise DiskFault(f"{path}: could not be written ({reason}); {remedy} or name another output folder") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, so that no reader sees half a file.

    Raises:
        DiskFault: The disk refuses; the former file stays and the temporary one is removed.
    """
    # Of one length for all names, and of its own for every process, thread and file.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    partial = path.with_name(f".{digest}.{os.getpid()}.{next(_COUNTER)}.part")
    with disk_faults(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old file or the whole new one.

    Raises:
        DiskFault: The disk refuses.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8 with its line ends as they are; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with two spaces of indent; NaN is refused because strict readers fail on it."""
    write_text(path, json_text(content) + "\n")


def json_text(content: dict[str, Any]) -> str:
    """The JSON text that `write_json` writes."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a comma-separated table with one header line; rows are written as they come.

    Raises:
        DiskFault: The disk refuses.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
