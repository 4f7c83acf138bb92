"""What the comparisons with other packages share: their options, their pictures, and the way to a result file.

Imported by name before anything of `benchmarks/`, because it puts that folder on the path.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.dataset import PairedFiles
from etnet.data.datasets import open_dataset
from etnet.data.io import write_png
from etnet.data.synthetic import draw_fundus

sys.path.append(str(Path(__file__).parents[1]))  # the shared modules of benchmarks/

from measurement import Comparison, show, write_result

GENERATED = 8
"""Pictures that are drawn where there is no DRIVE."""

GENERATED_SIZE = 576
"""Their height and width; DRIVE's are 584 x 565."""


def arguments(description: str | None, *, rounds: int, words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line that all comparisons have.

    Args:
        description: Of the script.
        rounds: What it takes unless it is told otherwise.
        words: In place of those of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--data", type=Path, help="DRIVE, or the folder it is in [default: drawn pictures]")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"[default: {rounds}]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="[default: the cores]")
    parser.add_argument("--smoke", action="store_true", help="one round of tiny cases, to see that everything runs")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(words)
    if options.smoke:
        options.rounds = 1
    return options


def use_threads(count: int) -> None:
    """Let torch and OpenCV take so many."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def processor_or_gpu(device: str) -> str:
    """What a case ran on, for the sentence that describes it."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"


def waiting(task: Callable[[], object], device: str) -> Callable[[], None]:
    """The task, which returns when the device has done it."""

    def run() -> None:
        task()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def open_pictures(options: argparse.Namespace, scratch: Path, *overrides: str) -> tuple[PairedFiles, Recipe]:
    """Photographs with masks of vessels, and the recipe `drive` for them.

    Args:
        options: `data` names DRIVE or the folder that it is in; without it pictures are drawn. `smoke` makes them few
            and small.
        scratch: Folder for drawn ones.
        overrides: Changes of the recipe.
    """
    settings = ["model.encoder_weights=none", "data.validation_fraction=0", *overrides]
    root = drive_of(options)
    if root is None:
        size, count = (96, 3) if options.smoke else (GENERATED_SIZE, GENERATED)
        root = draw_pictures(scratch, count=count, size=size)
        settings.append("data.dataset=folder")
    recipe = load_recipe("drive", settings)
    return open_dataset(recipe.data, root, "train"), recipe


def drive_of(options: argparse.Namespace) -> Path | None:
    """The folder of DRIVE, be it `data` itself or inside of that; None where pictures are drawn."""
    if options.data is None:
        return None
    inner: Path = options.data / "DRIVE"
    return inner if inner.is_dir() else options.data


def draw_pictures(root: Path, *, count: int, size: int) -> Path:
    """A `folder` data set whose masks are 255 on vessels."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        sample = draw_fundus(size=size, generator=np.random.default_rng([0, index]))
        write_png(root / "images" / f"{index:02d}.png", sample.image)
        write_png(root / "masks" / f"{index:02d}.png", 255 * (sample.mask == 1).astype(np.uint8))
    return root


def conclude(
    options: argparse.Namespace,
    rows: Sequence[Comparison],
    *,
    peer: str,
    what: str,
    packages: tuple[str, ...],
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Print the rows and, where a file is asked for, write them.

    Args:
        options: Of the command line.
        rows: All comparisons.
        peer: Its name here, such as `smp`.
        what: One sentence on what was measured.
        packages: Distributions whose versions matter.
        figures: Beside the settings of the command line.
    """
    show(rows)
    if options.json is None:
        return
    drive = drive_of(options)
    settings = {
        "device": options.device,
        "data": "drawn" if drive is None else drive.absolute().name,
        "threads": options.threads,
        "rounds": options.rounds,
        "smoke": options.smoke,
    }
    write_result(
        options.json,
        benchmark=f"peers_{peer}",
        what=what,
        figures={**settings, **(figures or {})},
        comparisons=rows,
        packages=("torchvision", *packages),
    )
