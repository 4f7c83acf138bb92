"""One's own data: a folder `images/` and a folder `masks/` whose files have the same names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.catalog import CATALOG, dataset_of
from etnet.data.dataset import image_files, match_names
from etnet.data.datasets.pairing import FoundPairs, part_of
from etnet.data.file_names import original_stem
from etnet.data.findings import Finding, PartMissing, Report, such_files
from etnet.data.mask_sources import MaskFile
from etnet.data.splits import read_split
from etnet.errors import DataError


def find_folder(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds `images/` and `masks/`, or those below `train/`; the test part lies below `test/`.

    With `data.split_file`, both parts are drawn from the folder's own `images/` and `masks/`.

    Args:
        data: What the recipe says about data.
        root: Folder that holds them.
        part: Which of the two.
        report: Takes what is wrong.

    Raises:
        DataError: The folders are missing or empty.
    """
    folder = root if data.split_file is not None else _part_folder(root, part)
    images, masks = image_files(folder / "images"), image_files(folder / "masks")
    copies = _report_copies(images, report=report)
    _report_mixture(images, report=report)
    images, masks = ({stem: path for stem, path in files.items() if stem not in copies} for files in (images, masks))
    ids = match_names(images, masks, report=report)
    if data.split_file is not None:
        ids = part_of(ids, read_split(data.split_file), part, where=folder / "images", report=report)
    return FoundPairs(
        ids=ids,
        images=tuple(images[stem] for stem in ids),
        masks=tuple(MaskFile(masks[stem]) for stem in ids),
        patients=_patients(data, ids, folder / "images", part=part),
    )


def _patients(
    data: DataSection, ids: Sequence[str], folder: Path, *, part: Literal["train", "test"]
) -> tuple[str, ...]:
    pattern = data.patient_pattern
    # Nothing is held out of a test part, whose names may have another form.
    if pattern is None or (part == "test" and not all(re.fullmatch(pattern, name) for name in ids)):
        return ()
    return patients_of(ids, pattern, folder)


def patients_of(ids: Sequence[str], pattern: str, folder: Path) -> tuple[str, ...]:
    """The patient in each name, by a regular expression that has to match the whole name.

    Args:
        ids: Names of images without suffix.
        pattern: With one group, the patient.
        folder: Where the images lie, for messages.

    Raises:
        DataError: The pattern does not match a name.
    """
    matches = [re.fullmatch(pattern, name) for name in ids]
    strange = [name for name, match in zip(ids, matches, strict=True) if match is None]
    if strange:
        raise DataError(
            f"{folder}: the name {strange[0]!r} ({such_files(len(strange))}) does not fit data.patient_pattern "
            f"{pattern!r}, which has to match whole names; change it so that it fits every image"
        )
    return tuple(match.group(1) or "" for match in matches if match is not None)


def _part_folder(root: Path, part: Literal["train", "test"]) -> Path:
    if part == "train":
        if (root / "images").is_dir() or not (root / "train" / "images").is_dir():
            return root
        return root / "train"
    if not (root / "test" / "images").is_dir():
        raise PartMissing(
            f"{root}: has no test part; expected test/images and test/masks; "
            "add them, or choose --split validation, or --split all for every image of the folder"
        )
    return root / "test"


def _report_copies(images: Mapping[str, Path], *, report: Report) -> set[str]:
    """Stems such as `a (1)` beside `a`, which are reported; names like that alone are someone's own numbering."""
    copies = tuple(path for stem, path in images.items() if original_stem(stem) in images)
    if copies:
        original = images[original_stem(copies[0].stem) or ""]
        report(
            Finding(
                "error",
                "renamed-file",
                f"{copies[0]}: looks like a copy of {original.name} that was made by the operating system "
                f"({such_files(len(copies))}); expected every image once; remove it with its mask, or give it a "
                "name of its own",
                copies,
            )
        )
    return {path.stem for path in copies}


def _report_mixture(images: Mapping[str, Path], *, report: Report) -> None:
    """Reports images of two known data sets; where these label different structures, no network can learn both."""
    known = defaultdict(list)
    for path in images.values():
        name = dataset_of(path.name)
        if name is not None:
            known[name].append(path)
    if len(known) > 1:
        first, second = sorted(known, key=lambda name: -len(known[name]))[:2]
        alike = len({CATALOG[name].structures for name in known}) == 1
        report(
            Finding(
                "warning" if alike else "error",
                "mixed-data-sets",
                f"{known[second][0]}: named like an image of {CATALOG[second].title}, among {len(known[first])} of "
                f"{CATALOG[first].title}; expected one data set in a folder; move each to a folder of its own",
                tuple(known[second]),
            )
        )
