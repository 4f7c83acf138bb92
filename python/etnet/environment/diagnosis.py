"""What `etnet doctor` reports: everything found on this machine, what follows from it, and what mends it."""

from __future__ import annotations

import dataclasses
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import etnet
from etnet import native
from etnet.environment.hardware import Machine, ResultsFolder, machine, results_folder
from etnet.environment.imports import TIMEOUT_SECONDS, ImportOutcome, try_imports
from etnet.environment.packages import (
    BASE,
    OTHER,
    Package,
    install_command,
    is_findable,
    judge,
    repair_command,
    wanted_packages,
)

_NATIVE, _DRIVER = "etnet.native", "etnet.environment.cuda_driver"

_BACKEND_PACKAGES = {
    "torch": (("torch",), ("timm",), ("safetensors",)),
    "tensorrt": (("tensorrt", "tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "tensorrt-lean"),),
}
"""For each back-end the packages it needs, alternatives in one tuple; any other needs the package of its own name."""


@dataclass(frozen=True)
class NativeModule:
    """The compiled module with the fast kernels.

    Attributes:
        usable: Whether it is loaded and of the interface that the Python code expects.
        reason: Why it is not usable, or "".
        interface: Interface that the Python code expects.
        path: The module's file, or None.
        compiler: Version of the C++ compiler, or "".
        cuda: Version of nvcc, or "" for a build without CUDA kernels.
        cuda_targets: Compute capabilities that the kernels were compiled for, as in "80 90 120"; the last also as PTX.
    """

    usable: bool
    reason: str
    interface: int
    path: str | None = None
    compiler: str = ""
    cuda: str = ""
    cuda_targets: str = ""


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as the driver shows it.

    Attributes:
        name: Its product name.
        compute_capability: Such as "9.0".
        memory_bytes: Its whole memory.
        native_kernels: Whether the native module's CUDA kernels run on it.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    native_kernels: bool


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        reason: Why no GPU can be used, or "".
        version: Version of the driver, or None.
        cuda: Newest CUDA version that it runs, or None.
        gpus: The GPUs it shows (`CUDA_VISIBLE_DEVICES` hides others).
    """

    reason: str
    version: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Ability:
    """Whether something can be done on this machine.

    Attributes:
        name: "train", or the name of a back-end.
        possible: Whether it can.
        note: The device it would use, or why it cannot be done.
    """

    name: str
    possible: bool
    note: str


@dataclass(frozen=True)
class Finding:
    """Something to mend or to know, with what to do.

    Attributes:
        what: The finding.
        remedy: A command line, or an instruction in words; "" where there is none.
    """

    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """All that was found; `faults` is empty when what is installed works.

    Attributes:
        etnet_version: Version of this package.
        etnet_path: Folder that it was imported from.
        python: Version of Python.
        executable: The Python program.
        machine: Processor and memory.
        results: The folder that commands write into by default.
        native_module: The compiled module.
        driver: NVIDIA driver and GPUs.
        packages: Packages by the group that installs them.
        training: Whether `etnet train` can run.
        backends: The back-ends of this version, each with whether it can run.
        faults: What is installed but does not work.
        hints: What could be added or made faster.
    """

    etnet_version: str
    etnet_path: str
    python: str
    executable: str
    machine: Machine
    results: ResultsFolder
    native_module: NativeModule
    driver: Driver
    packages: tuple[Package, ...]
    training: Ability
    backends: tuple[Ability, ...]
    faults: tuple[Finding, ...]
    hints: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, for JSON."""
        return dataclasses.asdict(self)


def diagnose(results: Path, *, timeout: float = TIMEOUT_SECONDS) -> Diagnosis:
    """Look at this machine; takes as long as importing torch does.

    Args:
        results: Folder that commands write into by default.
        timeout: Seconds after which a package that does not finish importing is given up.
    """
    wanted = wanted_packages()
    modules = [item.module for item in wanted if is_findable(item.module)]
    outcomes = try_imports([_NATIVE, _DRIVER, *modules], timeout=timeout)
    native_module = _native_module(outcomes[_NATIVE])
    driver = _driver(outcomes[_DRIVER], native_module)
    packages = tuple(judge(item, outcomes, has_gpu=bool(driver.gpus)) for item in wanted)
    torch = outcomes.get("torch", ImportOutcome("not installed")).details
    folder = results_folder(results)
    return Diagnosis(
        etnet_version=etnet.__version__,
        etnet_path=str(Path(etnet.__file__).parent),
        python=platform.python_version(),
        executable=sys.executable,
        machine=machine(),
        results=folder,
        native_module=native_module,
        driver=driver,
        packages=packages,
        training=_training(packages, torch),
        backends=tuple(_backend(name, packages, torch, driver) for name in backend_names()),
        faults=tuple(_faults(packages, native_module, folder)),
        hints=tuple(_hints(packages, native_module, driver, torch)),
    )


def backend_names() -> list[str]:
    """Names of the back-ends that this version of etnet has, found by their files, none of them imported."""
    files = (Path(etnet.__file__).parent / "inference" / "backends").glob("*_backend.py")
    return sorted(path.stem.removesuffix("_backend") for path in files)


def runs_on(targets: str, compute_capability: str) -> bool:
    """Whether CUDA kernels compiled for `targets` run on a GPU: machine code within a generation, PTX upwards.

    >>> runs_on("80 90 120", "8.6"), runs_on("80 90 120", "7.5"), runs_on("80 90 120", "12.1")
    (True, False, True)
    """
    major, minor = (int(part) for part in compute_capability.split("."))
    compiled = [(int(number) // 10, int(number) % 10) for number in re.findall(r"\d+", targets)]
    if not compiled:
        return False
    return (major, minor) >= compiled[-1] or any(major == has and minor >= least for has, least in compiled)


def _native_module(outcome: ImportOutcome) -> NativeModule:
    details = outcome.details
    if outcome.error is not None or not details.get("loaded"):
        reason = details.get("reason") or f"the native module cannot be loaded ({outcome.error})"
        return NativeModule(usable=False, reason=reason, interface=native.INTERFACE)
    build = details["build"]
    return NativeModule(
        usable=True,
        reason="",
        interface=native.INTERFACE,
        path=details["path"],
        compiler=build.get("compiler", ""),
        cuda=build.get("cuda", ""),
        cuda_targets=build.get("cuda_architectures", ""),
    )


def _driver(outcome: ImportOutcome, native_module: NativeModule) -> Driver:
    if outcome.error is not None:
        return Driver(outcome.error, None, None, ())
    found = outcome.details
    gpus = [
        Gpu(**gpu, native_kernels=runs_on(native_module.cuda_targets, gpu["compute_capability"]))
        for gpu in found["gpus"]
    ]
    return Driver(found["reason"], found["driver"], found["cuda"], tuple(gpus))


def _training(packages: Sequence[Package], torch: Mapping[str, Any]) -> Ability:
    lacking = [package for package in packages if package.group in (BASE, "train") and package.state != "ok"]
    if lacking:
        return Ability("train", False, _lacking(lacking))
    return Ability("train", True, _torch_device(torch))


def _backend(name: str, packages: Sequence[Package], torch: Mapping[str, Any], driver: Driver) -> Ability:
    by_name = {package.name: package for package in packages}
    lacking = []
    for alternatives in _BACKEND_PACKAGES.get(name, ((name,),)):
        found = [by_name[item] for item in alternatives if item in by_name]
        if not any(package.state == "ok" for package in found):
            # The one that is nearest to working says most.
            lacking.append(min(found, key=lambda package: package.state == "missing"))
    if lacking:
        return Ability(name, False, _lacking(lacking))
    if name == "tensorrt":
        return Ability(name, bool(driver.gpus), driver.gpus[0].name if driver.gpus else driver.reason)
    return Ability(name, True, _torch_device(torch) if name == "torch" else "CPU")


def _lacking(packages: Sequence[Package]) -> str:
    return ", ".join(f"{package.name} is {package.state}" for package in packages)


def _torch_device(torch: Mapping[str, Any]) -> str:
    gpus = torch.get("gpus", [])
    return f"GPU ({gpus[0]})" if gpus else "CPU"


def _faults(packages: Sequence[Package], native_module: NativeModule, folder: ResultsFolder) -> list[Finding]:
    faults = []
    if not native_module.usable:
        faults.append(Finding(native_module.reason, native.REBUILD))
    for package in packages:
        if package.group == BASE and package.state == "missing":
            faults.append(Finding(f"{package.name} is missing, though every command needs it", install_command(BASE)))
        elif package.state in ("broken", "too old") and package.group != OTHER:
            faults.append(Finding(_trouble(package), repair_command(package)))
    if not folder.writable:
        faults.append(Finding(f"{folder.path} cannot be written", "work in another folder, or name one with --output"))
    return faults


def _hints(
    packages: Sequence[Package], native_module: NativeModule, driver: Driver, torch: Mapping[str, Any]
) -> list[Finding]:
    hints = []
    for group in dict.fromkeys(package.group for package in packages if package.group not in (BASE, OTHER)):
        missing = [package.name for package in packages if package.group == group and package.state == "missing"]
        if missing:
            hints.append(Finding(f"{group}: {', '.join(missing)} not installed", install_command(group)))
    hints += [
        Finding(_trouble(package), repair_command(package))
        for package in packages
        if package.group == OTHER and package.state == "broken"
    ]
    return hints + _gpu_hints(native_module, driver, torch)


def _gpu_hints(native_module: NativeModule, driver: Driver, torch: Mapping[str, Any]) -> list[Finding]:
    if not driver.gpus:
        return []
    hints, gpu = [], driver.gpus[0]
    if torch and not torch["gpus"]:
        build = torch["cuda_build"]
        why = f"is built for CUDA {build}, the driver runs up to {driver.cuda}" if build else "is built without CUDA"
        hints.append(
            Finding(f"torch does not see the {gpu.name}: it {why}", "choose a build at https://pytorch.org/get-started")
        )
    if native_module.usable and not gpu.native_kernels:
        built = f"for compute capabilities {native_module.cuda_targets}" if native_module.cuda else "without CUDA"
        remedy = "PyTorch code runs instead; to change that, build etnet from source with nvcc"
        hints.append(Finding(f"the native module is built {built}: no kernels for the {gpu.name}", remedy))
    return hints


def _trouble(package: Package) -> str:
    version = f" {package.version}" if package.version else ""
    return f"{package.name}{version} is {package.state} ({package.reason})"
