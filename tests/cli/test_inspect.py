from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from etnet.cli.main import main
from etnet.sidecar import EngineSpec, file_sha256
from etnet.trt.driver import Driver
from helpers.engines import engine_sidecar, write_engine_file
from helpers.onnx_graphs import write_small_onnx
from helpers.weights import small_recipe, write_header_only


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("etnet.trt.plan.ask_driver", lambda: Driver(problem="no NVIDIA driver"))


def inspect(*words):
    return CliRunner().invoke(main, ["inspect", *map(str, words)])


def shown(result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_weights_are_shown_by_run_directory_with_what_runs_them(tmp_path):
    weights = write_header_only(tmp_path / "run" / "weights" / "best.safetensors", small_recipe())
    text = shown(inspect(tmp_path / "run"))
    assert f"Trained weights {weights}" in text
    assert "Runs here yes, on the processor or a GPU with PyTorch" in text
    assert "Classes background, vessel, optic_disc" in text
    assert text.endswith(f"Next: etnet infer YOUR_IMAGES --model {weights}")


def test_an_onnx_file_is_shown_with_its_size_and_its_chain(tmp_path):
    path = write_small_onnx(tmp_path / "model.onnx", precision="fp16")
    text = shown(inspect(path))
    assert "Runs here yes, on the processor with ONNX Runtime" in text
    assert "Precision fp16" in text
    assert "Input 32x48" in text
    assert "best.safetensors (not here)" in text
    assert f"{file_sha256(path)[:16]}... model.onnx (here)" in text


def test_an_engine_says_why_it_cannot_run_and_what_to_do(tmp_path):
    result = inspect(write_engine_file(tmp_path / "model.engine"))
    text = shown(result)
    assert "Runs here no: an engine needs an NVIDIA GPU, and none can be used here: no NVIDIA driver" in text
    assert "Layers 96% fp16" in text
    assert "Batch 1 to 4, best 2" in text
    assert text.endswith(f"Next: run the ONNX file here instead with: etnet infer IMAGES --model {tmp_path}/model.onnx")
    assert "Loading an engine is running code" in result.stderr


def test_the_chain_tells_files_that_were_changed_since(tmp_path):
    onnx = write_small_onnx(tmp_path / "model.onnx")
    spec = replace(engine_sidecar().engine, onnx_sha256=file_sha256(onnx))
    engine = write_engine_file(tmp_path / "model.engine", engine_sidecar(engine=spec))
    links = {link["kind"]: link["found"] for link in json.loads(inspect(engine, "--json").stdout)["chain"]}
    assert links == {"weights": "not here", "onnx": "here", "engine": "here"}
    write_small_onnx(onnx, num_classes=3)
    (tmp_path / "best.safetensors").write_bytes(b"others")
    links = {link["kind"]: link["found"] for link in json.loads(inspect(engine, "--json").stdout)["chain"]}
    assert links == {"weights": "changed", "onnx": "changed", "engine": "here"}


def test_json_holds_everything(tmp_path):
    spec = EngineSpec("tensorrt-rtx", "1.7.1.116", "cd" * 32, targets=("sm86",))
    path = write_engine_file(tmp_path / "model.engine", engine_sidecar(engine=spec))
    told = json.loads(inspect(path, "--json").stdout)
    assert told["kind"] == "engine"
    assert told["runs_here"] is False
    assert told["engine"]["targets"] == ["sm86"]
    assert told["input"]["batch"] == [1, 2, 4]
    assert told["contract"]["size_multiple"] == 16
    assert told["sha256"] == file_sha256(path)
    assert "etnet infer IMAGES" in told["remedy"]


def test_integers_for_tensorrt_are_sent_to_an_engine(tmp_path):
    path = write_small_onnx(tmp_path / "model.onnx", precision="int8", quantized_for="tensorrt")
    text = shown(inspect(path))
    assert "slowly: its integers are made for TensorRT" in text
    assert text.endswith(f"Next: build an engine with: etnet build-engine {path} --backend tensorrt-rtx")


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    text = shown(inspect(write_header_only(tmp_path / "best.safetensors", small_recipe())))
    assert "Runs here no: torch is not installed here" in text
    assert text.endswith("Next: install it with: pip install 'etnet[train]'")


def test_what_is_no_model_of_etnet_ends_with_exit_code_3(tmp_path):
    engine = write_engine_file(tmp_path / "model.engine")
    shutil.copy(engine, tmp_path / "alone.engine")
    engine.write_bytes(b"plaN")
    foreign = write_small_onnx(tmp_path / "foreign.onnx", described=False)
    for path, message in (
        (tmp_path / "alone.engine", "has no sidecar"),
        (engine, "its bytes are not those"),
        (foreign, "not exported by etnet"),
        (tmp_path / "nothing", "no such"),
    ):
        result = inspect(path)
        assert result.exit_code == 3, path
        assert message in result.stderr
