from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from PIL import Image

from etnet.inference.predictor import Predictor
from etnet.sidecar import read_sidecar
from helpers.backends import photographs
from helpers.command_line import one_sentence, run_etnet
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder
from helpers.weights import write_confident

SIZE = ("--size", "48x48")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run that knows where its data lies."""
    root = tmp_path_factory.mktemp("trained")
    data = write_disc_folder(root / "data")
    tiny_run(tiny_recipe("training.epochs=1"), data, root / "run")
    return root / "run"


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    """An own copy of the run's weights, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "runs/train/discs/weights/best.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes((trained / "weights/best.safetensors").read_bytes())
    return Path("runs/train/discs")


@pytest.fixture
def stray(tmp_path, monkeypatch) -> Path:
    """Weights whose data folder does not exist."""
    monkeypatch.chdir(tmp_path)
    return write_confident(tmp_path / "stray.safetensors", tiny_recipe())


def export(*arguments: object) -> Result:
    return run_etnet("export", *arguments, "--device", "cpu")


def files(folder: Path = Path()) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newest_run_is_exported_at_its_size_and_compared_on_its_held_out_images(run):
    result = export()
    assert result.exit_code == 0, result.output
    assert "Model: runs/train/discs (the newest run" in result.stderr
    assert "Size: 48x48 (the size of the run's images)" in result.stderr
    assert "comparing it with PyTorch on 2 images" in result.stderr
    assert "nothing was held out" not in result.stderr
    assert "Labels that differ" in result.stdout
    assert "Results: runs/train/discs/model.onnx" in result.stdout
    assert "Next: etnet infer YOUR_IMAGES --model runs/train/discs/model.onnx" in result.stdout
    assert files(run) == {"weights", "model.onnx", "model.onnx.json"}
    sidecar = read_sidecar(run / "model.onnx")
    assert sidecar.verification["images"] == 2
    assert sidecar.verification["dice_drop"] <= sidecar.verification["max_drop"] == 0.005
    assert sidecar.verification["reference_dice"] is not None
    assert Predictor.load(run / "model.onnx").backend.input_size == (48, 48)


def test_half_precision_of_free_size_as_json(run):
    result = export(run, "--fp16", "--dynamic", "--batch", "1,2,4", "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["path"] == "runs/train/discs/model-fp16.onnx"
    assert values["precision"] == "fp16"
    assert values["input"] == {"height": None, "width": None, "batch": [1, 2, 4], "size_profile": None}
    assert values["verification"]["candidate"] == "onnxruntime cpu"
    assert files(run) == {"weights", "model-fp16.onnx", "model-fp16.onnx.json"}


def test_int8_is_calibrated_with_a_folder_of_images(run, trained):
    images = trained.parent / "data/images"
    result = export(run, *SIZE, "--int8", "--calibration", images, "--max-drop", 1, "--output", "deep/small.onnx")
    assert result.exit_code == 0, result.output
    assert f"Calibrating with 8 images of {images}" in result.stderr
    assert files(Path("deep")) == {"small.onnx", "small.onnx.json"}
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load("deep/small.onnx").graph.node)


def test_a_loss_above_the_limit_leaves_no_file(run, monkeypatch):
    monkeypatch.setattr("etnet.inference.compare.Comparison.dice_drop", 0.25)
    (run / "model.onnx").write_text("the former file")
    result = export(run, *SIZE, "--max-drop", 0.2, "--overwrite")
    one_sentence(result, 5, "runs/train/discs/model.onnx: not written", "loses 0.2500", "--max-drop 0.2")
    assert files(run) == {"weights", "model.onnx"}
    assert (run / "model.onnx").read_text() == "the former file"


def test_a_drop_that_is_no_number_is_refused(run, monkeypatch):
    monkeypatch.setattr("etnet.inference.compare.Comparison.dice_drop", float("nan"))
    one_sentence(export(run, *SIZE), 5, "not written")
    assert files(run) == {"weights"}


def test_data_that_is_gone_names_both_ways_on(stray):
    result = export(stray)
    one_sentence(result, 3, "stray.safetensors was trained on is not there", "--verify DIR", "--no-verify")
    assert "Size: 512x512 (the images of the run are not there)" in result.stderr
    assert files() == {"stray.safetensors"}


def test_who_insists_gets_a_file_without_a_comparison(stray):
    result = export(stray, *SIZE, "--no-verify")
    assert result.exit_code == 0, result.output
    assert "without comparing it" in result.stderr
    assert "no (--no-verify)" in result.stdout
    assert read_sidecar(Path("model.onnx")).verification is None


