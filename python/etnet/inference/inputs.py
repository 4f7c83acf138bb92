"""Which files a run segments, by whatever the user names: a file, a folder, a glob pattern or a table.

Nothing is decoded here, so that 100,000 inputs are listed in seconds; `etnet.inference.input_images` opens them. Hidden
files and files of other types are skipped and counted; folders that cannot be listed are named, not skipped silently.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from etnet.data.dicom import DICOM_SUFFIXES, is_dicom
from etnet.data.file_names import natural_key
from etnet.data.io import IMAGE_SUFFIXES
from etnet.data.medical_packages import import_for
from etnet.data.volumes import VOLUME_SUFFIXES, volume_suffix
from etnet.errors import DataError

_DICOM_INDEX = "DICOMDIR"
"""A table of contents that bears the mark of DICOM and holds no image."""


@dataclass(frozen=True)
class InputItem:
    """One file to segment, not opened yet.

    Attributes:
        id: What tables and messages call it: the table's id, or the path below the folder; unique.
        path: The file.
        output_name: Path of its results below `masks/` and the like, without suffix; unique also where letter case
            does not count.
        spacing: Distance in mm between rows and between columns, from the table; it outranks that of the file.
    """

    id: str
    path: Path
    output_name: str
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class Inputs:
    """All files of a run, in natural order or in that of the table.

    Attributes:
        items: The files.
        skipped: Number of files that are no images by their name.
        unreadable: (folder, reason) of each folder below the named one that cannot be listed.
    """

    items: tuple[InputItem, ...]
    skipped: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()


def find_inputs(source: Path, *, recursive: bool = False) -> Inputs:
    """List what a path, a pattern or a table stands for.

    Args:
        source: An image or volume; a folder; a pattern with `*`, `?`, `[` or `**`; or a `.csv` table (see
            `etnet.inference.input_table.read_table`). A file or folder of exactly this name outranks a pattern.
        recursive: Also take folders below a folder, each once even where links lead round in circles.

    Raises:
        DataError: The path does not exist, cannot be listed or holds no image, or a table is wrong.
        EnvironmentFault: There are medical files, and the package that reads them is not installed.
    """
    from etnet.inference.input_table import read_table

    if source.is_dir():
        found = _folder(source, recursive=recursive)
    elif source.suffix.lower() == ".csv" and source.exists():
        found = Inputs(read_table(source))
    elif _exists(source):
        found = Inputs((InputItem(source.name, source, output_stem(source.name)),))
    elif glob.has_magic(str(source)):
        found = _pattern(source)
    else:
        raise DataError(f"{source}: no such folder, image file or table, and no pattern such as '{source}/*.png'")
    _check_packages(found.items)
    return found


def output_stem(name: str) -> str:
    """A file's name without the suffix of its format; a part behind a dot that is no suffix, as in `1.2.840`, stays.

    >>> output_stem("lung.nii.gz"), output_stem("a/eye.v2.png"), output_stem("1.2.840.113")
    ('lung', 'a/eye.v2', '1.2.840.113')
    """
    volume = volume_suffix(name)
    if volume is not None:
        return name[: -len(volume)] or name
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in (*IMAGE_SUFFIXES, *DICOM_SUFFIXES) else name


def assign_output_names(file_names: Sequence[str]) -> tuple[str, ...]:
    """Names for the results, one per input: the stem, or the full name where several inputs share a stem.

    Letter case does not distinguish names, because it does not on the file systems of macOS and Windows.

    >>> assign_output_names(["a.png", "b.jpg", "b.png", "left/a.png"])
    ('a', 'b.jpg', 'b.png', 'left/a')
    """
    shared = Counter(output_stem(name).lower() for name in file_names)
    # The mask of a.jpg is masks/a.png, which must not be the folder of results of a folder called a.png.
    folders = {str(folder) for name in file_names if "/" in name for folder in PurePosixPath(name).parents}
    taken = {output_stem(folder).lower() for folder in folders if output_stem(folder) != folder}
    assigned = []
    for name in file_names:
        stem = output_stem(name)
        wanted = stem if shared[stem.lower()] == 1 else name
        candidate, number = wanted, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{wanted}-{number}"
        taken.add(candidate.lower())
        assigned.append(candidate)
    return tuple(assigned)


def fixed_folder(source: Path) -> Path:
    """The folder that a pattern looks in: its first parts, up to the first with a placeholder; a folder is its own.

    >>> fixed_folder(Path("scans/*/ct*.dcm")).as_posix()
    'scans'
    """
    if source.is_dir():
        return source
    fixed = source
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    return fixed


def is_medical(path: Path) -> bool:
    """Whether a file is read by a package of the extra `medical`: DICOM or a volume, by its name or its content."""
    if path.suffix.lower() in DICOM_SUFFIXES or volume_suffix(path) is not None:
        return True
    return _may_be_nameless_dicom(path) and is_dicom(path)


def _may_be_nameless_dicom(path: Path) -> bool:
    """Scanners name files `IM000001`, or by a unique identifier, whose last part is a number."""
    return path.name != _DICOM_INDEX and (not path.suffix or path.suffix[1:].isdecimal())


def _is_input(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or is_medical(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a pattern longer than a name may be
        return False


@dataclass
class _Listing:
    """Files below a folder as they are found."""

    names: list[str] = field(default_factory=list)
    skipped: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def _folder(root: Path, *, recursive: bool) -> Inputs:
    listing = _Listing()
    for folder, names in _walk(root, listing, recursive=recursive):
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or not _is_file(path):
                continue
            if _is_input(path):
                listing.names.append(path.relative_to(root).as_posix())
            else:
                listing.skipped += 1
    if not listing.names and not listing.unreadable:
        raise DataError(_no_image_sentence(root, listing.skipped, recursive=recursive))
    names = sorted(listing.names, key=natural_key) if recursive else sorted(listing.names)
    items = tuple(
        InputItem(name, root / name, output_name)
        for name, output_name in zip(names, assign_output_names(names), strict=True)
    )
    return Inputs(items, listing.skipped, tuple(listing.unreadable))


def _walk(root: Path, listing: _Listing, *, recursive: bool) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of what is no folder) of the root and, if asked for, of each folder below it once."""

    def refuse(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == root:
            raise DataError(f"{root}: the folder cannot be listed ({error.strerror})") from error
        name = folder.relative_to(root).as_posix()
        listing.unreadable.append((name, f"{folder}: the folder cannot be listed ({error.strerror})"))

    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if recursive and not name.startswith("."))
        yield folder, sorted(names)


