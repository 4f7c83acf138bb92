"""The three commands on real photographs: train two epochs, score the test half, segment it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from etnet.cli.main import main
from helpers.runs import TINY

TRAINING_IMAGES, TEST_IMAGES = 4, 2
# Of the tiny recipe, what the options below do not set themselves.
SETTINGS = [word for override in TINY if "batch_size" not in override for word in ("--set", override)]


def etnet(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result


def test_drive_is_trained_scored_and_segmented(
    small_drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--epochs", 2, "--batch-size", 2, "--device", "cpu")
    etnet("train", "--recipe", "drive", "--data", small_drive, *SETTINGS, "--set", "data.crop_size=64", *options)
    run = Path("runs/train/drive")
    with (run / "metrics.csv").open(newline="") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 2
    assert all(0 < loss < 1 for loss in losses)

    etnet("evaluate", run, "--data", small_drive, "--split", "test", "--device", "cpu")
    regions = json.loads(Path("runs/evaluate/drive/metrics.json").read_text("utf-8"))["regions"]
    truth = pictures_of(small_drive / "test/1st_manual")
    for name, region in regions.items():
        assert region["images"] == TEST_IMAGES, name
        assert 0 <= region["pooled"]["accuracy"] <= 1
    assert regions["whole_image"]["pooled"]["pixels"] == sum(mask.size for mask in truth)
    assert regions["field_of_view"]["pooled"]["pixels"] < regions["whole_image"]["pooled"]["pixels"]

    etnet("infer", small_drive / "test/images", "--model", run, "--device", "cpu", "--overlay")
    masks = pictures_of(Path("runs/infer/images/masks"))
    assert [mask.shape for mask in masks] == [(584, 565)] * TEST_IMAGES
    # The masks that were scored are the masks that are written.
    correct = sum(int(((mask > 0) == (vessels > 0)).sum()) for mask, vessels in zip(masks, truth, strict=True))
    assert correct / sum(mask.size for mask in truth) == pytest.approx(regions["whole_image"]["pooled"]["accuracy"])


def pictures_of(folder: Path) -> list[np.ndarray]:
    """Stored values of the pictures of a folder in the order of their names, read by Pillow alone."""
    values = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            values.append(np.array(picture))
    return values