def test_own_images_are_compared_on_without_ground_truth(stray):
    Path("eyes").mkdir()
    for index, image in enumerate(photographs(3, 50, 40)):
        Image.fromarray(image).save(f"eyes/{index}.png")
    result = export(stray, *SIZE, "--verify", "eyes")
    assert result.exit_code == 0, result.output
    assert "(no ground truth)" in result.stdout
    verification = read_sidecar(Path("model.onnx")).verification
    assert verification["images"] == 3
    assert verification["reference_dice"] is None


@pytest.mark.parametrize(("option", "needs"), [("--verify", ()), ("--calibration", ("--int8", "--no-verify"))])
def test_a_folder_with_one_unreadable_image_names_it_and_leaves_nothing(stray, option, needs):
    Path("eyes").mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save("eyes/a.png")
    Path("eyes/b.png").write_text("no picture")
    one_sentence(export(stray, *SIZE, option, "eyes", *needs), 3, "eyes/b.png", "cannot be read")
    assert files() == {"stray.safetensors", "eyes"}


def test_an_existing_file_is_kept_without_overwrite(stray):
    Path("model.onnx").write_text("mine")
    one_sentence(export(stray, *SIZE, "--no-verify"), 2, "model.onnx: exists", "--overwrite")
    assert Path("model.onnx").read_text() == "mine"
    assert export(stray, *SIZE, "--no-verify", "--overwrite").exit_code == 0
    assert read_sidecar(Path("model.onnx")) is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fp16", "--int8", "--calibration", "x"), ("exclude each other",)),
        (("--int8",), ("--calibration DIR",)),
        (("--calibration", "x"), ("--int8",)),
        (("--dynamic", "--size", "64x64"), ("exclude each other",)),
        (("--size", "500x512", "--no-verify"), ("496x512",)),
        (("--batch", "4,2,8", "--no-verify"), ("ascending",)),
        (("--size", "0x48", "--verify", "eyes"), ("16x48",)),
        (("--verify", "eyes", "--no-verify"), ("exclude each other",)),
        (("--int8-for", "tensorrt", "--no-verify"), ("used by --int8 only",)),
        (("--output", "model.pb"), ("ends in .onnx",)),
        (("--output", "."), ("is a folder",)),
    ],
)
def test_options_that_cannot_be_are_one_sentence_and_leave_nothing(stray, options, words):
    one_sentence(export(stray, *options), 2, *words)
    assert files() == {"stray.safetensors"}


@pytest.mark.parametrize("options", [("--size", "big"), ("--batch", "1,2"), ("--max-drop", "2"), ("--fp8",)])
def test_values_that_are_none_are_usage_errors(stray, options):
    assert export(stray, *options).exit_code == 2


def test_a_file_that_is_already_exported_is_no_weights_file(stray):
    Path("model.onnx").write_bytes(b"anything")
    one_sentence(export("model.onnx"), 3, "model.onnx", "etnet export takes")


def test_without_a_run_it_is_said_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_sentence(export(), 2, "no model was given", "etnet plan")


def test_a_full_disk_leaves_nothing(stray, monkeypatch):
    def full(_source, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    one_sentence(export(stray, *SIZE, "--no-verify"), 4, "No space left on device")
    assert files() == {"stray.safetensors"}


def test_a_network_of_regions_is_exported_at_their_size_and_folders_are_taken_as_regions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from helpers.bundles import segmenter_recipe

    weights = write_confident(tmp_path / "regions.safetensors", segmenter_recipe())
    one_sentence(export(weights, "--size", "64x64", "--no-verify"), 2, "48x48", "leave --size out")
    (tmp_path / "regions").mkdir()
    for index, image in enumerate(photographs(2, 40, 60)):
        Image.fromarray(image).save(tmp_path / f"regions/{index}.png")
    result = export(weights, "--verify", "regions")
    assert result.exit_code == 0, result.output
    assert "Size: 48x48 (the size of the region of interest)" in result.stderr
    assert "each image is taken as such a region, cut already, and resized to 48x48" in result.stderr
    sidecar = read_sidecar(tmp_path / "model.onnx")
    assert (sidecar.input.size, sidecar.contract.roi.size) == ((48, 48), 48)
    assert sidecar.verification["pixels"] == 2 * 40 * 60