def _is_file(path: Path) -> bool:
    """Regular files and links that lead nowhere, which are then reported; opening a pipe would never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return path.is_symlink()


def _pattern(pattern: Path) -> Inputs:
    found = [Path(name) for name in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207 - absolute patterns too
    files = sorted((path for path in found if _is_file(path)), key=lambda path: natural_key(str(path)))
    taken = [path for path in files if _is_input(path)]
    if not taken:
        raise DataError(f"{pattern}: no image matches this pattern; {len(files)} file(s) of other types do")
    root = fixed_folder(pattern)
    names = [path.relative_to(root).as_posix() for path in taken]
    items = zip(names, taken, assign_output_names(names), strict=True)
    return Inputs(tuple(InputItem(*item) for item in items), len(files) - len(taken))


def _check_packages(items: Iterable[InputItem]) -> None:
    """Say at once that a package is missing, not once per file; tried on the first file of each kind."""
    firsts: dict[str, Path] = {}
    for item in items:
        suffix = volume_suffix(item.path) or item.path.suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            firsts.setdefault(suffix if suffix in VOLUME_SUFFIXES else "dicom", item.path)
    for kind, path in firsts.items():
        if kind in VOLUME_SUFFIXES:
            import_for(path, "nibabel")
            import_for(path, "nibabel" if kind.startswith(".nii") else "SimpleITK")
        elif is_medical(path):
            import_for(path, "pydicom")


def _no_image_sentence(folder: Path, other_files: int, *, recursive: bool) -> str:
    kinds = " ".join(suffix.lstrip(".") for suffix in sorted((*IMAGE_SUFFIXES, ".dcm", *VOLUME_SUFFIXES)))
    content = f"{other_files} file(s), none of them an image" if other_files else "no file"
    fitting = [] if recursive else _folders_with_images(folder)
    if fitting:
        name = "images" if "images" in fitting else fitting[0]
        return f"{folder}: holds {content}, but its sub-folder {name} does; use {folder / name}, or add --recursive"
    return f"{folder}: holds {content}; expected images with a suffix out of {kinds}"


def _folders_with_images(folder: Path) -> list[str]:
    fitting = []
    for child in sorted(folder.iterdir()):
        try:
            if child.is_dir() and any(_is_file(entry) and _is_input(entry) for entry in child.iterdir()):
                fitting.append(child.name)
        except OSError:  # a folder that cannot be listed is no advice
            continue
    return fitting
