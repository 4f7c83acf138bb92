"""A trained network segments an image whole and in tiles, by the command that a user types."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner

from etnet.cli.main import main
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder


def masks(images: Path, run: Path, output: Path, *options: object) -> list[np.ndarray]:
    words = ["infer", images, "--model", run, "--output", output, "--device", "cpu", *options]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((output / "masks").iterdir())]


def test_an_image_that_fits_gives_the_same_in_tiles_within_one_percent_of_pixels(tmp_path):
    data = write_disc_folder(tmp_path / "data", count=8, size=64)
    run = tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=12", "data.crop_size=64"), data, run)
    discs = [cv2.imread(str(path)) for path in sorted((data / "images").iterdir())]
    large = tmp_path / "large"
    large.mkdir()
    for index, (height, width) in enumerate([(192, 256), (187, 243)]):
        rows = [np.concatenate([discs[(3 * row + column) % 8] for column in range(4)], axis=1) for row in range(3)]
        cv2.imwrite(str(large / f"{index}.png"), np.concatenate(rows)[:height, :width])
    whole = masks(large, run, tmp_path / "whole", "--tile", "off")
    tiled = masks(large, run, tmp_path / "tiled", "--tile", 96)
    for expected, found in zip(whole, tiled, strict=True):
        assert found.shape == expected.shape
        assert np.mean(found != expected) < 0.01
        assert 0.05 < np.mean(expected > 0) < 0.3
