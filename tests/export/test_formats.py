from __future__ import annotations

import numpy as np
import pytest

from etnet.errors import UsageError
from etnet.export.formats import DEFAULT_FORMATS, FORMATS, ModelFiles, default_formats, parse_formats
from etnet.inference.backends import BACKENDS
from etnet.inference.predictor import Predictor
from etnet.sidecar import file_sha256, read_sidecar
from helpers.onnx_graphs import write_small_onnx
from helpers.weights import write_confident


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_confident(tmp_path_factory.mktemp("run") / "best.safetensors")


def files(model, folder, **options):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    return ModelFiles(model, folder, **{"size": (64, 48), "batch": (1, 1, 2), "calibration": list(images), **options})


def test_every_format_names_a_backend_and_every_default_a_format():
    assert {entry.backend for entry in FORMATS.values()} <= set(BACKENDS)
    assert {name for names in DEFAULT_FORMATS.values() for name in names} <= set(FORMATS)


def test_formats_are_read_in_the_order_given():
    assert parse_formats("openvino, torch,") == ("openvino", "torch")


@pytest.mark.parametrize("text", ["", ",", "torch,torch", "torch,tensorflow"])
def test_formats_that_cannot_be_are_one_sentence(text):
    with pytest.raises(UsageError, match="--formats: expected distinct names of torch, torch-nchw, torch-bf16, "):
        parse_formats(text)


def test_the_usual_formats_follow_the_device():
    assert default_formats("cpu")[0] == default_formats("cuda:1")[0] == "torch"
    assert "openvino" in default_formats("cpu")
    assert "tensorrt-int8" in default_formats("cuda")


def test_weights_are_run_as_they_are_and_onnx_files_are_made_once(weights, tmp_path):
    made = files(weights, tmp_path)
    assert made.contestant("torch-bf16").model == weights
    exported = made.contestant("onnxruntime").model
    assert (exported.name, read_sidecar(exported).precision) == ("model-fp32.onnx", "fp32")
    written = exported.stat().st_mtime_ns
    assert made.contestant("openvino").model.stat().st_mtime_ns == written
    assert read_sidecar(made.contestant("onnxruntime-int8").model).precision == "int8"


def test_a_file_that_another_benchmark_left_is_not_taken_for_this_one(weights, tmp_path):
    (tmp_path / "model-fp32.onnx").write_bytes(b"another network")
    exported = files(weights, tmp_path).contestant("onnxruntime").model
    assert read_sidecar(exported).source.weights_sha256 == file_sha256(weights)


def test_an_onnx_file_serves_formats_of_its_precision_only(weights, tmp_path):
    exported = files(weights, tmp_path).contestant("onnxruntime").model
    given = files(exported, tmp_path)
    assert given.contestant("openvino").model == exported
    with pytest.raises(UsageError, match=r"needs a file in int8, and model-fp32\.onnx is in fp32"):
        given.contestant("onnxruntime-int8")
    with pytest.raises(UsageError, match=r"needs the run or weights, and model-fp32\.onnx was given"):
        given.contestant("torch")


def test_a_file_that_cannot_be_made_says_so_each_time_and_is_tried_once(weights, tmp_path, monkeypatch):
    tries = []

    def refuse(request, images):
        tries.append(request.precision)
        raise UsageError("no calibration today")

    monkeypatch.setattr("etnet.export.formats.export_checked", refuse)
    made = files(weights, tmp_path)
    for name in ("onnxruntime-int8", "openvino-int8"):
        with pytest.raises(UsageError, match="no calibration today"):
            made.contestant(name)
    assert tries == ["int8"]


@pytest.mark.parametrize(("size", "profile"), [(None, ((64, 48),) * 3), ((64, 48), None)])
def test_an_engine_from_a_file_of_free_size_is_built_for_the_size_of_the_benchmark(
    tmp_path, monkeypatch, size, profile
):
    asked = []
    monkeypatch.setattr("etnet.trt.builder.build_engine", lambda _onnx, _output, settings: asked.append(settings))
    onnx = write_small_onnx(tmp_path / "given.onnx", size=size)
    files(onnx, tmp_path).contestant("tensorrt-fp32")
    assert [settings.size_profile for settings in asked] == [profile]


@pytest.mark.parametrize("name", ["torch-tf32", "torch-fp16-graph", "torch-tensorrt"])
def test_a_format_for_gpus_gets_one_clear_sentence_on_a_processor(weights, tmp_path, name):
    contestant = files(weights, tmp_path).contestant(name)
    with pytest.raises(UsageError, match=r"needs an NVIDIA GPU, and the device is cpu; use --device cuda$"):
        Predictor.load(contestant.model, backend=contestant.backend, device="cpu", options=contestant.options)
