"""Which classes the values of a folder's masks stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etnet.data.mask_values import LISTED_VALUES, MaskMapping, MaskSummary
from etnet.errors import DataError, UsageError

_UNLABELLED = 255
_MOST_CLASSES = 255
_HIGHEST_VALUE = 65535


@dataclass(frozen=True)
class ClassPlan:
    """Classes, and how the stored values become them.

    Attributes:
        names: Classes in index order, the background first.
        mapping: Class index, or ignore index, of each stored value.
        ignore_index: Index of pixels without a label; None where all have one.
        reason: Why it is read so, for the recipe.
    """

    names: tuple[str, ...]
    mapping: MaskMapping
    ignore_index: int | None
    reason: str

    @property
    def stored_as_indices(self) -> bool:
        """Whether every stored value is its own class index, so that no mapping has to be written down."""
        return all(value == index for value, index in self.mapping.classes.items())


def plan_classes(summaries: Sequence[MaskSummary], names: Sequence[str] | None) -> ClassPlan:
    """Decide what the values of all masks stand for.

    The values in ascending order are the classes, the lowest is the background. Beside class indices from 0 upwards,
    255 stands for pixels without a label, unless `names` says that it is a class. Many values are taken for classes
    only where they count up from 0, or where each has a name.

    Args:
        summaries: What the masks hold.
        names: Classes that the user named, the background first; None for names such as `class_1`.

    Raises:
        DataError: The values are those of no class drawing, or there is only one.
        UsageError: There are more or fewer names than classes, or a name is missing or there twice.
    """
    _require_distinct(names or ())
    values = _values(summaries, named=len(names or ()))
    unlabelled = _has_unlabelled(values, names)
    labels = [value for value in values if not (unlabelled and value == _UNLABELLED)]
    chosen = tuple(names) if names is not None else default_names(len(labels))
    if len(chosen) != len(labels):
        raise UsageError(
            f"--classes names {len(chosen)} classes, but the masks hold the values {labels}; name {len(labels)}, the "
            "background first"
        )
    mapping = {value: index for index, value in enumerate(labels)}
    shown = values if len(values) <= LISTED_VALUES else [*values[:2], "...", values[-1]]
    reason = f"the values in the mask files are {', '.join(map(str, shown))}"
    if unlabelled:
        mapping[_UNLABELLED] = _UNLABELLED
        reason += "; 255 beside class indices is taken for pixels without a label"
    return ClassPlan(chosen, MaskMapping(mapping), _UNLABELLED if unlabelled else None, reason)


def default_names(count: int) -> tuple[str, ...]:
    """Names for classes that nobody named.

    >>> default_names(2), default_names(3)
    (('background', 'foreground'), ('background', 'class_1', 'class_2'))
    """
    if count == 2:
        return ("background", "foreground")
    return ("background", *(f"class_{index}" for index in range(1, count)))


def _require_distinct(names: Sequence[str]) -> None:
    if "" in names:
        raise UsageError("--classes holds an empty name; expected names between commas, the background first")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--classes names {twice!r} twice; give every class a name of its own")


def _values(summaries: Sequence[MaskSummary], *, named: int) -> list[int]:
    """All values of the masks in ascending order, once they can be those of classes."""
    for summary in summaries:
        if min(summary.values) < 0 or max(summary.values) > _HIGHEST_VALUE:
            raise DataError(
                f"{summary.path}: holds values from {min(summary.values)} to {max(summary.values)}; expected 0 to "
                f"{_HIGHEST_VALUE}, one value per class"
            )
    values = sorted(frozenset[int]().union(*(summary.values for summary in summaries)))
    example = max(summaries, key=lambda summary: len(summary.values)).path
    if len(values) < 2:
        raise DataError(
            f"{example}: all masks hold only the value {values[0]}; expected a background and at least one structure"
        )
    labels = [value for value in values if value != _UNLABELLED]
    are_indices = list(range(len(values))) == values or list(range(len(labels))) == labels
    if len(values) > (_MOST_CLASSES if are_indices or named == len(values) else LISTED_VALUES):
        raise DataError(
            f"{example}: the masks hold {len(values)} different values; expected one per class; masks that were saved "
            "as JPEG or smoothed hold such values, so threshold them and save them as PNG; masks that number single "
            "objects do too, so give all objects of a class one value"
        )
    return values


def _has_unlabelled(values: Sequence[int], names: Sequence[str] | None) -> bool:
    """Whether 255 marks what nobody labelled: it stands apart from indices 0, 1, ... and no name is left for it."""
    indices = list(range(len(values) - 1))
    return len(values) >= 3 and list(values) == [*indices, _UNLABELLED] and (names is None or len(names) < len(values))
