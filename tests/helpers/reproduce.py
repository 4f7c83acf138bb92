"""Data folders and requests so small that a table is trained in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from etnet.reproduce.plan import Plan, Request, Run, make_plan
from etnet.reproduce.tables import TABLES
from etnet.training.tracking import SilentObserver
from helpers.datasets import save

TINY = (
    "data.crop_size=32",
    "data.workers=0",
    "model.encoder=test_resnet",
    "model.encoder_weights=none",
    "model.decoder_channels=16",
    "model.edge_channels=8",
    "training.batch_size=2",
    "training.save_every=1",
    "training.precision=float32",
)


def write_drive_of_discs(root: Path, *, training: int = 4, test: int = 3, size: int = 48) -> Path:
    """DRIVE's layout with bright discs for vessels, which a tiny network learns to find."""
    generator = np.random.default_rng(0)
    for half, first, count in (("training", 21, training), ("test", 1, test)):
        for number in range(first, first + count):
            center = generator.integers(size // 3, 2 * size // 3, 2).tolist()
            mask = cv2.circle(np.zeros((size, size), np.uint8), center, size // 5, 255, -1)
            image = np.where(mask[..., None] > 0, 190, 60) + generator.integers(-30, 30, (size, size, 3))
            folder = root / half
            save(folder / "images" / f"{number:02d}_{half}.tif", image.astype(np.uint8))
            save(folder / "1st_manual" / f"{number:02d}_manual1.gif", mask)
            save(folder / "mask" / f"{number:02d}_{half}_mask.gif", np.full_like(mask, 255))
    return root


TINY_LOCALIZER = (
    "data.image_size=[32, 32]",
    "data.crop_size=32",
    "data.workers=0",
    "model.encoder=test_resnet",
    "model.decoder_channels=16",
    "model.edge_channels=8",
    "training.batch_size=2",
    "training.epochs=1",
)


def write_drishti_of_discs(root: Path, *, training: int = 4, test: int = 3, size: int = 96) -> Path:
    """Drishti-GS's layout with a bright disc and a brighter cup in it."""
    generator = np.random.default_rng(0)
    for part, first, count in (("Training", 1, training), ("Test", 51, test)):
        for number in range(first, first + count):
            center = generator.integers(size // 3, 2 * size // 3, 2).tolist()
            disc = cv2.circle(np.zeros((size, size), np.uint8), center, size // 10, 255, -1)
            cup = cv2.circle(np.zeros((size, size), np.uint8), center, size // 20, 255, -1)
            image = 60.0 + 60 * (disc > 0) + 60 * (cup > 0)
            noisy = image[..., None] + generator.integers(-20, 20, (size, size, 3))
            name = f"drishtiGS_{number:03d}"
            save(root / part / "Images" / f"{name}.png", noisy.astype(np.uint8))
            maps = root / part / "GT" / name / "SoftMap"
            save(maps / f"{name}_ODsegSoftmap.png", disc)
            save(maps / f"{name}_cupsegSoftmap.png", cup)
    return root


def tiny_request(
    data_root: Path,
    output: Path,
    *,
    table: str = "table2",
    datasets: tuple[str, ...] = ("drive",),
    methods: tuple[str, ...] = ("etnet",),
    seeds: int = 1,
    epochs: int | None = 2,
    overrides: tuple[str, ...] = (),
    localizer_overrides: tuple[str, ...] = (),
) -> Request:
    """A request whose runs take about a second each."""
    return Request(
        table=TABLES[table],
        data_root=data_root,
        output=output,
        datasets=datasets,
        methods=methods,
        seeds=seeds,
        device="cpu",
        epochs=epochs,
        overrides=(*TINY, *overrides),
        localizer_overrides=(*TINY_LOCALIZER, *localizer_overrides),
    )


def tiny_plan(data_root: Path, output: Path, **options: object) -> Plan:
    """The plan of a tiny request."""
    return make_plan(tiny_request(data_root, output, **options))


class RecordingDisplay:
    """Remembers the titles of the runs that were begun and of those that failed."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.failed: dict[str, str] = {}

    @contextmanager
    def on_run(self, run: Run, *, number: int, total: int) -> Iterator[SilentObserver]:
        """A run begins."""
        self.begun.append(f"{number}/{total} {run.title}")
        yield SilentObserver()

    def on_failure(self, run: Run, error: str) -> None:
        """A run failed."""
        self.failed[run.title] = error
