from __future__ import annotations

import multiprocessing
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from etnet import native, ndops
from etnet.ndops import confusion_matrix

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture(params=["native", "numpy"])
def implementation(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(native, "module", lambda: None)
    else:
        native.require()
    return request.param


def counted_one_by_one(labels, target, *, num_classes, ignore_index=None, where=None):
    """The definition, with a dictionary."""
    pairs = Counter()
    for index in np.ndindex(target.shape):
        true = int(target[index])
        if true != ignore_index and (where is None or where[index]):
            pairs[true, int(labels[index])] += 1
    return [[pairs[true, predicted] for predicted in range(num_classes)] for true in range(num_classes)]


@st.composite
def calls(draw):
    num_classes = draw(st.integers(1, 40))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    values = st.integers(0, num_classes - 1)
    labels, target = (draw(hnp.arrays(draw(st.sampled_from(INTEGERS)), shape, elements=values)) for _ in range(2))
    ignored = draw(st.none() | st.integers(0, num_classes - 1) | st.sampled_from([-1, 255, 2**40]))
    where = draw(st.none() | hnp.arrays(bool, shape))
    return labels, target, {"num_classes": num_classes, "ignore_index": ignored, "where": where}


@settings(max_examples=150, deadline=None)
@given(call=calls(), threads=st.integers(1, 3))
def test_counts_are_those_of_the_definition(call, threads):
    labels, target, options = call
    counts = confusion_matrix(labels, target, **options, threads=threads)
    assert counts.tolist() == counted_one_by_one(labels, target, **options)
    twin = ndops._confusion_by_numpy(labels, target, *options.values())
    np.testing.assert_array_equal(counts, twin)
    assert counts.dtype == twin.dtype == np.int64


@pytest.mark.parametrize("num_classes", [2, 5, 33, 300])
def test_number_of_threads_changes_nothing_on_a_large_mask(num_classes):
    generator = np.random.default_rng(0)
    labels, target = generator.integers(0, num_classes, (2, 517, 1031), dtype=np.uint16)
    where = generator.random(target.shape) < 0.9
    options = {"num_classes": num_classes, "ignore_index": 1, "where": where}
    expected = ndops._confusion_by_numpy(labels, target, *options.values())
    for threads in (1, 2, 7):
        np.testing.assert_array_equal(confusion_matrix(labels, target, **options, threads=threads), expected)


@pytest.mark.parametrize("type_of_target", INTEGERS)
@pytest.mark.parametrize("type_of_labels", INTEGERS)
def test_every_pair_of_integer_types_is_read(implementation, type_of_labels, type_of_target):
    labels, target = np.array([[0, 2], [1, 127]], type_of_labels), np.array([[0, 1], [1, 127]], type_of_target)
    counts = confusion_matrix(labels, target, num_classes=128)
    assert {(t, p): counts[t, p] for t, p in np.argwhere(counts)} == {(0, 0): 1, (1, 2): 1, (1, 1): 1, (127, 127): 1}


@pytest.mark.parametrize(
    ("dtype", "ignored"), [("uint8", 255), ("int8", -1), ("int64", -(2**63)), ("uint64", 2**63 - 1), ("uint32", 0)]
)
def test_ignored_value_may_be_any_of_the_type(implementation, dtype, ignored):
    target = np.array([1, ignored, 1], dtype)
    counts = confusion_matrix(np.ones(3, np.uint8), target, num_classes=2, ignore_index=ignored)
    assert counts.tolist() == [[0, 0], [0, 2]]


def test_ignored_value_outside_the_type_ignores_nothing(implementation):
    largest = np.array([2**64 - 1], np.uint64)
    with pytest.raises(ValueError, match="target holds values 18446744073709551615"):
        confusion_matrix(np.zeros(1, np.uint8), largest, num_classes=2, ignore_index=-1)
    counts = confusion_matrix(np.zeros(1, np.uint8), np.zeros(1, np.uint8), num_classes=1, ignore_index=256)
    assert counts.tolist() == [[1]]
    assert confusion_matrix(largest * 0, largest, num_classes=1, ignore_index=2**64 - 1).tolist() == [[0]]


def test_memory_layout_and_byte_order_change_nothing(implementation):
    generator = np.random.default_rng(1)
    labels, target = generator.integers(0, 3, (2, 20, 30), dtype=np.int32)
    expected = confusion_matrix(labels, target, num_classes=3).tolist()
    wide = np.full((40, 60), 9, np.int32)
    wide[::2, ::2] = target
    assert confusion_matrix(np.asfortranarray(labels), wide[::2, ::2], num_classes=3).tolist() == expected
    assert confusion_matrix(labels.astype(">i4"), target, num_classes=3).tolist() == expected


def test_no_pixel_gives_zeros(implementation):
    empty = np.zeros((0, 5), np.uint8)
    assert confusion_matrix(empty, empty, num_classes=2).tolist() == [[0, 0], [0, 0]]


def test_what_does_not_count_may_hold_anything(implementation):
    labels, target = np.array([9, 1, 200], np.uint8), np.array([255, 1, 77], np.uint8)
    where = np.array([True, True, False])
    counts = confusion_matrix(labels, target, num_classes=2, ignore_index=255, where=where)
    assert counts.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("labels", "target", "options", "message"),
    [
        ([0, 1], [0], {}, r"labels have shape \(2,\) and target \(1,\)"),
        ([0, 1], [0, 7], {}, r"target holds values 0\.\.7; expected 0\.\.2"),
        ([0, -1], [0, 1], {}, r"labels holds values -1\.\.0; expected 0\.\.2"),
        ([0, 1], [0, 1], {"where": np.array([True])}, r"where has shape \(1,\)"),
        ([0.5, 1], [0, 1], {}, "labels is of type float64; expected integer class indices"),
        ([0, 1], [True, False], {}, "target is of type bool"),
        ([0, 1], [0, 1], {"num_classes": 0}, "num_classes is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_counted_is_refused(implementation, labels, target, options, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(labels), np.array(target), **({"num_classes": 3} | options))


def test_more_classes_than_the_kernel_takes_are_counted_by_numpy():
    values = np.array([4096, 0], np.int32)
    counts = confusion_matrix(values, values, num_classes=4097)
    assert counts[4096, 4096] == counts[0, 0] == 1
    assert counts.sum() == 2


def test_a_worker_process_uses_one_thread(monkeypatch):
    assert ndops._default_threads() >= 1
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert ndops._default_threads() == 1


class TestNativeArguments:
    arguments: ClassVar = {
        "labels": 64, "labels_type": "uint8", "target": 64, "target_type": "int64", "where": 0, "ignore_index": None,
        "counts": 64, "workspace": 64, "workspace_bytes": 1 << 20,
    }  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": 0}, "labels is a null pointer"),
            ({"target": 0}, "target is a null pointer"),
            ({"target": 68}, "target: address 68 is not a multiple of 8"),
            ({"counts": 0}, "counts is a null pointer"),
            ({"counts": 68}, "counts: address 68 is not a multiple of 8"),
            ({"workspace": 72}, "workspace: address 72 is not a multiple of 64"),
            ({"workspace": 0}, "the workspace has"),
            ({"workspace_bytes": 8}, "the workspace has 8 bytes; expected"),
            ({"labels_type": "float32"}, "labels_type is 'float32'; expected an integer type"),
            ({"target_type": "bool"}, "target_type is 'bool'; expected an integer type"),
        ],
    )
    def test_wrong_buffer_is_refused_before_memory_is_touched(self, changes, message):
        kernels = native.require()
        sizes = kernels.ConfusionMatrixSizes(pixels=4, classes=2, threads=1)
        with pytest.raises(ValueError, match=message):
            kernels.confusion_matrix(sizes, **(self.arguments | changes))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"pixels": -1}, "pixels is -1; expected at least 0"),
            ({"classes": 0}, r"classes is 0; expected 1\.\.4096"),
            ({"classes": 4097}, r"classes is 4097; expected 1\.\.4096"),
            ({"threads": 0}, "threads is 0; expected at least 1"),
        ],
    )
    def test_sizes_outside_their_limits_are_refused(self, changes, message):
        kernels = native.require()
        sizes = kernels.ConfusionMatrixSizes(**({"pixels": 4, "classes": 2, "threads": 1} | changes))
        with pytest.raises(ValueError, match=message):
            kernels.confusion_matrix_workspace_bytes(sizes)
