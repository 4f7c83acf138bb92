"""Operators on NumPy masks against the libraries that compute the same, on masks of 2048 x 2048 pixels.

    python benchmarks/bench_ndops.py --json ndops.json

An operator of our own is kept only where it is 1.5 times as fast as the best library call (its target). Rows
without one show what the library takes, so that the decision can be looked at again. Each round runs every contestant
once; medians over the rounds are reported, after one round that does not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.ndimage
from measurement import Comparison, Task, show, take_turns, write_result

from etnet import native, ndops
from etnet.data.edges import edge_map

Mask = np.ndarray

SIZE = 2048
SPACING = (0.5, 0.7)
TARGET = 1.5


def vessels(generator: np.random.Generator) -> Mask:
    """A tree of lines of falling width, as on a mask of retinal vessels (15 % foreground)."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(60):
        steps = np.cumsum(generator.normal(0, 0.12, 160)) + generator.uniform(0, 2 * np.pi)
        path = generator.uniform(0, SIZE, 2) + np.cumsum(9 * np.stack([np.cos(steps), np.sin(steps)], 1), 0)
        cv2.polylines(mask, [path.astype(np.int32)], False, 1, int(generator.integers(3, 18)))
    return mask


def blobs(generator: np.random.Generator) -> Mask:
    """Random regions of about 50 pixels (half of them foreground)."""
    noise = generator.standard_normal((SIZE, SIZE)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 12) > 0).astype(np.uint8)


def bincount(labels: Mask, target: Mask, ignore_index: int | None) -> Mask:
    """The usual NumPy formula."""
    if ignore_index is not None:
        counted = target != ignore_index
        labels, target = labels[counted], target[counted]
    pairs = target.astype(np.int64) * 2 + labels
    return np.bincount(pairs.ravel(), minlength=4).reshape(2, 2)


def components(mask: Mask, connectivity: int) -> Mask:
    """Labels and sizes; OpenCV's own statistics are slower than counting its labels."""
    _, labels = cv2.connectedComponents(mask, connectivity=connectivity)
    return np.bincount(labels.ravel())


def confusion(mask: Mask, generator: np.random.Generator, threads: int, *, ignored: bool) -> dict[str, Task]:
    predicted = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    target = np.where(generator.random(mask.shape) < 0.02, np.uint8(255), mask) if ignored else mask
    ignore_index = 255 if ignored else None
    return {
        "ours": lambda: ndops.confusion_matrix(
            predicted, target, num_classes=2, ignore_index=ignore_index, threads=threads
        ),
        "numpy": lambda: bincount(predicted, target, ignore_index),
    }


def distances(mask: Mask, threads: int) -> dict[str, Task]:
    tasks: dict[str, Task] = {"scipy": lambda: scipy.ndimage.distance_transform_edt(mask, sampling=SPACING)}
    if importlib.util.find_spec("edt") is None:
        print("edt is left out: not installed", file=sys.stderr)
    else:
        import edt

        tasks["edt"] = lambda: edt.edt(mask, anisotropy=SPACING, parallel=threads)
    return tasks


def tasks_of(mask: Mask, generator: np.random.Generator, threads: int) -> dict[str, dict[str, Task]]:
    """Contestants by operator; the first is ours where there is one."""
    return {
        "confusion_matrix": confusion(mask, generator, threads, ignored=False),
        "confusion_matrix, 2 % ignored": confusion(mask, generator, threads, ignored=True),
        "edge_map, width 3": {"opencv": lambda: edge_map(mask, width=3)},
        "connected_components with sizes, 4": {
            "opencv, counted": lambda: components(mask, 4),
            "opencv with stats": lambda: cv2.connectedComponentsWithStats(mask, connectivity=4),
        },
        "connected_components with sizes, 8": {
            "opencv, counted": lambda: components(mask, 8),
            "opencv with stats": lambda: cv2.connectedComponentsWithStats(mask, connectivity=8),
        },
        "distance_transform, 0.5 x 0.7": distances(mask, threads),
    }


def measure(name: str, tasks: dict[str, Task], *, case: str, rounds: int) -> tuple[dict[str, float], list[Comparison]]:
    """Median milliseconds of every contestant, and ours beside the others where there is one."""
    times = take_turns(tasks, rounds=rounds)
    rows = []
    for rival in [one for one in tasks if "ours" in tasks and one != "ours"]:
        same = np.array_equal(tasks["ours"](), tasks[rival]())
        rows.append(
            Comparison.of_rounds(
                ("etnet.ndops", times["ours"]),
                (rival, times[rival]),
                version=np.__version__ if rival == "numpy" else None,
                subject=name,
                case=case,
                unit="ms",
                result="equal" if same else "not equal",
                target=TARGET,
            )
        )
    return {contestant: statistics.median(values) for contestant, values in times.items()}, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    native.require()
    cv2.setNumThreads(options.threads)
    figures: dict[str, Any] = {
        "device": "cpu",
        "threads": options.threads,
        "size": [SIZE, SIZE],
        "rounds": options.rounds,
    }
    comparisons: list[Comparison] = []
    for kind in (vessels, blobs):
        generator = np.random.default_rng(0)
        mask = kind(generator)
        case = f"{kind.__name__}, {SIZE}x{SIZE}, ours on {options.threads} threads"
        print(f"\n{case}, {100 * mask.mean():.0f} % foreground")
        figures[kind.__name__] = {}
        for name, tasks in tasks_of(mask, generator, options.threads).items():
            medians, rows = measure(name, tasks, case=case, rounds=options.rounds)
            figures[kind.__name__][name] = {"median_ms": medians}
            comparisons += rows
            print(f"{name}: " + ", ".join(f"{contestant} {value:.2f} ms" for contestant, value in medians.items()))
    show(comparisons)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="ndops",
            what="operators on NumPy masks beside libraries; where there is none of ours, the product uses theirs",
            figures=figures,
            comparisons=comparisons,
            packages=("scipy", "edt"),
        )


if __name__ == "__main__":
    main()
