from __future__ import annotations

import sys
from pathlib import Path

import pytest

from etnet.errors import EnvironmentFault, UsageError
from etnet.inference.backends import BACKENDS, choose_backend, open_backend


@pytest.mark.parametrize(
    ("file", "backend"),
    [
        ("best.safetensors", "torch"),
        ("weights", "torch"),
        ("weights.pt", "torch"),
        ("model.onnx", "onnxruntime"),
        ("MODEL.ONNX", "onnxruntime"),
        ("model.engine", "tensorrt"),
        ("model.plan", "tensorrt"),
    ],
)
def test_the_kind_of_file_chooses_the_backend(file, backend):
    assert choose_backend(Path(file)) == backend
    assert choose_backend(Path(file), backend) == backend


def test_a_backend_that_also_runs_the_file_can_be_asked_for():
    assert choose_backend(Path("model.onnx"), "openvino") == "openvino"


@pytest.mark.parametrize(
    ("file", "backend", "words"),
    [
        ("best.safetensors", "onnxruntime", r"runs \.onnx files; make one with: etnet export best\.safetensors"),
        ("model.onnx", "tensorrt", r"make one with: etnet build-engine model\.onnx"),
        ("model.onnx", "torch", "give it the run directory or weights file"),
        ("model.engine", "openvino", r"runs \.onnx files; give it the one that this engine was built from"),
        ("my model.onnx", "tensorrt", r"make one with: etnet build-engine 'my model\.onnx'"),
        ("model.onnx", "tflite", "expected auto, torch, onnxruntime, openvino, tensorrt"),
    ],
)
def test_a_backend_for_other_files_says_what_it_runs(file, backend, words):
    with pytest.raises(UsageError, match=words):
        choose_backend(Path(file), backend)


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_a_missing_runtime_names_the_command_that_installs_it(name, monkeypatch):
    entry = BACKENDS[name]
    monkeypatch.delitem(sys.modules, entry.module, raising=False)
    monkeypatch.setitem(sys.modules, entry.package, None)
    with pytest.raises(EnvironmentFault) as caught:
        open_backend(Path(f"model{entry.suffixes[0]}"), backend=name)
    assert entry.install in str(caught.value)
    assert entry.package in str(caught.value)
