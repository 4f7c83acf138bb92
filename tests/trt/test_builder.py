"""Engines are built for real by TensorRT-RTX, which needs no GPU; what needs one is refused or told by a stand-in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import onnx as onnx_package
import pytest

from etnet.errors import CheckFailed, EnvironmentFault, ModelFileError, UsageError
from etnet.sidecar import file_sha256, read_sidecar, sidecar_path, write_sidecar
from etnet.trt import builder
from etnet.trt.builder import build_engine, prepare_build
from etnet.trt.driver import Driver
from etnet.trt.progress import SilentObserver, make_logger
from etnet.trt.settings import BuildSettings
from helpers.onnx_graphs import describe, write_small_onnx

RTX = BuildSettings("tensorrt-rtx")
NO_GPU = Driver(problem="no NVIDIA driver")


class Recorder(SilentObserver):
    def __init__(self):
        self.phases: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.threads: set[str] = set()

    def phase_started(self, name, parent, steps):
        assert steps >= 0
        self.phases.append((name, parent))
        self.open.append(name)
        self.threads.add(threading.current_thread().name)

    def phase_finished(self, name):
        self.open.remove(name)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_precision_is_built_and_described(tmp_path, precision, rtx):
    onnx = write_small_onnx(tmp_path / "model.onnx", precision=precision)
    output = tmp_path / "out" / "model.engine"
    sidecar = build_engine(onnx, output, replace(RTX, precision=precision))
    assert read_sidecar(output) == sidecar
    assert output.stat().st_size == sidecar.file_bytes
    assert sidecar.precision == precision
    assert sidecar.engine is not None
    assert (sidecar.engine.library, sidecar.engine.library_version) == ("tensorrt-rtx", rtx.version)
    assert sidecar.engine.onnx_sha256 == file_sha256(onnx)
    assert sidecar.engine.gpu is None
    assert "sm75" not in sidecar.engine.targets
    assert {"sm86", "sm89"} <= set(sidecar.engine.targets)
    assert sidecar.engine.layer_precisions[precision] >= {"fp32": 1.0, "fp16": 0.8, "int8": 0.35}[precision]
    assert {path.name for path in output.parent.iterdir()} == {"model.engine", "model.engine.json"}


@pytest.mark.usefixtures("rtx")
def test_half_precision_makes_the_plan_smaller(tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16"):
        onnx = write_small_onnx(tmp_path / f"{precision}.onnx", precision=precision, layers=100)
        sizes[precision] = build_engine(onnx, tmp_path / f"{precision}.engine", RTX).file_bytes
    weights = 100 * 16 * 16 * 9 * 4
    assert sizes["fp32"] - sizes["fp16"] > weights / 3


@pytest.mark.usefixtures("rtx")
def test_batches_and_free_sizes_are_ranges_in_the_engine(tmp_path):
    onnx = write_small_onnx(tmp_path / "model.onnx", size=None)
    profile = ((32, 32), (64, 64), (64, 128))
    sidecar = build_engine(onnx, tmp_path / "model.engine", replace(RTX, batch=(1, 2, 4), size_profile=profile))
    assert sidecar.input.batch == (1, 2, 4)
    assert sidecar.input.size_profile == profile
    assert (sidecar.input.height, sidecar.input.width) == (None, None)


@pytest.mark.usefixtures("rtx")
def test_the_library_hears_of_shapes_that_the_graph_cannot_take(tmp_path, monkeypatch):
    onnx = write_small_onnx(tmp_path / "model.onnx")
    prepared = prepare_build(onnx, tmp_path / "model.engine", RTX)
    wrong = replace(prepared, input=replace(prepared.input, height=64))
    with pytest.raises(EnvironmentFault, match=r"64, 48, 3|could not build"):
        builder.run_build(wrong)
    assert not (tmp_path / "model.engine").exists()


@pytest.mark.usefixtures("rtx")
def test_targets_are_kept(tmp_path):
    onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
    sidecar = build_engine(onnx, tmp_path / "model.engine", replace(RTX, targets=("sm75",)))
    assert sidecar.engine is not None
    assert sidecar.engine.targets == ("sm75",)
    with pytest.raises(UsageError, match="does not build for sm90"):
        build_engine(onnx, tmp_path / "other.engine", replace(RTX, targets=("sm90",)))


@pytest.mark.usefixtures("rtx")
def test_progress_is_told_and_every_phase_ends(tmp_path):
    recorder = Recorder()
    build_engine(write_small_onnx(tmp_path / "model.onnx", layers=1), tmp_path / "model.engine", RTX, recorder)
    assert recorder.phases[0] == ("Building engine", None)
    assert len(recorder.phases) > 5
    assert {parent for _, parent in recorder.phases[1:]} <= {name for name, _ in recorder.phases}
    assert recorder.open == []


@pytest.mark.usefixtures("rtx")
def test_an_observer_that_fails_stops_the_build_with_its_own_error(tmp_path):
    class Broken(Recorder):
        def step_done(self, name, step):
            raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError, match="the terminal is gone"):
        build_engine(write_small_onnx(tmp_path / "model.onnx"), tmp_path / "model.engine", RTX, Broken())
    assert not (tmp_path / "model.engine").exists()


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_stops_the_build_and_leaves_nothing(tmp_path):
    class Interrupting(Recorder):
        steps = 0

        def step_done(self, name, step):
            self.steps += 1
            if self.steps == 1:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)  # the main thread looks every 0.1 s

    observer = Interrupting()
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_engine(write_small_onnx(tmp_path / "model.onnx"), tmp_path / "model.engine", RTX, observer)
    assert observer.steps == 1
    assert signal.getsignal(signal.SIGINT) is former
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.json"}


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_while_the_graph_is_parsed_is_not_swallowed(tmp_path, monkeypatch):
    presses = [signal.SIGINT]

    def interrupting(library, state):
        logger = make_logger(library, state)
        log = type(logger).log

        def interrupted(self, severity, message):
            if presses:
                # The handler runs inside this callback, whose exceptions the bindings drop.
                os.kill(os.getpid(), presses.pop())
            log(self, severity, message)

        type(logger).log = interrupted
        return logger

    monkeypatch.setattr("etnet.trt.network.make_logger", interrupting)
    observer = Recorder()
    with pytest.raises(KeyboardInterrupt):
        build_engine(write_small_onnx(tmp_path / "model.onnx"), tmp_path / "model.engine", RTX, observer)
    assert presses == []
    assert observer.phases == []
    assert not (tmp_path / "model.engine").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from etnet.trt.builder import build_engine
from etnet.trt.progress import SilentObserver, make_logger
from etnet.trt.settings import BuildSettings
from etnet import output

class Killing(SilentObserver):
    def step_done(self, name, step):
        if sys.argv[2] == "building":
            os.kill(os.getpid(), signal.SIGKILL)

replace = Path.replace
def killing_replace(self, target):
    if sys.argv[2] == "writing" and target.name == "model.engine":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killing_replace
folder = Path(sys.argv[1])
build_engine(folder / "model.onnx", folder / "model.engine", BuildSettings("tensorrt-rtx"), Killing())
"""


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("moment", ["building", "writing"])
def test_kill_leaves_nothing_under_the_final_name(tmp_path, moment):
    write_small_onnx(tmp_path / "model.onnx", layers=1)
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "model.engine").exists()


