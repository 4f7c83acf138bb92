"""From a trained run to an engine and to masks, on a machine without a GPU, by the commands that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from etnet.cli.main import main
from etnet.errors import EnvironmentFault
from etnet.sidecar import file_sha256
from etnet.trt.library import find_builder
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("deployment")
    data = write_disc_folder(folder / "data", count=8, size=48)
    tiny_run(tiny_recipe("training.epochs=8"), data, folder / "runs" / "discs")
    return folder / "runs" / "discs", data / "images"


def etnet(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def masks(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted((folder / "masks").iterdir())])


def test_a_run_becomes_an_engine_whose_onnx_file_gives_the_masks_of_pytorch(trained, tmp_path):
    try:
        find_builder("tensorrt-rtx")
    except EnvironmentFault as error:
        pytest.skip(str(error))
    run, images = trained
    etnet("build-engine", run, "--fp16", "--backend", "tensorrt-rtx", "--target", "sm86,sm89")
    told = json.loads(etnet("inspect", run / "model-fp16.engine", "--json"))
    assert [(link["kind"], link["found"]) for link in told["chain"]] == [
        ("weights", "here"),
        ("onnx", "here"),
        ("engine", "here"),
    ]
    assert told["chain"][0]["sha256"] == file_sha256(run / "weights" / "best.safetensors")
    assert told["engine"]["layer_precisions"]["fp16"] >= 0.8
    assert (told["input"]["height"], told["input"]["width"]) == (48, 48)

    etnet("infer", images, "--model", run, "--device", "cpu", "--output", tmp_path / "torch")
    etnet("infer", images, "--model", run / "model-fp16.onnx", "--output", tmp_path / "onnx")
    expected, found = masks(tmp_path / "torch"), masks(tmp_path / "onnx")
    assert len(np.unique(expected)) > 1
    assert np.mean(expected == found) >= 0.99
