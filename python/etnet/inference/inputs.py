"""Which files a run segments, by whatever the user names: a file, a folder, a glob pattern or a table.

Nothing is decoded here, so that 100,000 inputs are listed in seconds; `etnet.inference.input_images` opens them. Hidden
files and files of other types are skipped and counted; what is called an image and cannot be one of the inputs (a pipe,
a name that no table can hold) and folders that cannot be listed are named, not skipped silently.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from etnet.data.dicom import DICOM_SUFFIXES, is_dicom
from etnet.data.file_names import MOST_NAME_BYTES, natural_key, same_name_key, visible_name
from etnet.data.io import IMAGE_SUFFIXES
from etnet.data.medical_packages import import_for
from etnet.data.picture_files import check_file
from etnet.data.volumes import VOLUME_SUFFIXES, volume_suffix
from etnet.errors import DataError

_DICOM_INDEX = "DICOMDIR"
"""A table of contents that bears the mark of DICOM and holds no image."""
_JOURNAL = re.compile(r"journal(\.part-\d+-of-\d+)?\.jsonl")
_JOURNAL_BEGINS = (b'{"etnet_journal": ', b'{"key": "')
_MAP_SUFFIX = ".npz"


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
        unreadable: (name, reason) of each folder below the named one that cannot be listed, and of each image that
            cannot be an input.
    """

    items: tuple[InputItem, ...]
    skipped: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()


def find_inputs(source: Path, *, recursive: bool = False) -> Inputs:
    """List what a path, a pattern or a table stands for.

    Args:
        source: An image or volume; a folder; a pattern with `*`, `?`, `[` or `**`; or a `.csv` table (see
            `etnet.inference.input_table.read_table`). A file or folder of exactly this name outranks a pattern.
        recursive: Also take folders below a folder, each once even where links lead round in circles. Neither this nor
            `**` enters folders with the results of a run, which a journal marks; of a named folder that is one, the
            images that lie beside its results are taken, and those in a named folder of results all.

    Raises:
        DataError: The path does not exist, cannot be listed, holds no image or cannot be written down, a pattern leads
            out of its first folder with `..`, or a table is wrong.
        EnvironmentFault: There are medical files, and the package that reads them is not installed.
    """
    from etnet.inference.input_table import read_table

    _check_name(source)
    if source.is_dir():
        found = _folder(source, recursive=recursive)
    elif source.suffix.lower() == ".csv" and source.exists():
        found = Inputs(read_table(source))
    elif _exists(source):
        _check_length(source)
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


def is_named_like_a_result(folder: str) -> bool:
    """Whether a folder below those of the results could take the place of a file: another input's mask or array.

    >>> is_named_like_a_result("left/a.png"), is_named_like_a_result("a.npz"), is_named_like_a_result("1.2.840")
    (True, True, False)
    """
    return _result_stem(folder) != folder


def _result_stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() == _MAP_SUFFIX else output_stem(name)


def assign_output_names(file_names: Sequence[str]) -> tuple[str, ...]:
    """Names for the results, one per input: the stem, or the full name where several inputs share a stem.

    Letter case does not distinguish names, nor how an accent is written, because they do not on the file systems of
    macOS and Windows.

    >>> assign_output_names(["a.png", "b.jpg", "b.png", "left/a.png"])
    ('a', 'b.jpg', 'b.png', 'left/a')
    """
    shared = Counter(same_name_key(output_stem(name)) for name in file_names)
    # The mask of a.jpg is masks/a.png, which must not be the folder of results of a folder called a.png; nor may
    # probabilities/a.npz be that of a folder called a.npz.
    folders = {str(folder) for name in file_names if "/" in name for folder in PurePosixPath(name).parents}
    taken = {same_name_key(_result_stem(folder)) for folder in folders if is_named_like_a_result(folder)}
    assigned = []
    for name in file_names:
        stem = output_stem(name)
        wanted = stem if shared[same_name_key(stem)] == 1 else name
        candidate, number = wanted, 1
        while same_name_key(candidate) in taken:
            number += 1
            candidate = f"{wanted}-{number}"
        taken.add(same_name_key(candidate))
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


def _is_named_like_an_input(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *DICOM_SUFFIXES) or volume_suffix(path) is not None


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

    def add(self, root: Path, path: Path) -> None:
        """Sort in what is no folder."""
        name = path.relative_to(root).as_posix()
        is_file = _is_file(path)
        if not (_is_input(path) if is_file else _is_named_like_an_input(path)):
            self.skipped += is_file
            return
        try:
            _check_name(path)
            _check_length(path)
            if not is_file:
                check_file(path)
            self.names.append(name)
        except DataError as error:
            self.unreadable.append((visible_name(name), str(error)))

    def inputs(self, root: Path, key: Callable[[str], object]) -> Inputs:
        names = sorted(self.names, key=key)  # type: ignore[arg-type]
        items = zip(names, [root / name for name in names], assign_output_names(names), strict=True)
        return Inputs(tuple(InputItem(*item) for item in items), self.skipped, tuple(self.unreadable))


