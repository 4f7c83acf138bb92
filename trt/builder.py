"""Builds an engine from an exported ONNX file: one way for TensorRT 8.6, 10 and 11 and for TensorRT-RTX.

The precision is that of the ONNX file, which is strongly typed wherever the library knows that. The plan is plain, so
that `trtexec` loads it; what etnet needs to know lies in `model.engine.json` beside it.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from etnet import __version__
from etnet.errors import CheckFailed, EnvironmentFault, ModelFileError
from etnet.onnx_sidecar import describe_onnx
from etnet.output import disk_faults, replacing
from etnet.sidecar import EngineSpec, InputSpec, NetworkPrecision, Sidecar, file_sha256, write_sidecar
from etnet.trt import precision as layer_precision
from etnet.trt.driver import Driver, Gpu, ask_driver
from etnet.trt.library import TITLES, Library, find_builder
from etnet.trt.network import Definition, configure, parse_network
from etnet.trt.progress import BuildObserver, BuildState, SilentObserver
from etnet.trt.settings import MINIMUM_HALF_SHARE, BuildSettings, check_settings, resolve_input
from etnet.trt.timing import attach_timing_cache, save_timing_cache

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class PreparedBuild:
    """Everything decided before the builder starts; `etnet build-engine --dry-run` shows it.

    Attributes:
        onnx: The ONNX file.
        output: Where the plan goes.
        settings: What was asked for.
        sidecar: The description of the ONNX file.
        precision: Precision of the network.
        input: What the engine will take.
        library: The library that builds.
        targets: Compute capabilities it will run on; empty where it is built for `gpu`.
        gpu: The GPU that it is built on; None for a build without one.
        driver: What the driver says.
    """

    onnx: Path
    output: Path
    settings: BuildSettings
    sidecar: Sidecar
    precision: NetworkPrecision
    input: InputSpec
    library: Library
    targets: tuple[str, ...]
    gpu: Gpu | None
    driver: Driver


def build_engine(onnx: Path, output: Path, settings: BuildSettings, progress: BuildObserver | None = None) -> Sidecar:
    """Build an engine and write it with its sidecar, both or none.

    Args:
        onnx: ONNX file exported by etnet.
        output: Path of the plan file.
        settings: What is asked for.
        progress: Receives the progress.

    Returns:
        The sidecar that was written.

    Raises:
        UsageError: The settings do not fit the library or the model.
        ModelFileError: The ONNX file is damaged, not etnet's, or the library does not understand it.
        EnvironmentFault: The library, a GPU or disk space is missing, or the build failed.
        CheckFailed: fp16 was asked for, and most layers run in another precision.
        KeyboardInterrupt: Ctrl-C; the build was stopped and nothing was written.
    """
    return run_build(prepare_build(onnx, output, settings), progress)


def prepare_build(
    onnx: Path,
    output: Path,
    settings: BuildSettings,
    *,
    model: Path | None = None,
    sidecar: Sidecar | None = None,
    driver: Driver | None = None,
) -> PreparedBuild:
    """Decide everything and refuse what cannot work, before anything takes time; see `build_engine` for the errors.

    Args:
        onnx: ONNX file exported by etnet.
        output: Path of the plan file.
        settings: What is asked for.
        model: What errors name in a command line; by default `onnx`.
        sidecar: Description of an ONNX file that is still to be exported; by default that of `onnx`.
        driver: What the driver says; by default it is asked.
    """
    driver = driver or ask_driver()
    if settings.library == "tensorrt" and not driver.gpus:
        raise EnvironmentFault(
            f"{TITLES[settings.library]} measures kernels on the GPU that the engine will run on, and none can be used "
            f"here: {driver.problem}; build on that machine, or ahead of time for GPUs of other machines with: "
            f"{_command(model or onnx, settings)} --backend tensorrt-rtx"
        )
    library = find_builder(settings.library)
    check_settings(settings, library)
    sidecar = sidecar or describe_onnx(onnx)
    precision = _check_precision(settings, sidecar, library, onnx)
    spec = resolve_input(settings, sidecar, onnx)
    _check_disk(output, (onnx.stat().st_size if onnx.is_file() else 0) + _SPARE_BYTES)
    # Without a choice TensorRT-RTX builds for Ampere and newer; Turing needs an engine of its own.
    targets = settings.targets or tuple(name for name in library.targets if int(name[2:]) >= 80)
    gpu = None if library.builds_without_gpu else driver.gpus[0]
    return PreparedBuild(onnx, output, settings, sidecar, precision, spec, library, targets, gpu, driver)


def _command(model: Path, settings: BuildSettings) -> str:
    precision = [] if settings.precision is None else [f"--{settings.precision}"]
    return shlex.join(["etnet", "build-engine", str(model), *precision])


def run_build(prepared: PreparedBuild, progress: BuildObserver | None = None) -> Sidecar:
    """Build what was prepared; see `build_engine`."""
    with disk_faults(prepared.output.parent):
        prepared.output.parent.mkdir(parents=True, exist_ok=True)
    state = BuildState(progress or SilentObserver())
    cache_file = prepared.settings.timing_cache
    # From here on, because the library also calls back while it parses, and would swallow a KeyboardInterrupt there.
    with _stopping_on_interrupt(state):
        definition = parse_network(prepared.library, prepared.onnx, prepared.sidecar, state)
        config = configure(definition, prepared.settings, prepared.input, prepared.precision, state)
        if cache_file is not None:
            attach_timing_cache(config, cache_file, state)
        plan = _build(definition, config, state)
    if plan is None:
        raise EnvironmentFault(
            f"{prepared.library.title} could not build an engine from {prepared.onnx}: "
            f"{' / '.join(state.errors) or 'it logged no reason'}; if memory is short, choose a smaller --batch or "
            "--workspace"
        )
    if cache_file is not None:
        save_timing_cache(config, cache_file)
    precisions = _layer_precisions(definition, plan)
    _check_half(prepared, precisions)
    return _write(prepared, bytes(plan), precisions)


def _check_precision(settings: BuildSettings, sidecar: Sidecar, library: Library, onnx: Path) -> NetworkPrecision:
    wanted = settings.precision or sidecar.precision
    strongly_typed = library.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") is not None
    option = {"fp32": "", "fp16": " --fp16", "int8": " --int8 --calibration IMAGES --int8-for tensorrt"}[wanted]
    weights = shlex.quote(sidecar.source.weights)
    if sidecar.precision == "int8" and sidecar.quantized_for == "processor":
        raise ModelFileError(
            f"{onnx}: its integers are made for processors, TensorRT needs signed ones; build from the weights with: "
            f"etnet build-engine {weights} --int8 --calibration IMAGES --backend {library.name}"
        )
    if wanted == sidecar.precision or (wanted == "fp16" and sidecar.precision == "fp32" and not strongly_typed):
        return wanted
    raise ModelFileError(
        f"{onnx}: its network is {sidecar.precision} and {wanted} was asked for, which has to be in the ONNX file; "
        f"export it with: etnet export {weights}{option}"
    )


def _check_disk(output: Path, needed: int) -> None:
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    with disk_faults(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentFault(
            f"{folder}: has {free / 1e6:.0f} MB free where the engine needs about {needed / 1e6:.0f} MB; free some "
            "space there or name another place with --output"
        )


def _build(definition: Definition, config: Any, state: BuildState) -> Any | None:
    """Build on a second thread, because Python notices Ctrl-C only on a main thread that is not inside the library."""
    result: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            result.append(definition.builder.build_serialized_network(definition.network, config))
        except BaseException as error:
            failure.append(error)

    worker = threading.Thread(target=work, name="etnet engine build", daemon=True)
    if not state.stop.is_set():
        worker.start()
    while worker.is_alive():
        # With a limit, because a wait without one does not let signal handlers run.
        worker.join(timeout=0.1)
    if state.failure is not None:
        raise state.failure
    if state.stop.is_set():
        raise KeyboardInterrupt
    if failure:
        raise EnvironmentFault(f"{definition.library.title} failed while it built ({failure[0]})") from failure[0]
    return result[0]


@contextmanager
def _stopping_on_interrupt(state: BuildState) -> Iterator[None]:
    """The first Ctrl-C asks the build to stop at its next step; a second one ends the process at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        state.stop.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _layer_precisions(definition: Definition, plan: Any) -> dict[str, float]:
    """What the finished engine says where there is a GPU to load it on; else what the strongly typed network says."""
    library = definition.library
    if not library.builds_without_gpu:
        engine = library.module.Runtime(definition.logger).deserialize_cuda_engine(plan)
        inspector = engine.create_engine_inspector()
        found = layer_precision.of_engine(inspector.get_engine_information(library.module.LayerInformationFormat.JSON))
        if found:
            return found
    return layer_precision.of_network(definition.network) if definition.strongly_typed else {}


