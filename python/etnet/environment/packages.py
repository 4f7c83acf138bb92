"""The packages that etnet can use, by the extra that installs them, as the installation itself declares them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from etnet.environment.imports import ImportOutcome

State = Literal["ok", "missing", "too old", "broken", "no GPU"]

BASE, OTHER = "etnet", "other"
"""Groups that are no extra: what every installation needs, and deployment packages that no extra installs."""

HIDDEN_EXTRAS = {"dev"}
PURPOSES = {
    BASE: "needed by every command",
    "train": "etnet train, and prediction with PyTorch",
    "baselines": "networks to compare with (model.name=unet and others)",
    "tensorboard": "training curves in TensorBoard",
    "wandb": "etnet train --track wandb",
    "mlflow": "etnet train --track mlflow",
    "medical": "DICOM files, NIfTI and MetaImage volumes",
    "ray": "etnet infer --ray on several machines",
    "openvino": "exported networks on Intel and AMD processors",
    "tensorrt": "engines for the NVIDIA GPU of this machine",
    "tensorrt-rtx": "engines for NVIDIA RTX GPUs, built also without one",
    "pycuda": "engines in programs that use PyCUDA",
    OTHER: "deployment packages that this version has no extra for",
}
DEPLOYMENT = ("onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "cuda-python", "pycuda")
NEEDS_GPU = {"tensorrt", "tensorrt-rtx", "tensorrt-lean", "cuda-python", "pycuda"}
"""Packages whose import may fail for want of a driver; that says nothing about their installation."""

_MODULES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "cuda-python": "cuda.bindings.driver",
    "tensorrt-rtx-cu13-libs": "tensorrt_rtx_libs",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
    "pycuda": "pycuda.driver",
    "mlflow-skinny": "mlflow",
    "python-gdcm": "gdcm",
    "simpleitk": "SimpleITK",
}
"""Modules whose name does not follow from the package's."""

_ABSENT_TORCH = re.compile(r"ModuleNotFoundError: (?:No module named '|import of )(torch|torchvision|timm)\b")
"""The two ways in which Python says that a package which others build on is not installed."""

_ALSO_FROM = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "mlflow-skinny": ("mlflow",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino"),
    "cuda-python": ("cuda-bindings",),
}
"""Other packages that bring the same module."""


@dataclass(frozen=True)
class Package:
    """One package that etnet needs or can use.

    Attributes:
        name: As pip names it.
        group: The extra that installs it, `BASE` or `OTHER`.
        requirement: The versions that etnet accepts, such as ">=2.5"; "" for any.
        module: What `import` calls it.
        version: The version found, or None.
        state: "ok", "missing", "too old", "broken" (installed, but cannot be imported), or "no GPU" (cannot be
            imported on a machine without one).
        reason: Why it is broken, on one line.
    """

    name: str
    group: str
    requirement: str
    module: str
    version: str | None
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Wanted:
    """A package before it was looked for; see `Package`."""

    name: str
    group: str
    requirement: str

    @property
    def module(self) -> str:
        """What `import` calls it."""
        return _MODULES.get(self.name, self.name.replace("-", "_"))


def wanted_packages() -> list[Wanted]:
    """Every package that the installed etnet declares, the base first, then its extras, then `DEPLOYMENT`."""
    distribution = metadata.metadata("etnet")
    requirements = [Requirement(text) for text in metadata.requires("etnet") or ()]
    extras = [name for name in distribution.get_all("Provides-Extra") or () if name not in HIDDEN_EXTRAS]
    wanted = _of_group(requirements, BASE, "")
    for extra in extras:
        known = {package.name for package in wanted}
        wanted += [package for package in _of_group(requirements, extra, extra) if package.name not in known]
    known = {package.name for package in wanted}
    return wanted + [Wanted(name, OTHER, "") for name in DEPLOYMENT if name not in known]


