from __future__ import annotations

import shlex
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from etnet.cli.build_engine import command as build_command
from etnet.errors import EnvironmentFault, ModelFileError
from etnet.sidecar import EngineSpec, Sidecar, file_sha256, sidecar_path, write_sidecar
from etnet.trt.driver import Driver, Gpu
from etnet.trt.library import Library
from etnet.trt.plan import Obstacle, Placement, examine, install_command, place, read_plan, rebuild_command
from helpers.onnx_graphs import describe

PATH = Path("runs/model.engine")
A10 = Gpu(0, "NVIDIA A10", (8, 6))
RTX_3090 = Gpu(0, "NVIDIA GeForce RTX 3090", (8, 6))
H100 = Gpu(0, "NVIDIA H100", (9, 0))
FULL = EngineSpec("tensorrt", "10.13.2.6", "cd" * 32, gpu="NVIDIA A10", compute_capability=(8, 6))
RTX = EngineSpec("tensorrt-rtx", "1.7.1.116", "cd" * 32, targets=("sm80", "sm86"))


def sidecar(engine: EngineSpec) -> Sidecar:
    return replace(describe("fp16", (512, 512), 2), engine=engine)


@pytest.fixture
def installed(monkeypatch):
    def install(*libraries: tuple[str, bool], name: str = "tensorrt") -> None:
        found = [Library(name, SimpleNamespace(), version, lean) for version, lean in libraries]
        monkeypatch.setattr("etnet.trt.plan.find_runtimes", lambda wanted: found if wanted == name else [])

    install()
    return install


def found_for(engine: EngineSpec, gpu: Gpu = A10):
    return examine(PATH, sidecar(engine), driver=Driver((gpu,)))


def test_the_same_gpu_and_version_run_it(installed):
    installed(("10.13.2.6", False))
    found = found_for(FULL)
    assert isinstance(found, Placement)
    assert (found.gpu, found.library.version) == (A10, "10.13.2.6")


@pytest.mark.parametrize("gpu", [RTX_3090, H100])
def test_another_gpu_gets_the_command_that_builds_for_it(installed, gpu):
    installed(("10.13.2.6", False))
    found = found_for(FULL, gpu)
    assert isinstance(found, Obstacle)
    assert "was built on NVIDIA A10, this machine has" in found.problem
    assert found.remedy.endswith(rebuild_command(PATH, sidecar(FULL)))


def test_hardware_compatibility_opens_other_gpus(installed):
    installed(("10.13.2.6", False))
    same = replace(FULL, compatibility=("hardware:same_compute_capability",))
    ampere = replace(FULL, compatibility=("hardware:ampere_plus",))
    turing = Gpu(0, "NVIDIA T4", (7, 5))
    assert isinstance(found_for(same, RTX_3090), Placement)
    assert isinstance(found_for(same, H100), Obstacle)
    assert isinstance(found_for(ampere, H100), Placement)
    assert isinstance(found_for(ampere, turing), Obstacle)


def test_an_engine_built_ahead_of_time_runs_on_its_targets(installed):
    installed(("1.7.1.116", False), name="tensorrt-rtx")
    assert isinstance(found_for(RTX, RTX_3090), Placement)
    found = found_for(RTX, H100)
    assert isinstance(found, Obstacle)
    assert "compute capabilities sm80, sm86, this NVIDIA H100 is sm90" in found.problem
    assert "--target sm90" in found.remedy


def test_a_gpu_that_the_library_never_builds_for_is_sent_to_full_tensorrt(monkeypatch):
    known = SimpleNamespace(ComputeCapability=Enum("ComputeCapability", ["SM80", "SM86", "SM120"]))
    library = Library("tensorrt-rtx", known, "1.7.1.116")
    monkeypatch.setattr("etnet.trt.plan.find_runtimes", lambda name: [library])
    found = found_for(RTX, H100)
    assert isinstance(found, Obstacle)
    assert "for which TensorRT-RTX does not build" in found.problem
    assert "--backend tensorrt " in found.remedy
    assert "--target" not in found.remedy


def test_another_version_needs_a_new_build_or_that_version(installed):
    installed(("10.14.0", False))
    found = found_for(FULL)
    assert isinstance(found, Obstacle)
    assert found.problem == "was built with TensorRT 10.13.2.6, here is TensorRT 10.14.0"
    assert "etnet build-engine" in found.remedy
    assert "pip install tensorrt==10.13.2.6" in found.remedy


