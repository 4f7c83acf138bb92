"""An engine file before it is loaded: its sidecar, whether it can run on this machine, and the command that mends it.

Loading an engine is running code. The checks here read the sidecar and the bytes only.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.sidecar import EngineSpec, Sidecar, read_sidecar, sidecar_path
from etnet.trt.driver import Driver, Gpu, ask_driver
from etnet.trt.library import TITLES, Library, find_runtimes


@dataclass(frozen=True)
class Obstacle:
    """Why an engine cannot run here.

    Attributes:
        problem: What is wrong, with what was found and expected.
        remedy: What to do, with the command.
    """

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Placement:
    """Where an engine can run.

    Attributes:
        library: The runtime.
        gpu: The GPU.
    """

    library: Library
    gpu: Gpu


def read_plan(path: Path) -> Sidecar:
    """The description of an engine file, whose bytes are checked against it.

    Raises:
        ModelFileError: The file is missing, has no sidecar, was changed, or is no engine.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such engine; build one with: etnet build-engine MODEL --output {path}")
    try:
        sidecar = read_sidecar(path)
    except ModelFileError as error:
        raise ModelFileError(f"{error}: etnet build-engine MODEL --output {path} --overwrite") from None
    if sidecar is None:
        raise ModelFileError(
            f"{path}: has no sidecar {sidecar_path(path).name}, so its classes, its image preparation and the GPU it "
            f"was built for are unknown; copy that file beside it, or build the engine again with: etnet build-engine "
            f"MODEL --output {path} --overwrite"
        )
    if sidecar.engine is None:
        raise ModelFileError(
            f"{path}: its sidecar describes an ONNX file; build an engine from that with: etnet "
            f"build-engine MODEL --output {path} --overwrite"
        )
    return sidecar


def place(path: Path, sidecar: Sidecar, *, device: int = 0, driver: Driver | None = None) -> Placement:
    """The runtime and GPU for an engine.

    Raises:
        EnvironmentFault: It cannot run here; the sentence has the command that mends it.
    """
    found = examine(path, sidecar, device=device, driver=driver)
    if isinstance(found, Obstacle):
        raise EnvironmentFault(f"{path}: {found}")
    return found


def examine(path: Path, sidecar: Sidecar, *, device: int = 0, driver: Driver | None = None) -> Placement | Obstacle:
    """Where an engine can run on this machine, or the first thing that stands in its way."""
    engine = sidecar.engine
    if engine is None:
        raise ValueError("only an engine is placed on a GPU")
    driver = driver or ask_driver()
    if device >= len(driver.gpus):
        problem = driver.problem or f"number {device} was asked for, there are {len(driver.gpus)}"
        onnx = shlex.quote(str(path.with_name(engine.onnx)))
        return Obstacle(
            f"an engine needs an NVIDIA GPU, and none can be used here: {problem}",
            f"run the ONNX file here instead with: etnet infer IMAGES --model {onnx}",
        )
    gpu = driver.gpus[device]
    return _wrong_gpu(path, sidecar, engine, gpu) or _library(path, sidecar, engine, gpu)


def _wrong_gpu(path: Path, sidecar: Sidecar, engine: EngineSpec, gpu: Gpu) -> Obstacle | None:
    again = f"build it again here with: {rebuild_command(path, sidecar)}"
    if engine.targets:
        if gpu.target in engine.targets:
            return None
        problem = f"was built for compute capabilities {', '.join(engine.targets)}, this {gpu.name} is {gpu.target}"
        if _can_target(engine, gpu):
            return Obstacle(problem, f"build it for this GPU with: {rebuild_command(path, sidecar, target=gpu.target)}")
        other = rebuild_command(path, sidecar, library="tensorrt")
        return Obstacle(f"{problem}, for which {TITLES[engine.library]} does not build", f"build it with: {other}")
    same_capability = engine.compute_capability == gpu.compute_capability
    if "hardware:ampere_plus" in engine.compatibility and gpu.compute_capability >= (8, 0):
        return None
    if same_capability and (engine.gpu == gpu.name or "hardware:same_compute_capability" in engine.compatibility):
        return None
    return Obstacle(f"was built on {engine.gpu}, this machine has {gpu.name} ({gpu.target})", again)


def _can_target(engine: EngineSpec, gpu: Gpu) -> bool:
    """Whether the library can build for a GPU; it is believed to where it is not installed."""
    try:
        known = [target for library in find_runtimes(engine.library) for target in library.targets]
    except EnvironmentFault:
        return True
    return not known or gpu.target in known


def _library(path: Path, sidecar: Sidecar, engine: EngineSpec, gpu: Gpu) -> Placement | Obstacle:
    try:
        runtimes = find_runtimes(engine.library)
    except EnvironmentFault as error:
        return Obstacle(str(error), "then try again")
    portable = "version" in engine.compatibility
    for library in runtimes:
        same = library.version == engine.library_version
        if (same and (portable or not library.lean)) or (portable and _not_older(library.version, engine)):
            return Placement(library, gpu)
    built_with = f"was built with {TITLES[engine.library]} {engine.library_version}"
    if not runtimes:
        return Obstacle(f"{built_with}, which is not installed here", f"install it with: {install_command(engine)}")
    installed = " and ".join(library.title for library in runtimes)
    again = rebuild_command(path, sidecar)
    return Obstacle(
        f"{built_with}, here is {installed}",
        f"build it again with: {again} (or install that version with: {install_command(engine)})",
    )


def _not_older(version: str, engine: EngineSpec) -> bool:
    """Whether a version-compatible plan may run: on the same or a later major and minor version."""
    return _release(version) >= _release(engine.library_version)


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> _release("10.13.2.6")
    (10, 13)
    """
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def rebuild_command(output: Path, sidecar: Sidecar, *, library: str | None = None, target: str | None = None) -> str:
    """The command line that builds this engine again, for this machine unless another target is named."""
    engine = sidecar.engine
    if engine is None:
        raise ValueError("only an engine can be built again")
    words = ["etnet", "build-engine", str(output.with_name(engine.onnx)), f"--{sidecar.precision}"]
    words += ["--backend", library or engine.library, "--batch", ",".join(map(str, sidecar.input.batch))]
    if sidecar.input.size_profile is not None:
        words += ["--size-profile", ",".join(f"{height}x{width}" for height, width in sidecar.input.size_profile)]
    if target is not None:
        words += ["--target", target]
    for flag in engine.compatibility:
        option, _, value = flag.partition(":")
        words += [f"--{option}-compatible", *([value] if value else [])]
    return shlex.join([*words, "--output", str(output), "--overwrite"])


def install_command(engine: EngineSpec) -> str:
    """The command line that installs the library version that built an engine."""
    if engine.library == "tensorrt":
        return f"pip install tensorrt=={engine.library_version}"
    version = engine.library_version
    return f"pip install --no-deps tensorrt-rtx-cu13-libs=={version} tensorrt-rtx-cu13-bindings=={version}"
