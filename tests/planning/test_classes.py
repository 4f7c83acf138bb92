from __future__ import annotations

from pathlib import Path

import pytest

from etnet.data.mask_values import MaskSummary
from etnet.errors import DataError, UsageError
from etnet.planning.classes import plan_classes


def summaries(*values: set[int]) -> list[MaskSummary]:
    return [MaskSummary(Path(f"masks/{index}.png"), (8, 8), frozenset(held)) for index, held in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "mapping", "ignore_index"),
    [
        ([{0, 255}, {0}], {0: 0, 255: 1}, None),
        ([{0, 200}], {0: 0, 200: 1}, None),
        ([{0, 1}, {0, 1, 2}], {0: 0, 1: 1, 2: 2}, None),
        ([{0, 128}, {255}], {0: 0, 128: 1, 255: 2}, None),
        ([{0, 1, 255}], {0: 0, 1: 1, 255: 255}, 255),
        ([{0, 1, 2}, {2, 255}], {0: 0, 1: 1, 2: 2, 255: 255}, 255),
        ([set(range(20))], {index: index for index in range(20)}, None),
        ([{*range(20), 255}], {index: index for index in (*range(20), 255)}, 255),
    ],
)
def test_values_in_ascending_order_are_the_classes_and_255_beside_indices_is_no_label(values, mapping, ignore_index):
    plan = plan_classes(summaries(*values), None)
    assert plan.mapping.classes == mapping
    assert plan.ignore_index == ignore_index
    assert len(plan.names) == len(set(mapping.values()) - {ignore_index})
    assert plan.stored_as_indices == all(value == index for value, index in mapping.items())


def test_a_name_for_255_makes_it_a_class():
    plan = plan_classes(summaries({0, 1, 255}), ["background", "vein", "artery"])
    assert plan.mapping.classes == {0: 0, 1: 1, 255: 2}
    assert plan.ignore_index is None


def test_the_wrong_number_of_names_is_refused_with_the_values():
    with pytest.raises(UsageError, match=r"names 2 classes, but the masks hold the values \[0, 128, 255\]; name 3"):
        plan_classes(summaries({0, 128, 255}), ["background", "lesion"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (set(range(0, 250, 3)), r"hold 84 different values; .* JPEG or smoothed"),
        (set(range(256)), r"hold 256 different values; .* JPEG or smoothed"),
        (set(range(300)), r"hold 300 different values; .* number single objects"),
        ({0}, "hold only the value 0; expected a background and at least one structure"),
        ({255}, "hold only the value 255; expected a background and at least one structure"),
        ({-1, 0, 1}, "holds values from -1 to 1; expected 0 to 65535"),
    ],
)
def test_masks_that_are_no_class_drawings_are_refused(values, sentence):
    with pytest.raises(DataError, match=sentence):
        plan_classes(summaries(values), None)


def test_many_values_that_all_have_a_name_are_classes():
    values = set(range(0, 150, 10))
    plan = plan_classes(summaries(values), [f"class {index}" for index in range(15)])
    assert plan.mapping.classes == {value: value // 10 for value in values}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["background", "vein", "vein"], "names 'vein' twice"),
        (["background", "", "vein"], "holds an empty name"),
    ],
)
def test_a_name_that_is_missing_or_there_twice_is_refused(names, sentence):
    with pytest.raises(UsageError, match=sentence):
        plan_classes(summaries({0, 1, 2}), names)
