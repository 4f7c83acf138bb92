"""Builds the product for this machine and installs it, and the packages that it lacks, below the suite's folder.

Works without a network: nothing is fetched, versions are not compared with `constraints.txt`, and what the environment
holds stays as it is. pip builds where it can; CMake alone does where it cannot, and the result says why.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "python"

LOOK = """
import json
import etnet
from etnet import native
module, reason = native.state()
build = dict(module.BUILD) if module else {}
print(json.dumps({"etnet": etnet.__file__, "version": etnet.__version__, "build": build, "reason": reason}))
"""

CAPABILITY = "import torch; print('{}{}'.format(*torch.cuda.get_device_capability()))"


class BuildFailed(Exception):
    """The text is the reason."""


@dataclass(frozen=True)
class Found:
    """The product as a new process of this Python imports it.

    Attributes:
        file: Of the package.
        build: What its native module says of itself; empty without one.
        reason: Why there is none.
    """

    file: Path
    build: dict[str, str]
    reason: str

    def has(self, capability: str | None) -> bool:
        """Whether it has kernels for this GPU, or for a processor where that is None."""
        return bool(self.build) and (capability is None or capability in self.build["cuda_architectures"].split())


def run(*words: object, **options: Any) -> str:
    """Output of a command, which is also shown.

    Raises:
        BuildFailed: It failed or does not exist.
    """
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except OSError as error:
        raise BuildFailed(f"{command[0]}: {error.strerror}") from None
    print(result.stdout, result.stderr, flush=True)
    if result.returncode:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        telling = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")
        raise BuildFailed(f"{Path(command[0]).name} {command[1] if len(command) > 1 else ''}: {telling}")
    return result.stdout


def look() -> Found | None:
    """The product that is installed here; None where there is none."""
    try:
        told = json.loads(run(sys.executable, "-c", LOOK).splitlines()[-1])
    except (BuildFailed, ValueError, IndexError):
        return None
    return Found(Path(told["etnet"]).resolve(), told["build"], told["reason"])


def install_packages(wheels: Path, target: Path) -> list[str]:
    """Install every wheel of a folder beside the environment; their names.

    Raises:
        BuildFailed: There are none, or one is not for this Python.
    """
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise BuildFailed(f"--packages {wheels}: holds no wheel (*.whl)")
    shutil.rmtree(target, ignore_errors=True)
    try:
        run(*_pip("install"), "--no-index", "--no-deps", "--no-compile", "--target", target, *files)
    except BuildFailed as failure:
        if importlib.util.find_spec("pip") is not None:
            raise
        print(f"{failure}; the wheels are unpacked instead")
        for file in files:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(target)
    return [file.name for file in files]


def capability_of_gpu() -> str:
    """Compute capability of the GPU in the spelling of nvcc: "90".

    Raises:
        BuildFailed: torch sees none.
    """
    try:
        return run(sys.executable, "-c", CAPABILITY).splitlines()[-1].strip()
    except BuildFailed as failure:
        raise BuildFailed(f"torch sees no GPU ({failure})") from None


def build(site: Path, scratch: Path, capability: str | None) -> str:
    """Build and install into `site`; how that was done.

    Raises:
        BuildFailed: Neither pip nor CMake could.
    """
    if capability is not None and not (os.environ.get("CUDACXX") or shutil.which("nvcc")):
        default = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc"
        if not default.is_file():
            raise BuildFailed("nvcc was not found, neither on the PATH nor as CUDACXX nor below CUDA_HOME")
        os.environ["CUDACXX"] = str(default)
    defines = {"ETNET_CUDA": "OFF" if capability is None else "ON"}
    if capability is not None:
        defines["ETNET_CUDA_ARCHITECTURES"] = capability
    new = site.with_name("site.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        how = _build_with_pip(new, scratch / "pip", defines)
    except BuildFailed as failure:
        print(f"pip could not build it ({failure}); CMake is tried", flush=True)
        shutil.rmtree(new, ignore_errors=True)
        _build_with_cmake(new, scratch / "cmake", defines)
        how = f"CMake, because pip could not: {failure}"
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)
    return how


def _build_with_pip(target: Path, scratch: Path, defines: dict[str, str]) -> str:
    settings = [word for name, value in defines.items() for word in ("-C", f"cmake.define.{name}={value}")]
    fixed = ("--no-index", "--no-deps", "--no-build-isolation")
    run(*_pip("install"), *fixed, "--target", target, *settings, "-C", f"build-dir={scratch}", ROOT)
    return "pip"


def _build_with_cmake(target: Path, scratch: Path, defines: dict[str, str]) -> None:
    pybind11 = run(sys.executable, "-m", "pybind11", "--cmakedir").strip()
    words = [f"-D{name}={value}" for name, value in defines.items()]
    words += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}", "-DCMAKE_BUILD_TYPE=Release"]
    words += ["-G", "Ninja"] if shutil.which("ninja") else []
    run("cmake", "-S", ROOT, "-B", scratch, *words)
    run("cmake", "--build", scratch, "--parallel")
    package = target / "etnet"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "trt")
    shutil.copytree(ROOT / "python" / "etnet", package, ignore=unwanted)
    shutil.copytree(ROOT / "trt", package / "trt", ignore=shutil.ignore_patterns("__pycache__"))
    for module in scratch.glob("_native*.so"):
        shutil.copy2(module, package)


def _pip(command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pip", command, "--disable-pip-version-check", "--no-input")


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Do it all; the figures.

    Raises:
        BuildFailed: The product cannot be imported afterwards, or has no kernels for this machine.
    """
    begin = time.monotonic()
    packages = install_packages(options.packages, options.out / "packages") if options.packages else []
    capability = capability_of_gpu() if options.device == "cuda" else None
    found, place = look(), SOURCES
    # An editable installation stands before all others: one beside it would never be imported.
    if found is not None and found.has(capability) and SOURCES in found.file.parents:
        how = "reused: this environment has the product already"
    else:
        place = options.out / "site"
        how = build(place, options.out / "scratch", capability)
        found = look()
    if found is None:
        raise BuildFailed("etnet was built but cannot be imported; name the missing packages' wheels with --packages")
    if not found.has(capability):
        kernels = found.build.get("cuda_architectures") or "none"
        raise BuildFailed(
            f"{found.file} is imported, whose kernels are for {kernels} and not for {capability or 'processors'} "
            f"({found.reason or 'it stands before what was built'}); use an environment without it"
        )
    if place.resolve() not in found.file.parents:
        raise BuildFailed(f"{found.file} is imported and not what was built; use an environment without it")
    seconds = round(time.monotonic() - begin, 1)
    kernels = f"CUDA {found.build['cuda']} for sm_{capability}" if capability else "processor"
    return {
        "headline": f"{how.split(':')[0].split(',')[0]}, {kernels}",
        "device": options.device,
        "how": how,
        "packages": packages,
        "build": found.build,
        "build_seconds": seconds,
    }


def write(file: Path, figures: dict[str, Any], options: argparse.Namespace) -> None:
    """The result in its common form; only the figures where the product is not there to describe the machine."""
    sys.path[:0] = [str(options.out / "site"), str(options.out / "packages"), str(ROOT / "benchmarks")]
    importlib.invalidate_caches()
    what = "the native module, built for this machine"
    try:
        from measurement import write_result
    except ImportError as error:
        print(f"the result lacks machine and versions ({error})", file=sys.stderr)
        file.write_text(json.dumps({"benchmark": "build", "what": what, "comparisons": [], **figures}, indent=2) + "\n")
        return
    write_result(file, benchmark="build", what=what, figures=figures, packages=("torch", "pybind11", "cmake"))


def main() -> int:
    """Build, and write the result of that either way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the suite's folder")
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--packages", type=Path, help="folder of wheels to install first")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    try:
        figures = make(options)
    except BuildFailed as failure:
        print(failure, file=sys.stderr)
        figures = {"failed": str(failure)}
    write(options.json, figures, options)
    return 1 if "failed" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
