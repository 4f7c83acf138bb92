"""Makes what the benchmarks measure on: a network with random weights, drawn fundus photographs, copies of a folder.

Images are drawn in DRIVE's layout, so that whatever reads DRIVE reads them; their folder is named `generated`, which
every result names. Weights are random: time does not depend on what was learned.
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
from etnet.manifest import encode_header
from etnet.models import build_model
from etnet.training.checkpoint import save_weights

TRAINING, TEST = 20, 10
"""Drawn images: a batch of 16 is held by the training part, as by DRIVE's."""


def write_weights(path: Path, overrides: Sequence[str] = ()) -> Path:
    """A weights file with the paper's network, as it is before training."""
    torch.manual_seed(0)
    recipe = load_recipe("drive", ["model.encoder=resnet50", "model.encoder_weights=none", *overrides])
    network = build_model(recipe.model, len(recipe.data.class_names))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, network.state_dict(), encode_header(recipe=recipe, iteration=0, epoch=0, data_root="nowhere"))
    return path


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
    parser.add_argument("--out", type=Path, required=True, help="folder for all")
    parser.add_argument("--images", action="store_true", help="draw images into OUT/generated")
    parser.add_argument("--size", type=int, default=584, help="of their sides [default: 584]")
    parser.add_argument("--drive", type=Path, help="DRIVE, to copy from instead")
    parser.add_argument("--copies", type=int, default=0, help="so many photographs into OUT/photographs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the network")
    options = parser.parse_args()
    write_weights(options.out / "network.safetensors", options.set)
    if options.images:
        write_drawn(options.out / "generated", size=options.size)
    if options.copies:
        source = (options.drive or options.out / "generated") / "test" / "images"
        write_copies(source, options.out / "photographs", options.copies)


if __name__ == "__main__":
    main()
