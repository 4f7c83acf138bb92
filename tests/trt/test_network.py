"""What is asked of each version of TensorRT; the versions are played by a stand-in that writes it down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from etnet.errors import CheckFailed, EnvironmentFault, ModelFileError
from etnet.sidecar import read_sidecar
from etnet.trt.builder import build_engine
from etnet.trt.driver import Driver, Gpu
from etnet.trt.settings import BuildSettings
from helpers.fake_tensorrt import FakeTensorRT
from helpers.onnx_graphs import write_small_onnx

A10 = Driver((Gpu(0, "NVIDIA A10", (8, 6)),), "580.95.05", "13.0")
FULL = BuildSettings("tensorrt")
OLD = {
    "network_flags": ("EXPLICIT_BATCH", "EXPLICIT_PRECISION"),
    "builder_flags": ("FP16", "INT8", "TF32"),
    "monitors": False,
}


@pytest.fixture
def play(monkeypatch):
    """Play a version of TensorRT on a machine with a GPU."""

    def start(**features) -> FakeTensorRT:
        fake = FakeTensorRT(**features)
        monkeypatch.setattr("etnet.trt.builder.find_builder", lambda name: fake.library)
        monkeypatch.setattr("etnet.trt.builder.ask_driver", lambda: A10)
        return fake

    return start


def test_tensorrt_10_gets_a_strongly_typed_network_and_no_precision_flag(play, tmp_path):
    fake = play(builder_flags=("FP16", "INT8", "TF32"))
    build_engine(write_small_onnx(tmp_path / "m.onnx", precision="fp16"), tmp_path / "m.engine", FULL)
    assert fake.network_flags == [1 << 1]
    assert fake.flags == []
    assert fake.attributes["profiling_verbosity"].name == "DETAILED"
    assert fake.attributes["progress_monitor"] is not None


def test_tensorrt_11_numbers_the_flag_anew(play, tmp_path):
    fake = play(version="11.0.0", network_flags=("STRONGLY_TYPED",), builder_flags=("TF32",))
    build_engine(write_small_onnx(tmp_path / "m.onnx", precision="fp16"), tmp_path / "m.engine", FULL)
    assert fake.network_flags == [1 << 0]


def test_tensorrt_8_gets_an_explicit_batch_and_precision_flags(play, tmp_path):
    onnx = write_small_onnx(tmp_path / "m.onnx")
    fake = play(version="8.6.1", **OLD)
    sidecar = build_engine(onnx, tmp_path / "m.engine", replace(FULL, precision="fp16"))
    assert fake.network_flags == [1 << 0]
    assert fake.flags == ["FP16"]
    assert "progress_monitor" not in fake.attributes
    assert sidecar.precision == "fp16"
    fake = play(version="8.6.1", **OLD)
    build_engine(
        write_small_onnx(tmp_path / "q.onnx", precision="int8"), tmp_path / "q.engine", replace(FULL, precision="int8")
    )
    assert fake.flags == ["FP16", "INT8"]


def test_tf32_is_off_in_fp32_only(play, tmp_path):
    fake = play(layers='{"Layers": []}')
    build_engine(write_small_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", FULL)
    assert fake.cleared == ["TF32"]
    fake = play()
    build_engine(write_small_onnx(tmp_path / "h.onnx", precision="fp16"), tmp_path / "h.engine", FULL)
    assert fake.cleared == []


def test_every_option_reaches_the_library(play, tmp_path):
    fake = play(builder_flags=("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"))
    settings = replace(
        FULL,
        batch=(1, 2, 4),
        workspace_gb=1.5,
        optimization_level=5,
        version_compatible=True,
        hardware_compatible="ampere_plus",
    )
    sidecar = build_engine(write_small_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", settings)
    assert fake.attributes["WORKSPACE"] == 3 << 29
    assert fake.attributes["builder_optimization_level"] == 5
    assert fake.attributes["hardware_compatibility_level"].name == "AMPERE_PLUS"
    # A plan with a lean runtime inside would be code to load.
    assert fake.flags == ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"]
    assert fake.shapes == ("image", (1, 32, 48, 3), (2, 32, 48, 3), (4, 32, 48, 3))
    assert sidecar.engine.compatibility == ("version", "hardware:ampere_plus")
    assert sidecar.engine.settings == {"workspace_gb": 1.5, "optimization_level": 5}


def test_an_engine_of_a_gpu_names_that_gpu(play, tmp_path):
    play()
    build_engine(write_small_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", FULL)
    engine = read_sidecar(tmp_path / "m.engine").engine
    assert (engine.gpu, engine.compute_capability, engine.targets) == ("NVIDIA A10", (8, 6), ())
    assert (engine.driver_version, engine.cuda_version) == ("580.95.05", "13.0")
    assert engine.layer_precisions == {"fp16": 1.0}


def test_the_finished_engine_decides_whether_it_is_half(play, tmp_path):
    play(layers='{"Layers": [{"Name": "conv", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]}]}', **OLD)
    onnx = write_small_onnx(tmp_path / "m.onnx")
    with pytest.raises(CheckFailed, match="only 0% of the layers"):
        build_engine(onnx, tmp_path / "m.engine", replace(FULL, precision="fp16"))
    assert not (tmp_path / "m.engine").exists()


def test_a_build_that_returns_nothing_becomes_its_log_in_one_sentence(play, tmp_path):
    play(plan=None)
    with pytest.raises(EnvironmentFault, match=r"could not build an engine .*: out of memory on the GPU; if memory"):
        build_engine(write_small_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", FULL)


def test_the_timing_cache_starts_empty_and_is_kept(play, tmp_path):
    fake = play()
    onnx, cache = write_small_onnx(tmp_path / "m.onnx"), tmp_path / "timing.cache"
    settings = replace(FULL, timing_cache=cache)
    build_engine(onnx, tmp_path / "m.engine", settings)
    build_engine(onnx, tmp_path / "m.engine", settings)
    assert fake.timing_caches == [b"", b" measured"]
    assert cache.read_bytes() == b" measured measured"
    assert read_sidecar(tmp_path / "m.engine").engine.settings["timing_cache"] == "timing.cache"


def test_a_damaged_timing_cache_is_named(play, tmp_path):
    play()
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match=r"timing\.cache: is no timing cache of this GPU and .*delete"):
        build_engine(write_small_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", replace(FULL, timing_cache=cache))


def test_a_builder_that_cannot_start_is_named(play, tmp_path):
    fake = play()

    def refuse(logger):
        logger.log(type("Severity", (), {"name": "ERROR"}), "CUDA initialization failure with error: 35")
        raise TypeError("factory function returned nullptr")

    fake.library.module.Builder = refuse
    with pytest.raises(EnvironmentFault, match=r"cannot create a builder \(CUDA initialization failure.*nvidia-smi"):
        build_engine(write_small_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", FULL)
