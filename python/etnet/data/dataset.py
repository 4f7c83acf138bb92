"""What a data set is, and the parts that all data sets share: matching names, pairs on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from etnet.data.file_names import how_to_rename, natural_key, original_stem
from etnet.data.findings import Finding, Report, refuse
from etnet.data.io import IMAGE_SUFFIXES, read_image, read_mask_values
from etnet.data.mask_sources import MaskSource
from etnet.data.mask_values import MaskMapping
from etnet.errors import DataError
from etnet.types import Sample


class SegmentationDataset(Protocol):
    """Pairs of image and mask, read at their own size."""

    @property
    def ids(self) -> tuple[str, ...]:
        """A unique name per sample, in a fixed order."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """Reads one pair; the mask holds class indices.

        Raises:
            DataError: A file went missing or cannot be read.
        """

    def image_path(self, index: int) -> Path:
        """Where the image of a sample lies."""

    def source_key(self, index: int) -> str:
        """Names the content of a sample's files and how it is read; it changes when one of them is written anew.

        Raises:
            OSError: A file cannot be looked at.
        """


@dataclass(frozen=True)
class PairedFiles:
    """A data set whose every sample is an image file and a mask, which may come from several files.

    Attributes:
        ids: A unique name per sample.
        images: Image file per sample.
        masks: Mask per sample.
        mapping: From stored mask values to class indices.
        fields_of_view: Field-of-view file per sample, nonzero inside; None where the data set has none.
        intensity_window: (low, high) mapped to 0..255 in images of more than 8 bits.
        values: The distinct stored values of each mask.
        reference_cdrs: The annotators' vertical cup-to-disc ratio per sample; None where there is none.
        patients: Who is on the image, per sample; empty where that is not known.
    """

    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[MaskSource, ...]
    mapping: MaskMapping
    fields_of_view: tuple[Path, ...] | None = None
    intensity_window: tuple[float, float] | None = None
    values: tuple[frozenset[int], ...] = ()
    reference_cdrs: tuple[float | None, ...] | None = None
    patients: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes_present(self) -> frozenset[int]:
        """Class indices (and the ignore index) that occur in at least one of the masks."""
        return frozenset(self.mapping.classes[value] for value in frozenset[int]().union(*self.values))

    @property
    def mask_values(self) -> Mapping[int, int]:
        """Class index of each value that the mask files hold."""
        return self.mapping.classes

    def load(self, index: int) -> Sample:
        """Reads one pair at its own size; see `SegmentationDataset`."""
        image_path, source = self.images[index], self.masks[index]
        image = read_image(image_path, intensity_window=self.intensity_window)
        mask = self.mapping.apply(source.read(), path=source.path)
        require_same_size(source.path, mask.shape, image_path=image_path, image_shape=image.shape)
        ratio = None if self.reference_cdrs is None else self.reference_cdrs[index]
        if self.fields_of_view is None:
            return Sample(self.ids[index], image, mask, reference_cdr=ratio)
        view_path = self.fields_of_view[index]
        inside = read_mask_values(view_path) > 0
        require_same_size(view_path, inside.shape, image_path=image_path, image_shape=image.shape)
        return Sample(self.ids[index], image, mask, inside, ratio)

    def image_path(self, index: int) -> Path:
        """Where the image of a sample lies."""
        return self.images[index]

    def source_key(self, index: int) -> str:
        """Path, size and time of change of every file that image and mask are read from, and how; see the protocol."""
        source = self.masks[index]
        files = [self.images[index].resolve(), *(path.resolve() for path in source.files)]
        stats = [path.stat() for path in files]
        state = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(files, stats, strict=True)]
        return repr((state, source, sorted(self.mapping.classes.items()), self.intensity_window))

    def subset(self, indices: Sequence[int]) -> PairedFiles:
        """The same data set with only the named samples."""
        views, ratios = self.fields_of_view, self.reference_cdrs
        return replace(
            self,
            ids=tuple(self.ids[index] for index in indices),
            images=tuple(self.images[index] for index in indices),
            masks=tuple(self.masks[index] for index in indices),
            fields_of_view=None if views is None else tuple(views[index] for index in indices),
            values=tuple(self.values[index] for index in indices),
            reference_cdrs=None if ratios is None else tuple(ratios[index] for index in indices),
            patients=tuple(self.patients[index] for index in indices) if self.patients else (),
        )


def image_files(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by stem, in natural order; hidden files, folders and other kinds of files are left out.

    Raises:
        DataError: The folder is missing or holds no picture, or two pictures share a stem.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a folder of images")
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    files = [path for path in files if not path.name.startswith(".") and path.is_file()]
    found: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: natural_key(path.name)):
        if path.stem in found:
            raise DataError(
                f"{folder}: {found[path.stem].name} and {path.name} share the name {path.stem!r}; "
                "expected one file per name; rename or remove one of them"
            )
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: holds no pictures; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
    return found


def match_names(images: Mapping[str, Path], masks: Mapping[str, Path], *, report: Report = refuse) -> tuple[str, ...]:
    """Stems that stand in both folders, which must be all of them.

    Args:
        images: Images by stem, at least one.
        masks: Masks by stem, at least one.
        report: Takes what is wrong; by default it is raised.

    Raises:
        DataError: An image has no mask or a mask no image.
    """
    for these, others, kind, other_kind in ((images, masks, "image", "mask"), (masks, images, "mask", "image")):
        alone = tuple(path for stem, path in these.items() if stem not in others)
        if alone:
            example = next(iter(others.values()))
            renamed = _renamed_partner(alone[0], these, others)
            remedy = "add, rename or remove files" if renamed is None else how_to_rename(renamed)
            sentence = (
                f"{alone[0]}: {kind} without {other_kind} ({len(alone)} of {len(these)}); "
                f"expected a file named {alone[0].stem!r} in {example.parent}, where one is named {example.stem!r}; "
                f"{remedy}"
            )
            report(Finding("error", f"{kind}-without-{other_kind}", sentence, alone))
    return tuple(stem for stem in images if stem in masks)


def _renamed_partner(path: Path, these: Mapping[str, Path], others: Mapping[str, Path]) -> Path | None:
    """The file, of this one and those of the other kind, whose name an operating system changed so that they differ."""
    original = original_stem(path.stem)
    if original in others and original not in these:
        return path
    return next((other for stem, other in others.items() if original_stem(stem) == path.stem), None)


def require_same_size(path: Path, shape: Sequence[int], *, image_path: Path, image_shape: Sequence[int]) -> None:
    """Refuses a mask whose (height, width) is not that of its image.

    Raises:
        DataError: The sizes differ.
    """
    if tuple(shape[:2]) != tuple(image_shape[:2]):
        raise DataError(
            f"{path}: the mask is {shape[1]}x{shape[0]} pixels; expected {image_shape[1]}x{image_shape[0]} "
            f"as in {image_path.name}; export both at the same size"
        )
