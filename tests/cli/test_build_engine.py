"""Engines are built for real by TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest
from click.testing import CliRunner
from PIL import Image

from etnet.cli.main import main
from etnet.errors import EnvironmentFault
from etnet.sidecar import file_sha256, read_sidecar
from etnet.trt.driver import Driver
from etnet.trt.library import find_builder
from helpers.backends import photographs
from helpers.onnx_graphs import write_small_onnx
from helpers.weights import small_recipe, write_header_only

NO_GPU = Driver(problem="no NVIDIA driver")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    for module in ("etnet.trt.builder", "etnet.trt.driver", "etnet.trt.plan"):
        monkeypatch.setattr(f"{module}.ask_driver", lambda: NO_GPU)


@pytest.fixture
def rtx():
    try:
        find_builder("tensorrt-rtx")
    except EnvironmentFault as error:
        pytest.skip(str(error))


@pytest.fixture
def onnx(tmp_path):
    return write_small_onnx(tmp_path / "model.onnx", precision="fp16")


def build(*words):
    return CliRunner().invoke(main, ["build-engine", *map(str, words)])


@pytest.mark.usefixtures("rtx")
def test_an_onnx_file_becomes_an_engine_that_says_it_was_not_compared(onnx):
    result = build(onnx, "--fp16", "--backend", "tensorrt-rtx", "--batch", "1,2,4", "--target", "sm86,sm89")
    assert result.exit_code == 0, result.output
    engine = onnx.with_suffix(".engine")
    sidecar = read_sidecar(engine)
    assert sidecar.engine.targets == ("sm86", "sm89")
    assert sidecar.input.batch == (1, 2, 4)
    assert sidecar.verification is None
    assert "Compared NO: it runs on a GPU only, and none can be used here: no NVIDIA driver" in " ".join(
        result.stdout.split()
    )
    assert result.stdout.rstrip().endswith(f"Next: etnet inspect {engine}")


@pytest.mark.usefixtures("rtx")
def test_json_is_the_description_and_nothing_else(onnx):
    result = build(onnx, "--backend", "tensorrt-rtx", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["path"] == str(onnx.with_suffix(".engine"))
    assert told["engine"]["layer_precisions"]["fp16"] >= 0.8


@pytest.mark.usefixtures("rtx")
def test_a_dry_run_shows_the_build_and_writes_nothing(onnx):
    before = sorted(onnx.parent.iterdir())
    words = ("--batch", "1,4,8", "--optimization-level", "5", "--output", onnx.parent / "new" / "model.engine")
    result = build(onnx, "--backend", "tensorrt-rtx", "--dry-run", *words)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert f"Would build {onnx.parent / 'new' / 'model.engine'}" in shown
    assert "Precision fp16" in shown
    assert "Batch 1 to 8, best 4" in shown
    assert "Optimization level 5" in shown
    assert sorted(onnx.parent.iterdir()) == before


@pytest.mark.usefixtures("rtx")
def test_a_dry_run_from_weights_names_the_export_on_the_way(tmp_path):
    weights = write_header_only(tmp_path / "run" / "weights" / "best.safetensors", small_recipe())
    result = build(tmp_path / "run", "--fp16", "--backend", "tensorrt-rtx", "--size", "64x96", "--dry-run")
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert f"Would build {tmp_path / 'run' / 'model-fp16.engine'}" in shown
    assert f"Would export {weights} to {tmp_path / 'run' / 'model-fp16.onnx'}" in shown
    assert "Input 64x96" in shown
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.usefixtures("rtx")
def test_weights_are_exported_on_the_way_and_the_file_serves_the_next_build(exported_models, tmp_path):
    weights = tmp_path / "run" / "weights" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    shutil.copy(exported_models("two_classes")[0], weights)
    words = (tmp_path / "run", "--fp16", "--backend", "tensorrt-rtx", "--size", "48x64")
    first = build(*words)
    assert first.exit_code == 0, first.output
    onnx, engine = tmp_path / "run" / "model-fp16.onnx", tmp_path / "run" / "model-fp16.engine"
    assert read_sidecar(engine).engine.onnx_sha256 == file_sha256(onnx)
    assert read_sidecar(engine).source.weights_sha256 == file_sha256(weights)
    written = onnx.stat().st_mtime_ns
    second = build(*words, "--output", tmp_path / "run" / "turing.engine", "--target", "sm75")
    assert second.exit_code == 0, second.output
    assert f"Using {onnx}, which was exported from these weights" in second.stderr
    assert onnx.stat().st_mtime_ns == written
    # Another size would replace the file that the first engine came from.
    third = build(*words[:-1], "64x64", "--output", tmp_path / "run" / "other.engine")
    assert third.exit_code == 2
    assert "would be replaced on the way" in third.stderr


@pytest.mark.usefixtures("rtx")
def test_integers_are_calibrated_on_a_folder_of_images(exported_models, tmp_path):
    weights = tmp_path / "best.safetensors"
    shutil.copy(exported_models("two_classes")[0], weights)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(photographs(3, 48, 64)):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    words = (weights, "--int8", "--backend", "tensorrt-rtx", "--size", "48x64", "--calibration", tmp_path / "images")
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    refused = build(*words)
    assert refused.exit_code == 3
    assert "3.png" in refused.stderr
    assert not list(tmp_path.glob("*.onnx"))
    (tmp_path / "images" / "3.png").unlink()
    result = build(*words)
    assert result.exit_code == 0, result.output
    sidecar = read_sidecar(tmp_path / "model-int8-tensorrt.engine")
    assert (sidecar.precision, sidecar.quantized_for) == ("int8", "tensorrt")
    assert sidecar.engine.layer_precisions["int8"] > 0.5


@pytest.mark.usefixtures("rtx")
def test_nothing_is_replaced_without_being_asked(onnx):
    assert build(onnx, "--backend", "tensorrt-rtx").exit_code == 0
    again = build(onnx, "--backend", "tensorrt-rtx")
    assert again.exit_code == 2
    assert "exists already; add --overwrite" in again.stderr
    assert build(onnx, "--backend", "tensorrt-rtx", "--overwrite").exit_code == 0


def test_full_tensorrt_without_a_gpu_names_the_command_that_works(onnx):
    result = build(onnx, "--fp16")
    assert result.exit_code == 4
    assert "no NVIDIA driver" in result.stderr
    assert result.stderr.rstrip().endswith(f"etnet build-engine {onnx} --fp16 --backend tensorrt-rtx")


def test_the_command_that_works_names_the_run_that_was_given(tmp_path):
    write_header_only(tmp_path / "run" / "weights" / "best.safetensors", small_recipe())
    result = build(tmp_path / "run", "--fp16", "--size", "64x64")
    assert result.stderr.rstrip().endswith(f"etnet build-engine {tmp_path / 'run'} --fp16 --backend tensorrt-rtx")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fp16", "--int8"], "--fp16 and --int8 exclude each other"),
        (["--calibration", "images"], "--calibration: "),
        (["--size", "64x64"], "is an ONNX file already"),
        (["--output", "model.trt"], "expected a name that ends in .engine or .plan"),
        (["--size-profile", "1x1"], "--size-profile is '1x1'"),
        (["--target", "hopper"], "--target is 'hopper'"),
        (["--batch", "8,4,1"], "--batch is 8,4,1"),
        (["--verify", "images", "--no-verify"], "exclude each other"),
    ],
)
def test_options_that_make_no_sense_are_refused(onnx, words, message):
    result = build(onnx, "--backend", "tensorrt-rtx", *words)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "--int8 needs --calibration DIR"),
        (["--fp16", "--calibration", "images"], "--calibration is used by --int8 only"),
        (["--dynamic"], "--dynamic needs --size-profile"),
        (["--size", "100x100", "--dry-run"], "for instance 96x96"),
    ],
)
@pytest.mark.usefixtures("rtx")
def test_options_of_the_export_on_the_way_are_checked(tmp_path, words, message):
    weights = write_header_only(tmp_path / "best.safetensors", small_recipe())
    result = build(weights, "--backend", "tensorrt-rtx", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_engine_is_not_built_from_an_engine(tmp_path):
    result = build(tmp_path / "model.engine", "--backend", "tensorrt-rtx")
    assert result.exit_code == 2
    assert "is an engine; give the ONNX file" in result.stderr


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_ends_with_its_own_exit_code_and_a_line(onnx, monkeypatch):
    presses = [signal.SIGINT]

    def interrupted(*_arguments):
        # Once: a second Ctrl-C ends the process at once, and this one with it.
        if presses:
            os.kill(os.getpid(), presses.pop())
            time.sleep(0.3)

    monkeypatch.setattr("etnet.cli.build_engine._Bars.step_done", interrupted)
    result = build(onnx, "--backend", "tensorrt-rtx")
    assert result.exit_code == 130
    assert "Stopped; no engine was written." in result.stderr
    assert not onnx.with_suffix(".engine").exists()
