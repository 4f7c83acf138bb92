"""Makes what the benchmarks measure on: a briefly trained network, drawn fundus photographs, copies of a folder.

Images are drawn in DRIVE's layout, so that whatever reads DRIVE reads them; their folder is named `generated`, which
every result names.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from etnet.config.load import load_recipe
from etnet.data.synthetic import CLASS_NAMES, draw_fundus
from etnet.training.tracking import SilentObserver
from etnet.training.trainer import train

TRAINING, TEST = 20, 10
"""Drawn images: a batch of 16 is held by the training part, as by DRIVE's."""

FEW_STEPS = (
    *("model.encoder=resnet50", "model.encoder_weights=none", "data.validation_fraction=0", "data.crop_size=160"),
    *("training.batch_size=4", "training.epochs=12", "optimizer.base_lr=0.002", "loss.cross_entropy=0.5"),
)
"""60 steps on 20 images, after which masks show the larger vessels."""


def write_network(run: Path, *, drive: Path, overrides: Sequence[str] = ()) -> None:
    """The run folder of the paper's network after a few steps on vessels.

    With random weights it would give noise for masks, whose thousands of specks take longer to measure and to compress
    than anything that a user predicts; and formats could not be compared by their labels. It is trained on the
    processor, so that prediction is measured also on a GPU on which training fails.

    Args:
        run: Folder to make; one that is there is made anew.
        drive: Data set in the layout of DRIVE.
        overrides: Changes of the recipe, `KEY=VALUE`.
    """
    recipe = load_recipe("drive", [*FEW_STEPS, *overrides])
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    train(recipe, data_root=drive, run=run, device=torch.device("cpu"), observer=SilentObserver())


def write_drawn(folder: Path, *, size: int) -> None:
    """Photographs with their vessels and fields of view, whole or not there."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    for half, first, count in (("training", 21, TRAINING), ("test", 1, TEST)):
        for name in ("images", "1st_manual", "mask"):
            (new / half / name).mkdir(parents=True)
        for number in range(first, first + count):
            sample = draw_fundus(size=size, generator=np.random.default_rng(number))
            vessels = (sample.mask == CLASS_NAMES.index("vessel")).astype(np.uint8) * 255
            view = (sample.image.max(axis=2) > 0).astype(np.uint8) * 255
            Image.fromarray(sample.image).save(new / half / "images" / f"{number:02d}_{half}.tif")
            Image.fromarray(vessels).save(new / half / "1st_manual" / f"{number:02d}_manual1.gif")
            Image.fromarray(view).save(new / half / "mask" / f"{number:02d}_{half}_mask.gif")
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def write_copies(source: Path, folder: Path, count: int) -> None:
    """So many photographs by links to those of a folder, for what needs many."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    for number in range(count):
        image = images[number % len(images)]
        target = folder / f"{number:04d}{image.suffix}"
        try:
            os.link(image, target)
        except OSError:  # another file system
            shutil.copy(image, target)


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for images")
    parser.add_argument("--images", action="store_true", help="draw images into OUT/generated")
    parser.add_argument("--size", type=int, default=584, help="of their sides [default: 584]")
    parser.add_argument("--drive", type=Path, help="DRIVE, to copy from instead")
    parser.add_argument("--copies", type=int, default=0, help="so many photographs into OUT/photographs")
    parser.add_argument("--network", type=Path, required=True, help="run folder of the network, made anew")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change its recipe")
    options = parser.parse_args()
    drive = options.drive or options.out / "generated"
    if options.images:
        write_drawn(drive, size=options.size)
    if options.copies:
        write_copies(drive / "test" / "images", options.out / "photographs", options.copies)
    write_network(options.network, drive=drive, overrides=options.set)


if __name__ == "__main__":
    main()
