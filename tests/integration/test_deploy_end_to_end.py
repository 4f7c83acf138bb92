"""From training to deployed masks on real photographs: every backend draws what PyTorch draws."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from etnet.cli.main import main
from etnet.sidecar import file_sha256
from helpers.runs import TINY

SETTINGS = [word for override in TINY if "batch_size" not in override for word in ("--set", override)]


def etnet(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result


def masks_of(folder: Path) -> dict[str, np.ndarray]:
    values = {}
    for path in sorted((folder / "masks").iterdir()):
        with Image.open(path) as picture:
            values[path.name] = np.array(picture)
    return values


def test_a_trained_network_is_exported_and_segments_alike_on_every_backend(
    small_drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--epochs", 4, "--batch-size", 2, "--device", "cpu")
    etnet("train", "--recipe", "drive", "--data", small_drive, *SETTINGS, "--set", "data.crop_size=64", *options)
    run = Path("runs/train/drive")
    shown = etnet("export", run, "--device", "cpu")
    assert "Size: 592x576" in shown.stderr
    sidecar = json.loads((run / "model.onnx.json").read_text("utf-8"))
    assert sidecar["source"]["weights_sha256"] == file_sha256(run / "weights/best.safetensors")
    assert sidecar["verification"]["dice_drop"] <= 0.005

    images = small_drive / "test/images"
    etnet("infer", images, "--model", run, "--device", "cpu", "--output", "torch")
    expected = masks_of(Path("torch"))
    backends = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
    for name in backends:
        etnet("infer", images, "--model", run / "model.onnx", "--backend", name, "--output", name)
        found = masks_of(Path(name))
        assert found.keys() == expected.keys()
        assert {mask.shape for mask in found.values()} == {(584, 565)}
        differing = np.mean([np.mean(found[key] != expected[key]) for key in expected])
        # A network of four epochs is unsure everywhere, which bfloat16 shows; trained ones agree to 99.9 % there too.
        assert differing < (0.001 if name == "onnxruntime" else 0.02), name
        ran_on = json.loads(Path(name, "summary.json").read_text("utf-8"))["ran_on"]
        assert ran_on.startswith(f"{name} cpu")
