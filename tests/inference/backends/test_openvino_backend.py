from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="openvino is not installed; it comes with the extra of that name")

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.inference.backends.openvino_backend import OpenVinoBackend
from etnet.inference.predictor import Predictor
from etnet.sidecar import sidecar_path
from helpers.backends import BackendTester, copy_model, photographs


class TestOpenVino(BackendTester):
    backend = "openvino"
    # bfloat16 keeps 8 bits of each number, and this network was never trained to be sure.
    tolerance = 0.1
    share = 0.998


@pytest.fixture
def model(exported_models, tmp_path) -> Path:
    """A file for three classes and all sizes that a test may damage."""
    return copy_model(exported_models("three_classes")[1], tmp_path)


def test_the_name_says_in_which_precision_it_computes(model):
    with Predictor.load(model, backend="openvino") as predictor:
        assert predictor.backend.name in {"openvino cpu float32", "openvino cpu bfloat16", "openvino cpu float16"}


def test_float32_can_be_asked_for(model):
    with Predictor.load(model, backend="openvino", options={"precision": "f32"}) as predictor:
        assert predictor.backend.name == "openvino cpu float32"


def test_a_file_is_complete_without_its_sidecar(model):
    sidecar_path(model).unlink()
    with Predictor.load(model, backend="openvino") as predictor:
        assert predictor.contract.class_names == ("background", "vessel", "optic_disc")
        assert predictor.backend.input_size is None


def test_a_file_that_only_openvino_cannot_read_is_one_sentence(model, monkeypatch):
    import openvino

    def fail(*_arguments):
        raise RuntimeError("Exception from src/core.cpp:1:\nno converter for Foo")

    monkeypatch.setattr(openvino.Core, "read_model", fail)
    with pytest.raises(ModelFileError, match=r"model\.onnx: not a readable ONNX file .*no converter for Foo"):
        OpenVinoBackend(model)


def test_too_little_memory_names_the_size(model, monkeypatch):
    class Full:
        def infer(self, *_arguments, **_options):
            raise RuntimeError("std::bad_alloc")

    backend = OpenVinoBackend(model, threads=1)
    monkeypatch.setattr(backend, "_request", Full())
    with pytest.raises(EnvironmentFault, match=r"too little memory for 2 image\(s\) of 32x48 pixels"):
        backend.run(photographs(2, 32, 48))