@pytest.mark.usefixtures("rtx")
def test_a_failed_build_leaves_the_former_engine(tmp_path, monkeypatch):
    onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
    output = tmp_path / "model.engine"
    first = build_engine(onnx, output, RTX)

    def full(_path, _content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(EnvironmentFault, match=r"could not be written \(No space left on device\)"):
        build_engine(onnx, output, replace(RTX, batch=(1, 1, 2)))
    monkeypatch.undo()
    assert read_sidecar(output) == first
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("rtx")
def test_too_little_disk_space_is_noticed_before_the_build(tmp_path, monkeypatch):
    onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(EnvironmentFault, match=r"has 1 MB free where the engine needs about 67 MB.*--output"):
        prepare_build(onnx, tmp_path / "model.engine", RTX)


@pytest.mark.usefixtures("rtx")
def test_another_precision_than_that_of_the_graph_is_refused_with_the_export(tmp_path):
    onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
    with pytest.raises(ModelFileError, match=r"its network is fp32 and fp16 was asked for.*--fp16$"):
        prepare_build(onnx, tmp_path / "model.engine", replace(RTX, precision="fp16"))
    with pytest.raises(ModelFileError, match=r"--int8 --calibration IMAGES --int8-for tensorrt$"):
        prepare_build(onnx, tmp_path / "model.engine", replace(RTX, precision="int8"))


@pytest.mark.usefixtures("rtx")
def test_fp16_in_name_only_fails_the_check(tmp_path):
    # Two convolutions among the float32 layers around them: less than four fifths are half.
    onnx = write_small_onnx(tmp_path / "model.onnx", precision="fp16", layers=1)
    with pytest.raises(CheckFailed, match=r"only \d+% of the layers would run in it \(at least 80% expected\)"):
        build_engine(onnx, tmp_path / "model.engine", RTX)
    assert not (tmp_path / "model.engine").exists()
    assert not sidecar_path(tmp_path / "model.engine").exists()


@pytest.mark.usefixtures("rtx")
def test_a_graph_that_the_library_does_not_understand_is_named(tmp_path):
    path = write_small_onnx(tmp_path / "model.onnx", layers=1)
    model = onnx_package.load(path)
    model.graph.node[3].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"cannot build an engine from it \(.*etnet export RUN"):
        builder.run_build(prepared_again(path))


def prepared_again(path):
    """A prepared build of a file whose graph was changed and whose sidecar was written anew."""
    description = describe("fp32", (32, 48), 2)
    write_sidecar(path, replace(description, file_sha256=file_sha256(path), file_bytes=path.stat().st_size))
    return prepare_build(path, path.with_suffix(".engine"), RTX)


@pytest.mark.usefixtures("rtx")
def test_a_description_of_other_outputs_is_refused(tmp_path):
    onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
    prepared = prepare_build(onnx, tmp_path / "model.engine", RTX)
    for sidecar in (
        replace(prepared.sidecar, outputs=("labels", "probabilities")),
        replace(prepared.sidecar, input=replace(prepared.sidecar.input, height=64)),
    ):
        with pytest.raises(ModelFileError, match="where its description says"):
            builder.run_build(replace(prepared, sidecar=sidecar))


def test_full_tensorrt_without_a_gpu_says_why_and_names_the_way_out(tmp_path, monkeypatch, full_tensorrt):
    onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
    with pytest.raises(EnvironmentFault) as caught:
        prepare_build(onnx, tmp_path / "model.engine", BuildSettings("tensorrt"), driver=NO_GPU)
    assert "measures kernels on the GPU" in str(caught.value)
    assert NO_GPU.problem in str(caught.value)
    assert str(caught.value).endswith(f"etnet build-engine {onnx} --backend tensorrt-rtx")