def test_a_version_compatible_engine_runs_on_later_versions_and_lean_runtimes(installed):
    portable = replace(FULL, compatibility=("version",))
    for version, lean, runs in (
        ("10.14.0", False, True),
        ("11.0.0", True, True),
        ("10.13.9", True, True),
        ("10.12.0", False, False),
    ):
        installed((version, lean))
        assert isinstance(found_for(portable), Placement) is runs, version
    # The lean runtime runs nothing else, not even of its own version.
    installed(("10.13.2.6", True))
    assert isinstance(found_for(FULL), Obstacle)


def test_a_library_that_is_not_installed_is_named_with_both_packages(installed):
    found = found_for(RTX)
    assert isinstance(found, Obstacle)
    assert found.remedy == f"install it with: {install_command(RTX)}"
    assert "tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116" in found.remedy


def test_without_a_gpu_the_onnx_file_is_the_way_out(installed):
    found = examine(PATH, sidecar(replace(RTX, onnx="model-fp16.onnx")), driver=Driver(problem="no NVIDIA driver"))
    assert str(found) == (
        "an engine needs an NVIDIA GPU, and none can be used here: no NVIDIA driver; run the ONNX file here "
        "instead with: etnet infer IMAGES --model runs/model-fp16.onnx"
    )
    with pytest.raises(EnvironmentFault, match=r"^runs/model.engine: an engine needs"):
        place(PATH, sidecar(RTX), driver=Driver(problem="no NVIDIA driver"))


def test_a_gpu_number_that_is_not_there_is_named(installed):
    found = examine(PATH, sidecar(FULL), device=1, driver=Driver((A10,)))
    assert isinstance(found, Obstacle)
    assert "number 1 was asked for, there are 1" in found.problem


def test_the_command_that_builds_again_is_one_that_the_command_line_takes():
    free = replace(
        sidecar(RTX), input=replace(describe("fp16", None, 2).input, size_profile=((16, 16), (64, 64), (128, 256)))
    )
    for described in (sidecar(FULL), free):
        words = shlex.split(rebuild_command(Path("my runs/model.engine"), described, target="sm86"))
        assert words[:3] == ["etnet", "build-engine", "my runs/model.onnx"]
        values = build_command.make_context("build-engine", words[2:]).params
        assert values["fp16"]
        assert values["output_file"] == Path("my runs/model.engine")
        assert values["batch"] == (1, 1, 8)
        assert values["target"] == "sm86"


def test_the_command_that_builds_again_keeps_what_the_engine_is_compatible_with():
    described = sidecar(replace(FULL, compatibility=("version", "hardware:ampere_plus")))
    words = shlex.split(rebuild_command(Path("model.engine"), described))
    values = build_command.make_context("build-engine", words[2:]).params
    assert values["version_compatible"]
    assert values["hardware_compatible"] == "ampere_plus"


@pytest.fixture
def engine_file(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(b"a plan")
    write_sidecar(path, replace(sidecar(FULL), file_sha256=file_sha256(path), file_bytes=6))
    return path


def test_an_engine_is_read_by_its_sidecar(engine_file):
    assert read_plan(engine_file).engine == FULL


def test_a_changed_byte_and_a_cut_end_are_found(engine_file):
    for content in (b"a plaN", b"a pla"):
        engine_file.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"its bytes are not those .*etnet build-engine MODEL --output"):
            read_plan(engine_file)


def test_a_missing_sidecar_and_a_missing_engine_are_told_apart(engine_file):
    sidecar_path(engine_file).rename(engine_file.with_name("elsewhere"))
    with pytest.raises(ModelFileError, match=r"has no sidecar model\.engine\.json.*copy that file beside it"):
        read_plan(engine_file)
    engine_file.unlink()
    with pytest.raises(ModelFileError, match=r"no such engine; build one with"):
        read_plan(engine_file)


def test_the_sidecar_of_an_onnx_file_is_no_engines(engine_file):
    described = replace(describe("fp32", (16, 16), 2), file_sha256=file_sha256(engine_file), file_bytes=6)
    write_sidecar(engine_file, described)
    with pytest.raises(ModelFileError, match=r"its sidecar describes an ONNX file.*build-engine MODEL --output"):
        read_plan(engine_file)