def _check_half(prepared: PreparedBuild, precisions: dict[str, float]) -> None:
    if prepared.precision != "fp16" or not precisions:
        return
    half = precisions.get("fp16", 0.0)
    if half < MINIMUM_HALF_SHARE:
        raise CheckFailed(
            f"{prepared.onnx}: fp16 was asked for, but only {half:.0%} of the layers would run in it (at least "
            f"{MINIMUM_HALF_SHARE:.0%} expected), so no engine was written; export the run again with: "
            f"etnet export {shlex.quote(prepared.sidecar.source.weights)} --fp16"
        )


def _write(prepared: PreparedBuild, plan: bytes, precisions: dict[str, float]) -> Sidecar:
    settings, library, gpu = prepared.settings, prepared.library, prepared.gpu
    compatibility: tuple[str, ...] = ("version",) if settings.version_compatible else ()
    if settings.hardware_compatible is not None:
        compatibility += (f"hardware:{settings.hardware_compatible}",)
    engine = EngineSpec(
        library=library.name,
        library_version=library.version,
        onnx_sha256=prepared.sidecar.file_sha256 or file_sha256(prepared.onnx),
        onnx=prepared.onnx.name,
        gpu=None if gpu is None else gpu.name,
        compute_capability=None if gpu is None else gpu.compute_capability,
        targets=prepared.targets,
        cuda_version=None if gpu is None else prepared.driver.cuda_version,
        driver_version=None if gpu is None else prepared.driver.version,
        compatibility=compatibility,
        layer_precisions=precisions,
        settings=settings.recorded(),
    )
    sidecar = replace(
        prepared.sidecar,
        input=prepared.input,
        precision=prepared.precision,
        versions={**prepared.sidecar.versions, "etnet": __version__, library.name: library.version},
        verification=None,
        engine=engine,
        file_sha256=sha256(plan).hexdigest(),
        file_bytes=len(plan),
    )
    _check_disk(prepared.output, len(plan) + len(sidecar.to_json()))
    with replacing(prepared.output) as partial:
        partial.write_bytes(plan)
        # Before the plan takes its name: an engine without its sidecar is never there to be found.
        write_sidecar(prepared.output, sidecar)
    return sidecar
