"""Native operators on NumPy arrays, for machines without torch; NumPy formulas run where the native module is missing.

What else inference needs of images (connected components, morphology) is left to OpenCV, which nothing of ours beats by
enough; benchmarks/bench_ndops.py compares.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from etnet import native
from etnet.types import BoolArray

ConfusionMatrix = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]

_ALIGNMENT = 64
_MAXIMAL_CLASSES = 4096
_MAXIMAL_THREADS = 8
_SMALLEST_INDEX, _LARGEST_INDEX = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def confusion_matrix(
    labels: Integers,
    target: Integers,
    *,
    num_classes: int,
    ignore_index: int | None = None,
    where: BoolArray | None = None,
    threads: int | None = None,
) -> ConfusionMatrix:
    """Count the pixels of every (true class, predicted class) pair.

    Args:
        labels: Predicted class indices, any shape, any integer type.
        target: True class indices, same shape, any integer type.
        num_classes: Number of classes C.
        ignore_index: Value of `target` whose pixels are not counted.
        where: Pixels to count, bool, same shape; None counts all.
        threads: Number of threads; by default all processors up to 8, and one in a worker process.

    Returns:
        Counts [C, C], int64; row = true class, column = predicted class.

    Raises:
        ValueError: Shapes differ, an array holds no integers, or a counted value is no class index.

    Example:
        >>> import numpy as np
        >>> confusion_matrix(np.array([0, 1, 1], np.uint8), np.array([0, 0, 1], np.uint8), num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    labels, target = np.asarray(labels), np.asarray(target)
    where = None if where is None else np.asarray(where, dtype=np.bool_)
    _check_arrays(labels, target, where)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; expected at least 1")
    kernels = native.module()
    fits = num_classes <= _MAXIMAL_CLASSES and _SMALLEST_INDEX <= (ignore_index or 0) <= _LARGEST_INDEX
    if kernels is None or not fits:
        return _confusion_by_numpy(labels, target, num_classes, ignore_index, where)
    sizes = kernels.ConfusionMatrixSizes(pixels=target.size, classes=num_classes, threads=threads or _default_threads())
    labels, target = _plain(labels), _plain(target)
    where = None if where is None else np.ascontiguousarray(where)
    counts = np.empty((num_classes, num_classes), np.int64)
    workspace = _scratch(kernels.confusion_matrix_workspace_bytes(sizes))
    valid = kernels.confusion_matrix(
        sizes,
        labels=labels.ctypes.data,
        labels_type=labels.dtype.name,
        target=target.ctypes.data,
        target_type=target.dtype.name,
        where=0 if where is None else where.ctypes.data,
        ignore_index=ignore_index,
        counts=counts.ctypes.data,
        workspace=workspace.ctypes.data,
        workspace_bytes=workspace.size,
    )
    if not valid:
        counted = _counted(target, ignore_index, where)
        _check_values(labels[counted], target[counted], num_classes)
    return counts


def _check_arrays(labels: Integers, target: Integers, where: BoolArray | None) -> None:
    if labels.shape != target.shape:
        raise ValueError(f"labels have shape {labels.shape} and target {target.shape}; expected the same shape")
    if where is not None and where.shape != target.shape:
        raise ValueError(f"where has shape {where.shape} and target {target.shape}; expected the same shape")
    for name, array in (("labels", labels), ("target", target)):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} is of type {array.dtype}; expected integer class indices")


def _check_values(labels: Integers, target: Integers, num_classes: int) -> None:
    for name, values in (("target", target), ("labels", labels)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(f"{name} holds values {values.min()}..{values.max()}; expected 0..{num_classes - 1}")


def _counted(target: Integers, ignore_index: int | None, where: BoolArray | None) -> BoolArray:
    counted = np.ones(target.shape, dtype=np.bool_) if where is None else where
    return counted if ignore_index is None else counted & (target != ignore_index)


def _confusion_by_numpy(
    labels: Integers, target: Integers, num_classes: int, ignore_index: int | None, where: BoolArray | None
) -> ConfusionMatrix:
    """The twin of the kernel."""
    counted = _counted(target, ignore_index, where)
    rows, columns = target[counted], labels[counted]
    _check_values(columns, rows, num_classes)
    pairs = rows.astype(np.int64) * num_classes + columns.astype(np.int64)
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def _plain(array: Integers) -> Integers:
    """The array as contiguous memory in the machine's byte order."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _scratch(size: int) -> npt.NDArray[np.uint8]:
    """Uninitialised bytes [size] at an aligned address."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + size]


def _default_threads() -> int:
    if multiprocessing.parent_process() is not None:
        return 1  # the workers of a data loader share the processors already
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, _MAXIMAL_THREADS)
