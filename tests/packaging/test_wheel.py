"""The wheel: built where torch cannot be imported, with everything in it that belongs there and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "python" / "etnet"
ENGINES = REPOSITORY / "trt"


def build(output: Path, *options: str) -> None:
    blocked = output / "without_torch"
    blocked.mkdir(parents=True)
    (blocked / "torch.py").write_text("raise ImportError('the build must not need torch')\n")
    command = [sys.executable, "-m", "build", "--outdir", str(output), *options, str(REPOSITORY)]
    environment = os.environ | {"PYTHONPATH": str(blocked)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Compiling takes half a minute, and needs no network because the build tools are those of this environment.
    output = tmp_path_factory.mktemp("wheel")
    build(output, "--wheel", "--no-isolation", f"-Cbuild-dir={output / 'cmake'}")
    (path,) = output.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def installed(names: list[str]) -> set[str]:
    return {name for name in names if not name.split("/")[0].endswith(".dist-info")}


def test_wheel_holds_the_package_and_the_native_module_only(wheel):
    sources = {
        (installed_as / path.relative_to(folder)).as_posix()
        for folder, installed_as in ((PACKAGE, Path("etnet")), (ENGINES, Path("etnet/trt")))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".so", ".md"} and PACKAGE / "trt" not in path.parents
    }
    assert "etnet/trt/__init__.py" in sources
    found = installed(wheel.namelist())
    native = {name for name in found if name.startswith("etnet/_native.") and name.endswith(".so")}
    assert len(native) == 1
    assert found - native == sources


def test_wheel_holds_no_file_twice(wheel):
    assert len(wheel.namelist()) == len(set(wheel.namelist()))


def test_wheel_holds_recipes_type_marker_and_stub(wheel):
    names = set(wheel.namelist())
    assert {"etnet/py.typed", "etnet/_native.pyi", "etnet/config/recipes/drive.yaml"} <= names


def test_wheel_asks_for_torch_only_in_extras(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = [line for line in wheel.read(path).decode().splitlines() if line.startswith("Requires-Dist:")]
    base = [line for line in required if "extra ==" not in line]
    assert base
    assert not any("torch" in line or "timm" in line for line in base)
    assert any("torch" in line and "extra ==" in line for line in required)


def test_wheel_installs_the_command(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "etnet = etnet.cli.main:main" in wheel.read(path).decode()


@pytest.mark.long
def test_source_archive_builds_a_wheel_in_an_isolated_environment(tmp_path):
    build(tmp_path)
    assert len(list(tmp_path.glob("*.whl"))) == 1
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.split("/", 1)[-1] for name in content.getnames()}
    assert {"CMakeLists.txt", "csrc/cpu/lovasz_softmax.cpp", "python/etnet/__init__.py", "trt/__init__.py"} <= names
