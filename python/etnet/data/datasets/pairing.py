"""Finding the files of a data set by the numbers in their names, wherever an archive was unpacked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etnet.config.data_section import DataSection
from etnet.data.file_names import how_to_rename, natural_key, original_stem
from etnet.data.findings import Finding, Report, counted_of
from etnet.data.mask_sources import MaskSource
from etnet.data.splits import SplitFile, choose_part
from etnet.errors import DataError


@dataclass(frozen=True)
class FoundPairs:
    """Images and masks of one part of a data set, matched by name; no file has been opened.

    Attributes:
        ids: A unique name per sample.
        images: Image file per sample.
        masks: Mask per sample.
        fields_of_view: Field-of-view file per sample; None where the data set has none.
        mask_values: The data set's own mapping from stored values to classes; None where it is to be found.
        reference_cdrs: The annotators' vertical cup-to-disc ratio per sample; None where there is none.
        patients: Who is on the image, per sample; empty where the names do not tell.
    """

    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[MaskSource, ...]
    fields_of_view: tuple[Path, ...] | None = None
    mask_values: Mapping[int, int] | None = None
    reference_cdrs: tuple[float | None, ...] | None = None
    patients: tuple[str, ...] = ()


def files_by_id(paths: Iterable[Path], id_of: Callable[[Path], str | None], *, report: Report) -> dict[str, Path]:
    """Files whose names tell the sample that they belong to, in natural order of the samples.

    Copies that an operating system made, files that it renamed, and samples that lie in two folders are reported.

    Args:
        paths: Files of one kind.
        id_of: The sample of a file; None for files that belong to none.
        report: Takes what is wrong.
    """
    found: dict[str, Path] = {}
    paths = tuple(paths)
    for path in paths:
        sample = id_of(path)
        if sample is None:
            continue
        if sample in found:
            report(_twice(found[sample], path))
        else:
            found[sample] = path
    report_renamed(paths, lambda path: id_of(path) is not None, report=report)
    return {sample: found[sample] for sample in sorted(found, key=natural_key)}


def report_renamed(paths: Sequence[Path], is_official: Callable[[Path], bool], *, report: Report) -> None:
    """Reports names such as `g0001 (1).jpg`, which a browser or an operating system makes of official ones.

    Args:
        paths: Files to look at.
        is_official: Whether a file has a name of the data set.
        report: Takes what is wrong.
    """
    known = set(paths)
    for path in paths:
        stem = original_stem(path.stem)
        if stem is None or is_official(path):
            continue
        original = path.with_name(stem + path.suffix)
        if is_official(original):
            copied = f"it looks like a copy of {original.name} that was made by the operating system; remove it"
            remedy = copied if original in known else how_to_rename(path)
            sentence = f"{path}: expected the name {original.name}; {remedy}"
            report(Finding("error", "renamed-file", sentence, (path,)))


def matched_ids(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    *,
    mask_name: Callable[[str], str],
    remedy: str,
    report: Report,
) -> tuple[str, ...]:
    """Samples that have both an image and a mask; the others are reported.

    Args:
        images: Image by sample.
        masks: Mask by sample.
        mask_name: Official name of a sample's mask.
        remedy: Where missing masks come from.
        report: Takes what is wrong.
    """
    unlabelled = [images[sample] for sample in images if sample not in masks]
    if unlabelled:
        expected = mask_name(next(sample for sample in images if sample not in masks))
        report(
            Finding(
                "error",
                "image-without-mask",
                f"{unlabelled[0]}: image without mask ({counted_of(unlabelled, len(images))}); expected {expected}; "
                f"{remedy}",
                tuple(unlabelled),
            )
        )
    pictureless = [masks[sample] for sample in masks if sample not in images]
    if pictureless:
        report(
            Finding(
                "error",
                "mask-without-image",
                f"{pictureless[0]}: mask without image ({counted_of(pictureless, len(masks))}); expected an image of "
                "the same number; unpack the archive of the images again, or remove the masks",
                tuple(pictureless),
            )
        )
    return tuple(sample for sample in images if sample in masks)


def _twice(first: Path, second: Path) -> Finding:
    return Finding(
        "error",
        "sample-twice",
        f"{second}: the same sample also lies in {first}; expected every sample once; "
        "remove one of the two, often an archive that was unpacked twice",
        (first, second),
    )


def part_of(
    ids: Sequence[str], split: SplitFile, part: Literal["train", "test"], *, where: Path, report: Report
) -> tuple[str, ...]:
    """The ids of one part of a split; an id that is missing, or that the split does not name, is reported."""
    try:
        return choose_part(ids, split, part, where=where)
    except DataError as error:
        report(Finding("error", "split", str(error)))
    chosen = set(split.train if part == "train" else split.test)
    return tuple(name for name in ids if name in chosen)


def require_two_classes(data: DataSection, root: Path, *, title: str, structure: str) -> None:
    """Refuses a recipe for another number of classes than background and one structure.

    Raises:
        DataError: The recipe has other classes.
    """
    if len(data.class_names) != 2:
        raise DataError(
            f"{root}: {title} has labels for two classes; expected background and {structure} in data.class_names, "
            f"got {list(data.class_names)}"
        )
