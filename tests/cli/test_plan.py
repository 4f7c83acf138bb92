from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from etnet.cli.main import main
from etnet.config.load import load_recipe
from etnet.planning import planning
from helpers.layouts import write_chase
from helpers.runs import write_disc_folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    """Speed is measured in the tests of planning; here it is given."""
    monkeypatch.setattr(planning, "images_per_second", lambda *_, **__: 10.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return write_disc_folder(tmp_path / "my discs", count=10, size=64)


def run(*words: object):
    return CliRunner().invoke(main, ["plan", *map(str, words), "--device", "cpu"])


def test_writes_and_shows_a_recipe_and_ends_with_the_command_that_trains_it(folder):
    result = run(folder, "--minutes", 5, "--from-scratch")
    assert result.exit_code == 0, result.output
    recipe = load_recipe("my-discs.yaml")
    assert recipe.model.encoder_weights == "none"
    assert Path("my-discs.yaml").read_text("utf-8") in result.stdout
    assert "10 images with masks, 64x64 pixels, RGB 8-bit" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Next: etnet train --recipe my-discs.yaml --data ")
    assert result.stdout.rstrip().endswith("--device cpu")


def test_json_holds_what_was_found_and_chosen(folder):
    result = run(folder, "--json", "--output", "a.yaml")
    told = json.loads(result.stdout)
    assert told["images"] == 10
    assert told["structures"][0]["name"] == "foreground"
    (recipe,) = told["recipes"]
    assert recipe["file"] == "a.yaml"
    assert {"key": "data.dataset", "value": "folder", "reason": ""} in recipe["decisions"]
    assert recipe["training_minutes"] > 0


def test_an_existing_recipe_is_kept_unless_it_may_be_replaced(folder):
    Path("mine.yaml").write_text("name: mine\n")
    refused = run(folder, "--output", "mine.yaml")
    assert refused.exit_code == 2
    assert "mine.yaml: exists already; name another file with --output, or add --overwrite" in refused.output
    assert Path("mine.yaml").read_text() == "name: mine\n"
    assert run(folder, "--output", "mine.yaml", "--overwrite").exit_code == 0
    assert load_recipe("mine.yaml").name == "my-discs"


def test_a_known_data_set_has_its_own_recipe(tmp_path):
    result = run(write_chase(tmp_path / "chase"))
    assert result.exit_code == 2
    assert "is the data set chase_db1, for which there is a recipe already" in result.output


def test_a_folder_without_masks_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty")
    assert result.exit_code == 3
    assert list(tmp_path.glob("*.yaml")) == []


def test_names_reach_the_recipe(folder):
    assert run(folder, "--classes", "background, disc").exit_code == 0
    assert load_recipe("my-discs.yaml").data.class_names == ("background", "disc")


def test_a_small_spot_ends_with_three_commands_that_work_together(tmp_path):
    root = write_disc_folder(tmp_path / "spots", count=10, size=64)
    for path in (root / "masks").iterdir():
        mask = cv2.erode(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.ones((11, 11), np.uint8))
        cv2.imwrite(str(path), mask)
    result = run(root, "--from-scratch", "--output", "own.yaml")
    assert result.exit_code == 0, result.output
    assert load_recipe("own.yaml").data.roi is not None
    assert load_recipe("own-localizer.yaml").data.image_size == (256, 256)
    command = result.stdout.splitlines()[-1].removeprefix("Next: ")
    assert [shlex.split(part)[:2] for part in command.split(" && ")] == [["etnet", "train"]] * 2 + [["etnet", "bundle"]]
    assert "runs/train/spots-localizer runs/train/spots --output spots-bundle" in command
