from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etnet.data.mask_sources import MaskFile
from etnet.data.mask_values import MaskMapping, MaskSummary, distinct_values, find_mapping, scan_masks
from etnet.errors import DataError
from helpers.datasets import save


def holding(*sets: set[int]) -> list[MaskSummary]:
    return [MaskSummary(Path(f"{number}.png"), (4, 4), frozenset(values)) for number, values in enumerate(sets)]


def test_values_that_are_indices_stay():
    assert find_mapping(holding({0, 1}, {0, 2}), num_classes=3).classes == {0: 0, 1: 1, 2: 2}


def test_ignored_values_stay():
    mapping = find_mapping(holding({0, 1, 255}), num_classes=2, ignore_index=255)
    assert mapping.classes == {0: 0, 1: 1, 255: 255}


@pytest.mark.parametrize("values", [{0, 255}, {0, 128}, {1, 2}, {3, 65535}])
def test_two_values_for_two_classes_are_mapped_in_order(values):
    low, high = sorted(values)
    assert find_mapping(holding(values), num_classes=2).classes == {low: 0, high: 1}


def test_one_mask_with_only_background_does_not_decide():
    mapping = find_mapping(holding({0}, {0, 255}), num_classes=2)
    assert mapping.classes == {0: 0, 255: 1}
    assert mapping.apply(np.array([[0, 0]], np.int32), path=Path("0.png")).tolist() == [[0, 0]]


def test_only_background_is_a_fine_data_set():
    assert find_mapping(holding({0}), num_classes=2).classes == {0: 0, 1: 1}


def test_the_sentence_names_the_mask_and_proposes_the_mapping():
    with pytest.raises(DataError) as caught:
        find_mapping(holding({0}, {0, 128, 255}), num_classes=3)
    assert str(caught.value) == (
        "1.png: mask holds values [0, 128, 255]; expected class indices 0..2. "
        "Map them with data.mask_values: {0: 0, 128: 1, 255: 2}"
    )


def test_the_proposal_is_made_over_all_masks():
    with pytest.raises(DataError, match=r"\{0: 0, 128: 1, 255: 2\}"):
        find_mapping(holding({0, 128}, {0, 255}), num_classes=3)


def test_masks_of_only_255_are_ambiguous_and_the_proposal_keeps_0_for_the_background():
    with pytest.raises(DataError, match=r"0\.png: mask holds values \[255\].*\{0: 0, 255: 1\}"):
        find_mapping(holding({255}), num_classes=2)


def test_255_as_foreground_and_as_ignore_index_is_refused():
    with pytest.raises(DataError, match=r"or ignore_index 255\. Map them with data\.mask_values: \{0: 0, 255: 1\}"):
        find_mapping(holding({0}, {0, 255}), num_classes=2, ignore_index=255)


def test_too_many_values_ask_for_names_of_classes():
    with pytest.raises(DataError, match=r"\[0, 1, 2, 3\]; expected class indices 0\.\.1\. .*data\.class_names"):
        find_mapping(holding({0, 1, 2, 3}), num_classes=2)


def test_smoothed_masks_are_recognised_by_their_many_values():
    with pytest.raises(DataError, match=r"\[0, 1, 2, 3, \.\.\. 255\] \(256 of them\).*threshold them"):
        find_mapping(holding(set(range(256))), num_classes=2)


def test_a_given_mapping_is_taken_as_it_is():
    assert find_mapping(holding({0, 64}), num_classes=2, given={0: 1, 64: 0}).classes == {0: 1, 64: 0}


def test_values_outside_a_given_mapping_are_refused():
    with pytest.raises(DataError, match=r"1\.png: mask holds values \[0, 7\]; expected only .*\[0, 255\]"):
        find_mapping(holding({0, 255}, {0, 7}), num_classes=2, given={0: 0, 255: 1})


def test_mapping_replaces_every_value():
    values = np.random.default_rng(0).choice([0, 128, 65535], (9, 9)).astype(np.int32)
    labels = MaskMapping({0: 2, 128: 0, 65535: 255}).apply(values, path=Path("a.png"))
    assert labels.dtype == np.uint8
    for value, label in ((0, 2), (128, 0), (65535, 255)):
        assert (labels[values == value] == label).all()


@pytest.mark.parametrize("stranger", [3, -1, 70_000])
def test_a_value_without_class_is_named(stranger):
    with pytest.raises(DataError, match=rf"a\.png: mask holds values .*{stranger}"):
        MaskMapping({0: 0, 255: 1}).apply(np.array([[0, stranger]], np.int32), path=Path("a.png"))


@pytest.mark.parametrize("values", [[0, 3, 3], [-5, 2], [0, 100_000], []])
def test_distinct_values_are_those_of_a_set(values):
    assert distinct_values(np.array(values, np.int32)) == set(values)


def test_scan_gives_sizes_and_values_in_order(tmp_path):
    paths = [save(tmp_path / f"{n}.png", np.full((3 + n, 5), n, np.uint8)) for n in range(12)]
    assert scan_masks([MaskFile(path) for path in paths]) == [
        MaskSummary(path, (3 + n, 5), frozenset({n})) for n, path in enumerate(paths)
    ]


def test_scan_names_the_unreadable_mask(tmp_path):
    good = save(tmp_path / "a.png", np.zeros((3, 5), np.uint8))
    (tmp_path / "b.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"b\.png"):
        scan_masks([MaskFile(good), MaskFile(tmp_path / "b.png")])
