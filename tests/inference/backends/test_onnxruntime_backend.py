from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.inference.backends import open_backend
from etnet.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from etnet.inference.predictor import Predictor
from etnet.onnx_sidecar import describe_onnx
from etnet.sidecar import METADATA_KEY, sidecar_path
from helpers.backends import BackendTester, copy_model, photographs


class TestOnnxRuntime(BackendTester):
    backend = "onnxruntime"


@pytest.fixture
def model(exported_models, tmp_path) -> Path:
    """A file for two classes and 48x64 pixels that a test may damage."""
    return copy_model(exported_models("two_classes")[1], tmp_path)


def load(path: Path) -> Predictor:
    return Predictor.load(path, threads=1)


def test_onnx_files_are_run_by_onnxruntime_without_being_asked(model):
    assert load(model).backend.name == "onnxruntime cpu"


def test_a_file_is_complete_without_its_sidecar(model):
    with_sidecar = load(model)
    sidecar_path(model).unlink()
    alone = load(model)
    assert alone.contract == with_sidecar.contract
    assert alone.backend.input_size == (48, 64)
    assert alone.description.sha256 == with_sidecar.description.sha256
    assert describe_onnx(model) == alone.backend.sidecar


def test_a_changed_byte_is_noticed_by_the_sidecar(model):
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.onnx: its bytes are not those that model\.onnx\.json describes"):
        load(model)


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_truncated_file_is_one_sentence(model, keep):
    sidecar_path(model).unlink()
    model.write_bytes(model.read_bytes()[:keep])
    for read in (load, describe_onnx):
        with pytest.raises(ModelFileError, match=r"model\.onnx: not a readable ONNX file") as caught:
            read(model)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ModelFileError, match="no such"):
        load(tmp_path / "model.onnx")


def test_a_file_of_another_program_is_refused(model):
    foreign = onnx.load(model)
    del foreign.metadata_props[:]
    onnx.save(foreign, model)
    sidecar_path(model).unlink()
    with pytest.raises(ModelFileError, match=r"not exported by etnet.* etnet export RUN"):
        load(model)


def test_a_damaged_description_in_the_file_names_the_field(model):
    changed = onnx.load(model)
    (entry,) = (entry for entry in changed.metadata_props if entry.key == METADATA_KEY)
    values = json.loads(entry.value)
    del values["contract"]["mean"]
    entry.value = json.dumps(values)
    onnx.save(changed, model)
    sidecar_path(model).unlink()
    with pytest.raises(ModelFileError, match=r"metadata of .*model\.onnx.*contract\.mean"):
        load(model)


def test_a_graph_without_the_described_outputs_is_refused(model):
    changed = onnx.load(model)
    del changed.graph.output[-1]
    onnx.save(changed, model)
    sidecar_path(model).unlink()
    with pytest.raises(ModelFileError, match="the graph gives labels, edges, its description says labels, edges, prob"):
        load(model)


def test_the_number_of_threads_is_that_asked_for(model):
    backend = OnnxRuntimeBackend(model, threads=1)
    assert backend._session.get_session_options().intra_op_num_threads == 1
    one, more = backend.run(photographs(1, 48, 64)), OnnxRuntimeBackend(model, threads=2).run(photographs(1, 48, 64))
    np.testing.assert_allclose(one.probabilities, more.probabilities, atol=1e-5)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_gpu_is_refused_with_what_runs_there(model, name):
    with pytest.raises(EnvironmentFault, match="etnet build-engine"):
        open_backend(model, backend=name, device="cuda:0")
    with pytest.raises(UsageError, match="expected auto, cpu, cuda"):
        open_backend(model, backend=name, device="gpu")


@pytest.mark.parametrize("text", ["Failed to allocate memory for requested buffer of size 1", "std::bad_alloc"])
def test_too_little_memory_names_the_size(model, monkeypatch, text):
    class Full:
        def run(self, *_arguments):
            raise RuntimeError(f"[ONNXRuntimeError] : 6 : {text}")

    backend = OnnxRuntimeBackend(model)
    monkeypatch.setattr(backend, "_session", Full())
    with pytest.raises(EnvironmentFault, match=r"too little memory for 1 image\(s\) of 48x64 pixels"):
        backend.run(photographs(1, 48, 64))


def test_other_errors_of_the_runtime_are_not_hidden(model, monkeypatch):
    class Broken:
        def run(self, *_arguments):
            raise RuntimeError("a bug")

    backend = OnnxRuntimeBackend(model)
    monkeypatch.setattr(backend, "_session", Broken())
    with pytest.raises(RuntimeError, match="a bug"):
        backend.run(photographs(1, 48, 64))
