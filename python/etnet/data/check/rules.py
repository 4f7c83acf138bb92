"""What can be wrong with files that were read: one function per question, each answering with findings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from etnet.config.data_section import DataSection
from etnet.data.catalog import DatasetCard
from etnet.data.check.reading import PairFacts
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.findings import Finding, counted_of, such_files
from etnet.data.mask_sources import THRESHOLD, UnionMask
from etnet.data.mask_values import MaskMapping, MaskSummary, find_mapping, proposed_mapping, require_structure
from etnet.errors import DataError

_SIZE_TOLERANCE = 0.25
"""Official images of one set differ this much; copies that were resized differ more."""

_DARK = 65535 / 8
_NEAR_WHITE = 250
_SHOWN_VALUES = 6
_AIR, _DENSE = -1000, 400
"""Hounsfield units between which the built-in recipe for lungs shows a slice."""


@dataclass(frozen=True)
class Part:
    """One part of a data set and what was read of it.

    Attributes:
        name: `train` or `test`.
        pairs: Matched files.
        facts: What was read, in the same order.
    """

    name: str
    pairs: FoundPairs
    facts: Sequence[PairFacts]


def faults(part: Part) -> Iterator[Finding]:
    """Files that cannot be read or used, one finding per kind, in the words in which training refuses the first."""
    by_rule = defaultdict(list)
    for facts in part.facts:
        for fault in facts.faults:
            by_rule[fault.rule].append(fault)
    for rule, found in by_rule.items():
        lines = _window_lines(part) if rule == "no-intensity-window" else ()
        yield Finding("error", rule, found[0].sentence, tuple(fault.path for fault in found), lines)


def dark_images(part: Part, data: DataSection) -> Iterator[Finding]:
    """Unsigned 16-bit images that fill a small part of their range and would be nearly black without a window."""
    deep = [facts for facts in part.facts if facts.extremes is not None and not facts.faults]
    highest = max((facts.extremes[1] for facts in deep if facts.extremes is not None), default=0.0)
    if data.intensity_window is None and 0 < highest < _DARK:
        yield Finding(
            "warning",
            "unused-range",
            f"{deep[0].image}: has 16 bits, but no image of the {part.name} part exceeds {highest:.0f} of 65535, so "
            "that all would be nearly black; expected values over the whole range, or data.intensity_window",
            tuple(facts.image for facts in deep),
            _window_lines(part),
        )


def _window_lines(part: Part) -> tuple[str, ...]:
    """A window over the values of all images; of Hounsfield units, the one in which lungs are seen."""
    extremes = [facts.extremes for facts in part.facts if facts.extremes is not None]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if low <= _AIR < high:
        return (f"data.intensity_window: [{_AIR}, {_DENSE}]",)
    return (f"data.intensity_window: [{low:g}, {high:g}]",)


def mask_values(part: Part, data: DataSection) -> Iterator[Finding]:
    """Values without a class, classes without a value, and masks of background only."""
    summaries = [facts.mask for facts in part.facts if facts.mask is not None]
    if not summaries:
        return
    try:
        require_structure(part.pairs.masks, summaries)
    except DataError as error:
        yield Finding("error", "no-structure", str(error), tuple(summary.path for summary in summaries))
        return
    try:
        mapping = _mapping(part, data, summaries)
    except DataError as error:
        given = data.mask_values or part.pairs.mask_values
        allowed = set(given) if given is not None else set(range(len(data.class_names)))
        odd = tuple(summary.path for summary in summaries if not summary.values <= allowed)
        yield Finding("error", "mask-values", str(error), odd, _recipe_lines(summaries, data, given))
        return
    yield from _classes(part, data, summaries, mapping)


def expected_values(parts: Sequence[Part], data: DataSection) -> set[int]:
    """Stored values that have a class, where mask files hold what the recipe maps."""
    expected = set(range(len(data.class_names)))
    for part in parts:
        try:
            expected = set(_mapping(part, data, [facts.mask for facts in part.facts if facts.mask]).classes)
        except DataError:
            expected |= set(data.mask_values or ())
    return expected


def smoothed(parts: Sequence[Part]) -> Iterator[Finding]:
    """Masks of one structure that hold greys between black and white, which are divided at the middle."""
    masks = _black_and_white(parts)
    grey = [
        source.path
        for source, facts in masks
        if any(max(held) >= _NEAR_WHITE and set(held) - {0, 255} for held in facts.stored)
    ]
    if grey:
        yield Finding(
            "note",
            "smoothed-masks",
            f"{grey[0]}: holds greys between 0 and 255 ({counted_of(grey, len(masks))} masks), as resizing "
            f"leaves them; values above {THRESHOLD} count as the structure; nothing to do",
            tuple(grey),
        )


def never_white(parts: Sequence[Part]) -> Iterator[Finding]:
    """Masks of one structure whose brightest value is neither white nor a class: the threshold alone decides."""
    masks = _black_and_white(parts)
    odd = [
        (path, held)
        for source, facts in masks
        for path, held in zip(source.files, facts.stored, strict=False)
        if THRESHOLD < max(held) < _NEAR_WHITE
    ]
    if odd:
        values = sorted(set[int]().union(*(held for _, held in odd)))
        shown = ", ".join(map(str, values[:_SHOWN_VALUES])) + (", ..." if len(values) > _SHOWN_VALUES else "")
        yield Finding(
            "note",
            "no-white-in-mask",
            f"{odd[0][0]}: holds no white but values up to {max(odd[0][1])} ({such_files(len(odd))}, with the values "
            f"{shown}); expected 0 and 255, or 0 and 1; values above {THRESHOLD} count as the structure, so leave it "
            "if that is what they mean",
            tuple(path for path, _ in odd),
        )


def thresholded_values(parts: Sequence[Part]) -> set[int]:
    """Stored values that are divided into black and white, in masks that hold both."""
    stored = [held for _, facts in _black_and_white(parts) for held in facts.stored]
    return set[int]().union(*(held for held in stored if max(held) > THRESHOLD))


def _black_and_white(parts: Sequence[Part]) -> list[tuple[UnionMask, PairFacts]]:
    return [
        (source, facts)
        for part in parts
        for source, facts in zip(part.pairs.masks, part.facts, strict=True)
        if isinstance(source, UnionMask)
    ]


def black_files(parts: Sequence[Part]) -> Iterator[Finding]:
    """Files without the structure whose fellows of the same mask show it, such as one lung of two."""
    joined = [(source, facts) for source, facts in _black_and_white(parts) if facts.mask and 1 in facts.mask.values]
    black = tuple(
        path
        for source, facts in joined
        for path, held in zip(source.files, facts.stored, strict=True)
        if max(held) == 0
    )
    if black:
        yield Finding(
            "warning",
            "black-mask-file",
            f"{black[0]}: mask holds only the value 0, but the other file of the same image does not ("
            f"{such_files(len(black))}); expected the structure in both; copy the mask from the archive again, or "
            "leave it if that is true of the image",
            black,
        )


def _mapping(part: Part, data: DataSection, summaries: Sequence[MaskSummary]) -> MaskMapping:
    return find_mapping(
        summaries,
        num_classes=len(data.class_names),
        ignore_index=data.ignore_index,
        given=data.mask_values or part.pairs.mask_values,
    )


def _recipe_lines(
    summaries: Sequence[MaskSummary], data: DataSection, given: Mapping[int, int] | None
) -> tuple[str, ...]:
    """Lines that would give every value a class."""
    union = frozenset[int]().union(*(summary.values for summary in summaries))
    mapping = proposed_mapping(union, len(data.class_names))
    if mapping is None and given is None:
        mapping = proposed_mapping(union, len(union))
    if mapping is None:
        return ()
    lines = [f"data.mask_values: {mapping}"]
    if max(mapping.values()) >= len(data.class_names):
        names = ["background", *(f"class_{index}" for index in range(1, len(mapping)))]
        lines.insert(0, f"data.class_names: [{', '.join(names)}]")
    return tuple(lines)


def _classes(
    part: Part, data: DataSection, summaries: Sequence[MaskSummary], mapping: MaskMapping
) -> Iterator[Finding]:
    classes = [{mapping.classes[value] for value in summary.values} for summary in summaries]
    present = set[int]().union(*classes)
    for index, name in enumerate(data.class_names):
        if index not in present:
            yield Finding(
                "warning",
                "class-without-pixels",
                f"no mask of the {part.name} part holds {name!r} (class {index}); expected every class of "
                "data.class_names in some mask; check data.mask_values, or leave the class out",
            )
    empty = tuple(
        summary.path for summary, held in zip(summaries, classes, strict=True) if not held - {0, data.ignore_index}
    )
    if empty:
        needed = data.roi is not None
        remedy = "leave the image out, or train without data.roi" if needed else "nothing to do if that is true of them"
        yield Finding(
            "error" if needed else "note",
            "mask-of-background",
            f"{empty[0]}: holds only background ({counted_of(empty, len(summaries))} masks); {remedy}",
            empty,
        )


def kinds(part: Part) -> Iterator[Finding]:
    """Images of several kinds of pixels, which tell of mixed sources."""
    depths = Counter(facts.depth for facts in part.facts if facts.size is not None)
    if len(depths) > 1:
        common = depths.most_common(1)[0][0]
        others = tuple(facts.image for facts in part.facts if facts.size is not None and facts.depth != common)
        listed = ", ".join(f"{count} {depth}" for depth, count in depths.most_common())
        yield Finding(
            "warning",
            "different-kinds",
            f"{others[0]}: the {part.name} part mixes kinds of images ({listed}); expected one camera's; "
            "if another data set was mixed in, move it to a folder of its own",
            others,
        )


def official_sizes(parts: Sequence[Part], card: DatasetCard | None) -> Iterator[Finding]:
    """Images that were resized after the official download."""
    if card is None:
        return
    facts = [one for part in parts for one in part.facts if one.size is not None]
    odd = [one for one in facts if one.size is not None and not _is_official(one.size, card)]
    if odd and odd[0].size is not None:
        official = " or ".join(f"{width}x{height}" for width, height in card.sizes)
        width, height = odd[0].size
        yield Finding(
            "note",
            "resized-images",
            f"{odd[0].image}: {width}x{height} pixels ({counted_of(odd, len(facts))} images); the official ones have "
            f"about {official}; results on a resized copy cannot be compared with those on the official images",
            tuple(one.image for one in odd),
        )


def _is_official(size: tuple[int, int], card: DatasetCard) -> bool:
    return any(
        all(abs(side - official) <= _SIZE_TOLERANCE * official for side, official in zip(size, sizes, strict=True))
        for sizes in card.sizes
    )


def leakage(parts: Sequence[Part]) -> Iterator[Finding]:
    """The same picture or the same patient in two parts, and pictures that occur twice in one."""
    train, test = ([part for part in parts if part.name == name] for name in ("train", "test"))
    for part in parts:
        yield from _duplicates(part)
    if not train or not test:
        return
    pictures = {facts.digest: facts.image for facts in train[0].facts if facts.size is not None}
    again = [facts for facts in test[0].facts if facts.size is not None and facts.digest in pictures]
    if again:
        yield Finding(
            "error",
            "same-image-in-two-parts",
            f"{again[0].image}: the same picture as {pictures[again[0].digest]} of the training part "
            f"({counted_of(again, len(test[0].facts))} test images); a score on it would say nothing; remove one of "
            "the two",
            tuple(path for facts in again for path in (facts.image, pictures[facts.digest])),
        )
    yield from _shared_patients(train[0], test[0])


def _duplicates(part: Part) -> Iterator[Finding]:
    by_digest = defaultdict(list)
    for facts in part.facts:
        if facts.size is not None:
            by_digest[facts.digest].append(facts.image)
    groups = [images for images in by_digest.values() if len(images) > 1]
    if groups:
        first = groups[0]
        yield Finding(
            "warning",
            "same-image-twice",
            f"{first[1]}: the same picture as {first[0]} ({len(groups)} such in the {part.name} part); expected every "
            "picture once, since a held-out copy would be scored as new; remove one of the two",
            tuple(path for images in groups for path in images),
        )


def _shared_patients(train: Part, test: Part) -> Iterator[Finding]:
    trained = dict(zip(train.pairs.patients, train.pairs.images, strict=False))
    shared = [
        (patient, image)
        for patient, image in zip(test.pairs.patients, test.pairs.images, strict=False)
        if patient in trained
    ]
    if shared:
        patient, image = shared[0]
        yield Finding(
            "error",
            "same-patient-in-two-parts",
            f"{image}: shows {patient}, who is also on {trained[patient].name} of the training part "
            f"({len({name for name, _ in shared})} such); expected every patient in one part; move the images of a "
            "patient to one part in data.split_file",
            tuple(path for _, path in shared),
        )


def all_of(parts: Sequence[Part], data: DataSection, card: DatasetCard | None) -> list[Finding]:
    """Every rule on every part."""
    found: list[Finding] = []
    for part in parts:
        found += [*faults(part), *mask_values(part, data), *kinds(part), *dark_images(part, data)]
    of_masks = (*black_files(parts), *smoothed(parts), *never_white(parts))
    return [*found, *leakage(parts), *of_masks, *official_sizes(parts, card)]