def _check_name(path: Path) -> None:
    """Refuse what no line of a table or a message can hold."""
    shown = visible_name(str(path))
    if shown != str(path):
        raise DataError(
            f"{shown}: the name holds line ends, control characters or bytes that are no UTF-8; rename the file"
        )


def _check_length(path: Path) -> None:
    """Refuse a file whose results could not be called after it."""
    length = len(output_stem(path.name).encode())
    if length > MOST_NAME_BYTES:
        raise DataError(
            f"{path}: the name has {length} bytes without its suffix; expected at most {MOST_NAME_BYTES}, because "
            "names of results are longer; rename the file"
        )


def _folder(root: Path, *, recursive: bool) -> Inputs:
    listing = _Listing()
    for folder, names in _walk(root, listing, recursive=recursive):
        for name in names:
            if not name.startswith("."):
                listing.add(root, Path(folder, name))
    if not listing.names and not listing.unreadable:
        raise DataError(_no_image_sentence(root, listing.skipped, recursive=recursive))
    return listing.inputs(root, natural_key if recursive else str)


def _walk(root: Path, listing: _Listing, *, recursive: bool) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of what is no folder) of the root and, if asked for, of each folder below it once."""
    from etnet.inference.results import RESULT_FOLDERS

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
        if _holds_results(Path(folder), names):
            if Path(folder) != root:
                subfolders.clear()
                continue
            subfolders[:] = [name for name in subfolders if name not in RESULT_FOLDERS]
        subfolders[:] = sorted(name for name in subfolders if recursive and not name.startswith("."))
        yield folder, sorted(names)


def _is_file(path: Path) -> bool:
    """Regular files and links that lead nowhere, which are then reported; opening a pipe would never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return path.is_symlink()


def _pattern(pattern: Path) -> Inputs:
    root, listing = fixed_folder(pattern), _Listing()
    # A pattern with several ** finds a file once for each way to it.
    names = dict.fromkeys(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - absolute patterns too
    files = dict.fromkeys(_below(root, Path(name), pattern) for name in names if not Path(name).is_dir())
    results = _ResultFolders(root) if "**" in pattern.parts else None
    for path in files:
        if results is None or not results.hold(path):
            listing.add(root, path)
    if not listing.names and not listing.unreadable:
        raise DataError(f"{pattern}: no image matches this pattern; {listing.skipped} file(s) of other types do")
    return listing.inputs(root, natural_key)


def _below(root: Path, path: Path, pattern: Path) -> Path:
    """The path with `..` followed, so that names of results hold none."""
    if ".." not in path.relative_to(root).parts:
        return path
    # Not by the text alone: the parent of a linked folder is not the folder with the link.
    try:
        return root / (path.parent.resolve() / path.name).relative_to(root.resolve())
    except ValueError:
        raise DataError(
            f"{pattern}: leads out of {root} with '..', for instance to {visible_name(str(path))}, and results are "
            "named by the path below that folder; write the pattern without '..' behind a placeholder"
        ) from None


def _holds_results(folder: Path, names: Iterable[str]) -> bool:
    """Whether a run wrote here: its masks are no images to segment."""
    return any(_JOURNAL.fullmatch(name) and _is_journal(folder / name) for name in names)


def _is_journal(path: Path) -> bool:
    try:
        check_file(path)
        with path.open("rb") as stream:
            start = stream.read(max(map(len, _JOURNAL_BEGINS)))
    except (OSError, DataError):
        return False
    # A run that was killed at once leaves an empty one.
    return not start or start.startswith(_JOURNAL_BEGINS)


class _ResultFolders:
    """Folders of results below a root, each looked at once."""

    def __init__(self, root: Path) -> None:
        from etnet.inference.results import RESULT_FOLDERS

        self._known: dict[Path, bool] = {root: False}
        if _holds_results(root, _names_in(root)):
            self._known.update({root / name: True for name in RESULT_FOLDERS})

    def hold(self, path: Path) -> bool:
        """Whether a file lies in one."""
        folder = path.parent
        if folder not in self._known:
            self._known[folder] = self.hold(folder) or _holds_results(folder, _names_in(folder))
        return self._known[folder]


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - only names are looked at
    except OSError:
        return []


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
