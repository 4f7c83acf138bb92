"""Drishti-GS: optic disc and cup in retinal photographs, 50 for training and 51 for testing (paper Sec. 3, Table 1).

Files are found by name, at any depth below a folder `Training` or `Test`: images `drishtiGS_NNN.png`, maps
`drishtiGS_NNN_{ODsegSoftmap,cupsegSoftmap}.png` of how many of four annotators agree, and `drishtiGS_NNN_cdrValues.txt`
with the annotators' vertical cup-to-disc ratios. Copies of the archive differ in the folders between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.datasets.pairing import FoundPairs, report_renamed
from etnet.data.file_names import natural_key
from etnet.data.file_tree import all_files
from etnet.data.findings import Finding, PartMissing, Report, counted_of
from etnet.data.mask_sources import SoftMapMask
from etnet.errors import DataError

_NAME = re.compile(r"(drishtiGS_[0-9]+)(?:_(ODsegSoftmap|cupsegSoftmap|cdrValues))?\.(?:png|txt)", re.IGNORECASE)
_IMAGE, _DISC, _CUP, _RATIOS = "", "odsegsoftmap", "cupsegsoftmap", "cdrvalues"
_KINDS = {_DISC: "map of the disc", _CUP: "map of the cup"}
_ENDINGS = {_DISC: "ODsegSoftmap", _CUP: "cupsegSoftmap"}


def find_drishti_gs(data: DataSection, root: Path, *, part: Literal["train", "test"], report: Report) -> FoundPairs:
    """Finds one half; ids are the names of the images, such as `drishtiGS_004`.

    A mask is 0 outside, 1 on the rim and 2 in the cup, where at least `data.min_annotators` of the four agree. With two
    classes in the recipe, rim and cup together are the second.

    Args:
        data: What the recipe says about data.
        root: Folder with `Training` and `Test` at any depth.
        part: Which half.
        report: Takes what is wrong.

    Raises:
        DataError: There are no images, a file of ratios is damaged, or the recipe has another number of classes.
    """
    classes = len(data.class_names)
    if classes not in (2, 3):
        raise DataError(
            f"{root}: Drishti-GS has an optic disc and cup; expected data.class_names of background and disc, or of "
            f"background, rim and cup, got {list(data.class_names)}"
        )
    files = _files(root, part, report=report)
    images = files[_IMAGE]
    if not images:
        half = "Training" if part == "train" else "Test"
        raise PartMissing(
            f"{root}: holds no images drishtiGS_NNN.png below a folder {half}; expected the unpacked archive of "
            "Drishti-GS; give the folder that holds Training and Test"
        )
    ids = tuple(sorted(images, key=natural_key))
    for kind in (_DISC, _CUP):
        ids = _with_map(ids, files, kind, report=report)
    return FoundPairs(
        ids=ids,
        images=tuple(images[name] for name in ids),
        masks=tuple(SoftMapMask(files[_DISC][name], files[_CUP][name], data.min_annotators) for name in ids),
        mask_values={0: 0, 1: 1, 2: classes - 1},
        reference_cdrs=tuple(_mean_ratio(files[_RATIOS].get(name)) for name in ids),
    )


def _files(root: Path, part: Literal["train", "test"], *, report: Report) -> Mapping[str, dict[str, Path]]:
    """Files of one half by kind and id."""
    found: dict[str, dict[str, Path]] = {kind: {} for kind in (_IMAGE, _DISC, _CUP, _RATIOS)}
    paths = [path for path in sorted(all_files(root)) if _half(path.relative_to(root)) == part]
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        kind = (match[2] or "").lower()
        former = found[kind].setdefault(match[1], path)
        if former is not path:
            sentence = f"{path}: there is another {path.name} in {former.parent}; remove one of the two"
            report(Finding("error", "sample-twice", sentence, (former, path)))
    report_renamed(paths, lambda path: _NAME.fullmatch(path.name) is not None, report=report)
    return found


def _half(path: Path) -> Literal["train", "test"] | None:
    """The half that a file belongs to by the outermost folder that names one."""
    for folder in path.parts[:-1]:
        if folder.lower().startswith("train"):
            return "train"
        if folder.lower().startswith("test"):
            return "test"
    return None


def _with_map(
    ids: Sequence[str], files: Mapping[str, dict[str, Path]], kind: str, *, report: Report
) -> tuple[str, ...]:
    """Images that have a map of one kind; the others are reported."""
    alone = [name for name in ids if name not in files[kind]]
    if alone:
        sentence = (
            f"{files[_IMAGE][alone[0]]}: has no {_KINDS[kind]} ({counted_of(alone, len(ids))} images); expected "
            f"{alone[0]}_{_ENDINGS[kind]}.png in the same half; unpack the archive with the ground truth again"
        )
        report(Finding("error", "image-without-mask", sentence, tuple(files[_IMAGE][name] for name in alone)))
    return tuple(name for name in ids if name in files[kind])


def _mean_ratio(path: Path | None) -> float | None:
    """Mean of the annotators' ratios in a file of numbers; None where there is no file."""
    if path is None:
        return None
    try:
        ratios = [float(number) for number in path.read_text("utf-8").split()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no list of cup-to-disc ratios ({error}); copy it from the archive again") from None
    if not ratios or not all(0 <= ratio <= 1 for ratio in ratios):
        raise DataError(f"{path}: holds {ratios}; expected cup-to-disc ratios in 0..1; copy it from the archive again")
    return sum(ratios) / len(ratios)
