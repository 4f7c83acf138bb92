"""The folder of a training run: a fresh name, one writer at a time, and what was used to train."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from etnet.config.load import dump_recipe
from etnet.config.schema import Recipe
from etnet.environment.versions import versions
from etnet.errors import UsageError
from etnet.output import create_output_folder, disk_faults, remove_leftovers, write_json, write_text
from etnet.training.launch import launch_name

RUNS = Path("runs/train")
CACHE = "cache"
"""Folder in a run's own for decoded images, while it trains; see `data.sample_cache`."""
NONFINITE = "nonfinite"
"""Folder in a run's own for the batches whose step was not finite; see `training.nonfinite`."""
REPORTED_PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "pillow", "safetensors", "pydantic")


@contextmanager
def fresh_run_folder(output: Path | None, name: str, *, root: Path = RUNS) -> Iterator[Path]:
    """Make an empty folder for a run: `output`, or `root/name`, `root/name-2`, ... whichever is free.

    When the run fails before its first checkpoint, the folder is left as it was found: removed, or empty. It stays if a
    batch is in it that was kept for inspection.

    Raises:
        UsageError: `output` is a file, or exists and is not empty.
        EnvironmentFault: The folder cannot be made.
    """
    existed = output is not None and output.exists()
    if output is not None and existed and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"{output}: expected a new or empty output folder; name another, or continue the run in it with --resume"
        )
    folder = create_output_folder(output, parent=root, name=name)
    try:
        yield folder
    except BaseException:
        if not any(any((folder / kept).glob("*.safetensors")) for kept in ("weights", NONFINITE)):
            shutil.rmtree(folder, ignore_errors=True)
            if existed:
                folder.mkdir(exist_ok=True)
        raise


@contextmanager
def exclusive(run: Path) -> Iterator[None]:
    """Hold the run folder for this process; the lock goes with the process, however it ends.

    Temporary files of an earlier process that was killed while it wrote are removed.

    Raises:
        UsageError: Another process trains in this folder.
    """
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{run}: another etnet train is writing here; wait for it or name another --output") from None
    try:
        # Whoever wrote these was killed, as the lock is ours.
        remove_leftovers(run, run / "weights", run / CACHE)
        yield
    finally:
        lock.release()


def write_run_description(
    run: Path,
    recipe: Recipe,
    *,
    data_root: Path,
    training_ids: Sequence[str],
    validation_ids: Sequence[str],
    by_patient: bool = False,
) -> None:
    """Write `recipe.yaml`, `environment.json` and `split.json`.

    Args:
        run: Run folder.
        recipe: All choices.
        data_root: Folder of the data set.
        training_ids: Images trained on.
        validation_ids: Images held out.
        by_patient: Whether the data set knows who is on an image, so that patients were held out as a whole.

    Raises:
        EnvironmentFault: A file cannot be written.
    """
    split: dict[str, object] = {
        "data_root": str(data_root),
        "training": list(training_ids),
        "validation": list(validation_ids),
    }
    if recipe.data.fold is not None:
        unit = "patient" if by_patient else "image"
        split["fold"] = {"held_out": recipe.data.fold, "seed": recipe.training.seed, "cut_by": unit}
    with disk_faults(run):
        (run / "weights").mkdir(exist_ok=True)
    write_recipe(run, recipe)
    write_json(run / "environment.json", environment())
    write_json(run / "split.json", split)


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write `recipe.yaml`; a run that is continued with other epochs or workers writes it again.

    Raises:
        EnvironmentFault: The file cannot be written.
    """
    write_text(run / "recipe.yaml", dump_recipe(recipe))


def environment() -> dict[str, object]:
    """Versions, hardware and the command line of this process."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": sys.argv,
        "launch": launch_name(),
        "platform": platform.platform(),
        "processor_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if gpu else None,
        "gpu": gpu,
        "versions": versions(REPORTED_PACKAGES),
    }
