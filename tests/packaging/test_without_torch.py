"""A machine that only deploys has no PyTorch: it runs exported networks all the same, and reads headers of weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.inference.predictor import Predictor
from etnet.manifest import read_weights_info
from helpers.backends import photographs

BLOCKED = ("torch", "torchvision", "timm", "onnx", "onnxscript", "matplotlib", "scipy")
"""What the extra `train` brings beside the base installation."""

RUN = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r})); "


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "eyes"
    folder.mkdir()
    for index, image in enumerate(photographs(3, 45, 61)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def run_without_torch(program: str, *arguments: object, expected_code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN + program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})
    assert result.returncode == expected_code, result.stderr
    return result


def etnet(*arguments: object, expected_code: int = 0) -> subprocess.CompletedProcess[str]:
    program = "from etnet.cli.main import main; main(sys.argv[1:])"
    return run_without_torch(program, *arguments, expected_code=expected_code)


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
def test_infer_gives_the_masks_of_pytorch(exported_models, images, tmp_path, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    weights, model = exported_models("two_classes")
    etnet("infer", images, "--model", model, "--backend", backend, "--output", tmp_path / "out", "--overlay")
    summary = json.loads((tmp_path / "out/summary.json").read_text("utf-8"))
    assert summary["ran_on"].startswith("onnxruntime" if backend == "auto" else backend)
    assert summary["model"]["weights_sha256"] == read_weights_info(weights).sha256
    reference = Predictor.load(weights, device="cpu")
    for path in sorted(images.iterdir()):
        with Image.open(path) as picture, Image.open(tmp_path / "out/masks" / path.name) as mask:
            expected = reference.predict(np.array(picture)).labels
            assert np.mean(np.array(mask) != expected) <= (0.02 if backend == "openvino" else 0.0)


def test_weights_describe_themselves(exported_models):
    weights = exported_models("two_classes")[0]
    program = "from pathlib import Path; from etnet.manifest import read_weights_info as read; "
    result = run_without_torch(program + "print(read(Path(sys.argv[1])).contract.class_names)", weights)
    assert result.stdout.strip() == "('background', 'vessel')"


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "{images}", "--model", "{weights}"),
        ("evaluate", "{weights}", "--data", "{images}"),
        ("export", "{weights}", "--no-verify", "--size", "48x64", "--output", "{images}/m.onnx"),
    ],
)
def test_what_needs_torch_says_how_to_install_it(exported_models, images, command, tmp_path):
    values = {"weights": exported_models("two_classes")[0], "images": images}
    result = etnet(*(word.format(**values) for word in command), expected_code=3 if command[0] == "evaluate" else 4)
    assert "Traceback" not in result.stderr
    if command[0] != "evaluate":
        assert "pip install 'etnet[train]'" in result.stderr
