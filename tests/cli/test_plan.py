from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from etnet.cli.main import main
from etnet.cli.plan import _bundle_command
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


def test_the_bundle_is_made_of_the_runs_that_training_will_make(tmp_path):
    for made in ("spots", "spots-2", "spots-localizer"):
        (tmp_path / "runs" / "train" / made).mkdir(parents=True)
    survey = SimpleNamespace(spot_area=0.03)
    words = _bundle_command(survey, ("spots-localizer", "spots"), "both")
    assert words == ["etnet", "bundle", "runs/train/spots-localizer-2", "runs/train/spots-3", "--output", "both"]


def test_a_spot_below_the_smallest_that_a_bundle_takes_for_found_lowers_that(tmp_path):
    words = _bundle_command(SimpleNamespace(spot_area=0.004), ("spots-localizer", "spots"), "both")
    assert words[words.index("--min-area") + 1] == "0.0004"


@pytest.mark.parametrize(
    ("output", "sentence"),
    [("missing/own.yaml", "there is no folder missing"), ("locked/own.yaml", "the folder locked may not be written")],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(folder, monkeypatch, output, sentence):
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "locked")
    monkeypatch.setattr(planning, "images_per_second", lambda *_, **__: pytest.fail("it measures"))
    result = run(folder, "--output", output)
    assert result.exit_code in (2, 4)
    assert sentence in result.output


def test_names_of_classes_are_printed_as_they_are(folder):
    assert "[red]disc" in run(folder, "--classes", "background,[red]disc").stdout.split("\n\n")[0]