def _of_group(requirements: Sequence[Requirement], group: str, extra: str) -> list[Wanted]:
    def applies(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    # What the base needs holds for every extra; an extra of extras ("etnet[train]") brings nothing of its own.
    return [
        Wanted(canonicalize_name(item.name), group, str(item.specifier))
        for item in requirements
        if applies(item, extra) and not (extra and applies(item, "")) and canonicalize_name(item.name) != "etnet"
    ]


def is_findable(module: str) -> bool:
    """Whether Python finds a module, without running it (packages around it are run for a dotted name)."""
    root = module.partition(".")[0]
    try:
        return importlib.util.find_spec(root) is not None
    except (ImportError, ValueError):
        return False


def judge(wanted: Wanted, outcomes: Mapping[str, ImportOutcome], *, has_gpu: bool) -> Package:
    """Combine what the installation records and what the import gave into one finding.

    Args:
        wanted: The package.
        outcomes: Imports by module; a module that is not in it was not found.
        has_gpu: Whether the driver shows a GPU.
    """
    outcome = outcomes.get(wanted.module)
    if outcome is None:
        return Package(wanted.name, wanted.group, wanted.requirement, wanted.module, None, "missing")
    version = _recorded_version(wanted.name) or outcome.version
    state, reason = _state(wanted, outcome, version, has_gpu=has_gpu)
    absent = _ABSENT_TORCH.match(outcome.error or "")
    if absent is not None and absent[1] not in outcomes and absent[1] != wanted.module:
        # Nothing of its own is wrong, and installing its extra brings what it needs.
        state, reason = "missing", f"needs {absent[1]}"
    return Package(wanted.name, wanted.group, wanted.requirement, wanted.module, version, state, reason)


def _state(wanted: Wanted, outcome: ImportOutcome, version: str | None, *, has_gpu: bool) -> tuple[State, str]:
    if outcome.error is not None:
        without_parts = "." in wanted.module and outcome.error.startswith("ModuleNotFoundError")
        if without_parts and version is None:
            return "missing", ""  # another package of the same first name is there
        return ("no GPU" if wanted.name in NEEDS_GPU and not has_gpu else "broken"), outcome.error
    if version is not None and not _is_accepted(version, wanted.requirement):
        return "too old", f"expected {wanted.requirement}"
    return "ok", ""


def _is_accepted(version: str, requirement: str) -> bool:
    try:
        # Builds such as 2.6.0a0+nv24 count as what they lead up to.
        return Requirement(f"x{requirement}").specifier.contains(Version(version).base_version)
    except InvalidVersion:
        return True


def _recorded_version(name: str) -> str | None:
    for candidate in (name, *_ALSO_FROM.get(name, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(candidate)
    return None


def install_command(extra: str) -> str:
    """The command that installs an extra of this etnet (`BASE`: etnet itself), from where it was installed.

    >>> install_command("train").split(" -m ")[1].startswith("pip install ")
    True
    """
    brackets = "" if extra == BASE else f"[{extra}]"
    origin = json.loads(metadata.distribution("etnet").read_text("direct_url.json") or "{}")
    url = origin.get("url", "")
    if url.startswith("file://") and origin.get("dir_info", {}).get("editable"):
        return pip("install", "-e", unquote(url.removeprefix("file://")) + brackets)
    return pip("install", f"etnet{brackets} @ {url}" if url else f"etnet{brackets}")


def repair_command(package: Package) -> str:
    """The command that mends a package that is too old or broken."""
    how = ("--upgrade",) if package.state == "too old" else ("--force-reinstall", "--no-deps")
    return pip("install", *how, package.name + package.requirement)


def pip(*arguments: str) -> str:
    """A command line that runs pip for this very Python.

    >>> pip("install", "torch>=2.5").endswith(" -m pip install 'torch>=2.5'")
    True
    """
    found = shutil.which("python")
    is_this_one = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return shlex.join(["python" if is_this_one else sys.executable, "-m", "pip", *arguments])
