from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etnet.config.folds import Fold
from etnet.data.splits import HoldOut, choose_part, hold_out, hold_out_fold, read_split
from etnet.errors import DataError


@given(count=st.integers(0, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**63 - 1))
def test_parts_are_disjoint_ascending_and_complete(count, fraction, seed):
    train, validation = hold_out(count, fraction=fraction, seed=seed)
    assert sorted(train + validation) == list(range(count))
    assert list(train) == sorted(train)
    assert list(validation) == sorted(validation)


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(20, 0.2, 4), (20, 0.0, 0), (3, 0.01, 1), (3, 0.99, 2), (1, 0.5, 0), (0, 0.5, 0)]
)
def test_at_least_one_is_held_out_and_one_stays_for_training(count, fraction, held):
    assert len(hold_out(count, fraction=fraction, seed=0).validation) == held


def test_the_seed_decides():
    assert hold_out(30, fraction=0.3, seed=1) == hold_out(30, fraction=0.3, seed=1)
    assert len({hold_out(30, fraction=0.3, seed=seed).validation for seed in range(10)}) > 5


def write_split(folder, **parts):
    path = folder / "split.json"
    path.write_text(json.dumps(parts))
    return path


def test_a_split_file_divides_the_ids_in_the_order_of_the_folder(tmp_path):
    split = read_split(write_split(tmp_path, train=["c", "a"], test=["b"], excluded=["d"]))
    assert choose_part(["a", "b", "c", "d"], split, "train", where=tmp_path) == ("a", "c")
    assert choose_part(["a", "b", "c", "d"], split, "test", where=tmp_path) == ("b",)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"], r"b is missing \(1 of the 2 that .*split\.json names\)"),
        (["a", "b", "c"], r"c \(1 of 3\) is not in .*json"),
    ],
)
def test_a_folder_that_does_not_fit_the_split_is_refused(tmp_path, ids, message):
    with pytest.raises(DataError, match=message):
        choose_part(ids, read_split(write_split(tmp_path, train=["a"], test=["b"])), "train", where=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no split file"),
        ("[]", "is no split file"),
        ('{"train": 3}', "is no split file"),
        ('{"train": ["a"], "test": ["a"]}', "names a twice"),
        ('{"test": ["a"]}', 'names no id under "train"'),
    ],
)
def test_a_damaged_split_file_is_refused_in_one_sentence(tmp_path, text, message):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(DataError, match=rf"split\.json: {message}"):
        read_split(tmp_path / "split.json")


def test_a_missing_split_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: cannot be read as a split file.*check data\.split_file"):
        read_split(tmp_path / "none.json")


def test_a_patient_is_held_out_as_a_whole():
    patients = [f"child {number // 2}" for number in range(20)]
    for seed in range(20):
        train, validation = hold_out(20, fraction=0.1, seed=seed, patients=patients)
        assert sorted(train + validation) == list(range(20))
        assert {patients[index] for index in train}.isdisjoint(patients[index] for index in validation)
        assert len(validation) == 2


def test_the_last_patient_stays_for_training():
    assert hold_out(3, fraction=0.9, seed=0, patients=["a", "a", "a"]).train == (0, 1, 2)


def all_folds(count: int, number: int, **options) -> list[HoldOut]:
    return [hold_out_fold(count, fold=Fold(k, number), **options) for k in range(1, number + 1)]


@given(count=st.integers(2, 40), number=st.integers(2, 12), seed=st.integers(0, 2**63 - 1))
def test_the_folds_hold_out_every_image_once_and_are_of_equal_size(count, number, seed):
    folds = all_folds(count, min(number, count), seed=seed)
    assert sorted(index for fold in folds for index in fold.validation) == list(range(count))
    assert all(sorted(fold.train + fold.validation) == list(range(count)) for fold in folds)
    assert all(list(part) == sorted(part) for fold in folds for part in fold)
    sizes = {len(fold.validation) for fold in folds}
    assert max(sizes) - min(sizes) <= 1


@given(images=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), seed=st.integers(0, 1000))
def test_a_patient_is_in_one_fold_only_and_no_fold_is_empty(images, seed):
    number = len(set(images))
    if number < 2:
        return
    owner: dict[str, int] = {}
    for place, fold in enumerate(all_folds(len(images), number, seed=seed, patients=images)):
        assert fold.validation
        assert all(owner.setdefault(images[index], place) == place for index in fold.validation)
    assert owner.keys() == set(images)


def test_patients_with_many_images_do_not_meet_in_one_fold():
    patients = [*"aaaaabbbbb", *"cdefghij"]
    for seed in range(10):
        assert {len(fold.validation) for fold in all_folds(18, 2, seed=seed, patients=patients)} == {9}


def test_the_seed_cuts_the_folds():
    assert all_folds(30, 3, seed=1) == all_folds(30, 3, seed=1)
    assert len({hold_out_fold(30, fold=Fold(1, 3), seed=seed).validation for seed in range(10)}) > 5


@pytest.mark.parametrize(("patients", "what"), [((), "3 training images"), (("a", "b", "b"), "2 training patients")])
def test_more_folds_than_there_are_parts_are_refused(patients, what):
    with pytest.raises(DataError, match=rf"data\.fold 1/4: there are {what}"):
        hold_out_fold(3, fold=Fold(1, 4), seed=0, patients=patients)
