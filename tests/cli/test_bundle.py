from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from etnet.inference.localize import MIN_AREA
from etnet.inference.predictor import Predictor
from etnet.sidecar import read_sidecar
from helpers.backends import PixelBackend, image_of
from helpers.bundles import (
    draw_disc,
    localizer_contract,
    localizer_recipe,
    segmenter_contract,
    segmenter_recipe,
    write_stage_headers,
)
from helpers.command_line import one_sentence, run_etnet
from helpers.runs import tiny_run
from helpers.weights import write_confident, write_header_only


def etnet(*words: object) -> Result:
    return run_etnet(*words)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_stage_headers(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(here) -> Path:
    assert etnet("bundle", "localizer", "segmenter", "--output", "joined").exit_code == 0
    return here / "joined"


@pytest.fixture
def pixels(monkeypatch) -> None:
    """Networks are replaced by pixel arithmetic, told apart by the name of their file."""

    def load(path, **options):
        if "localizer" in str(path):
            return Predictor(PixelBackend(2, with_edges=False), localizer_contract())
        return Predictor(PixelBackend(3), segmenter_contract(segmenter_recipe().contract().roi))

    monkeypatch.setattr(Predictor, "load", load)


def test_two_runs_become_one_folder_and_the_next_command_is_told(here):
    result = etnet("bundle", "localizer", "segmenter", "--output", "joined", "--min-area", "0.01")
    assert result.exit_code == 0, result.output
    assert "Results: joined" in result.stdout
    assert "Next: etnet infer YOUR_IMAGES --model joined --overlay" in result.stdout
    assert "at least 1.00% of the image" in result.stdout
    assert json.loads((here / "joined/bundle.json").read_text())["rule"] == {
        "structure": "optic_disc",
        "min_area": 0.01,
    }


def test_the_help_tells_the_smallest_area_that_is_used(here):
    assert f"[default: {MIN_AREA}]" in " ".join(etnet("bundle", "--help").stdout.split())
    assert etnet("bundle", "localizer", "segmenter", "--output", "joined").exit_code == 0
    assert json.loads((here / "joined/bundle.json").read_text())["rule"]["min_area"] == MIN_AREA


def test_json_goes_to_stdout_alone(here):
    result = etnet("bundle", "localizer", "segmenter", "--output", "joined", "--json")
    described = json.loads(result.stdout)
    assert described["kind"] == "bundle"
    assert described["segmenter"]["path"] == "joined/segmenter.safetensors"


def test_a_folder_that_exists_is_refused_before_anything_is_read(bundle):
    one_sentence(etnet("bundle", "gone", "gone", "--output", "joined"), 2, "joined: exists already")


def test_stages_in_the_wrong_order_are_refused(here):
    one_sentence(etnet("bundle", "segmenter", "localizer", "--output", "out"), 3, "wrong order")
    assert not (here / "out").exists()


def test_a_localizer_of_several_structures_needs_the_name_of_one(here):
    write_header_only(here / "many.safetensors", localizer_recipe(class_names=["background", "optic_disc", "macula"]))
    words = ("bundle", "many.safetensors", "segmenter", "--output", "out")
    one_sentence(etnet(*words), 2, "--structure", "optic_disc, macula")
    one_sentence(etnet(*words, "--structure", "vessel"), 2, "no structure 'vessel'")
    assert etnet(*words, "--structure", "macula").exit_code == 0


def test_an_onnx_file_is_not_turned_into_weights(here):
    from helpers.onnx_graphs import write_small_onnx

    write_small_onnx(here / "model.onnx")
    words = ("bundle", "model.onnx", "segmenter", "--output", "out", "--format", "weights")
    one_sentence(etnet(*words), 2, "--format weights")


def test_a_bundle_is_inspected_stage_by_stage(bundle):
    text = " ".join(etnet("inspect", "joined").stdout.split())
    assert "Bundle joined (a localizer and a segmenter) Runs here yes" in text
    assert "Centre of optic_disc, at least 0.20% of the image" in text
    assert "Trained weights joined/localizer.safetensors" in text
    assert "Region 0.5 of the width around a centre, seen at 48x48" in text
    assert text.endswith("Next: etnet infer YOUR_IMAGES --model joined")
    described = json.loads(etnet("inspect", "joined", "--json").stdout)
    assert described["runs_here"] is True
    assert described["localizer"]["contract"]["image_size"] == [64, 64]


def test_inspecting_a_bundle_with_a_changed_model_says_which(bundle):
    (bundle / "localizer.safetensors").write_bytes(b"other")
    one_sentence(etnet("inspect", "joined"), 3, "joined/localizer.safetensors", "its bytes are not those")


def test_inspecting_a_network_of_regions_names_the_bundle_as_the_next_step(here):
    assert "Next: etnet bundle LOCALIZER segmenter/weights" in etnet("inspect", "segmenter").stdout


def test_a_folder_is_segmented_with_a_bundle(bundle, pixels):
    (bundle.parent / "eyes").mkdir()
    disc = draw_disc((100, 96), (40, 50), 12)
    Image.fromarray(image_of(disc)).save("eyes/a.png")
    Image.fromarray(image_of(disc * 0)).save("eyes/b.png")
    result = etnet("infer", "eyes", "--model", "joined", "--output", "out")
    one_sentence(result, 6, "1 of 2 images", "b.png", "the optic disc was not localized")
    assert "Segmenting with joined on pixel arithmetic" in result.stderr
    with Image.open("out/masks/a.png") as mask:
        np.testing.assert_array_equal(np.array(mask), disc)
    with Path("out/measurements.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["file"], row["vertical_cup_to_disc_ratio"]) == ("a.png", "0.5000")
    assert float(row["center_column_px"]) == 50.0


def test_a_network_of_regions_alone_is_refused_with_the_command_that_joins_it(here, pixels):
    (here / "eyes").mkdir()
    Image.fromarray(image_of(draw_disc((100, 120), (40, 60), 12))).save("eyes/a.png")
    result = etnet("infer", "eyes", "--model", "segmenter")
    one_sentence(result, 2, "etnet bundle LOCALIZER segmenter --output DIR")
    assert not (here / "runs").exists()


@pytest.mark.parametrize("command", ["export", "build-engine", "benchmark"])
def test_commands_for_one_network_say_that_they_were_given_two(bundle, command):
    one_sentence(etnet(command, "joined"), 3, "joined: is a bundle of two networks", "name one of the two model files")


def write_eyes(root: Path, count: int = 6) -> Path:
    """A `folder` data set of bright discs with brighter cups; masks hold 0, 1 (rim) and 2 (cup)."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        mask = draw_disc((80, 96), tuple(random.integers(25, 55, 2)), 14)
        image = np.array([60, 160, 230])[mask][..., None] + random.integers(-25, 25, (80, 96, 3))
        cv2.imwrite(str(root / f"images/eye_{index}.png"), image.astype(np.uint8))
        cv2.imwrite(str(root / f"masks/eye_{index}.png"), mask)
    return root


def test_exported_stages_are_compared_on_what_each_was_made_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_eyes(tmp_path / "data")
    from etnet.config.load import recipe_from_values

    for name, recipe in (
        ("localizer", localizer_recipe(mask_values={0: 0, 1: 1, 2: 1})),
        ("segmenter", segmenter_recipe()),
    ):
        values = recipe.model_dump(mode="json")
        values["data"] |= {"crop_size": 32, "validation_fraction": 0.34, "workers": 0}
        values["training"] |= {"epochs": 1, "batch_size": 2}
        tiny_run(recipe_from_values(values, "test recipe"), data, tmp_path / name)
    result = etnet("bundle", "localizer", "segmenter", "--output", "joined", "--format", "onnx", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("joined").iterdir()) == [
        "bundle.json",
        "localizer.onnx",
        "localizer.onnx.json",
        "segmenter.onnx",
        "segmenter.onnx.json",
    ]
    finds, segments = (read_sidecar(Path("joined") / f"{name}.onnx") for name in ("localizer", "segmenter"))
    assert (finds.input.size, segments.input.size) == ((64, 64), (48, 48))
    assert finds.verification["images"] == segments.verification["images"] == 2
    # Two regions of 48x48 pixels, not the images around them.
    assert segments.verification["pixels"] == 2 * 48 * 48
    assert finds.verification["pixels"] == 2 * 80 * 96


def test_without_the_images_of_the_run_the_ways_out_are_named(here):
    for name, recipe in (("localizer", localizer_recipe()), ("segmenter", segmenter_recipe())):
        write_confident(here / name / "weights/best.safetensors", recipe)
    words = ("bundle", "localizer", "segmenter", "--output", "joined", "--format", "onnx")
    one_sentence(etnet(*words), 3, "--no-verify", "etnet export --verify DIR")
    assert not (here / "joined").exists()
    assert etnet(*words, "--no-verify").exit_code == 0
    assert (here / "joined/segmenter.onnx").is_file()
