from __future__ import annotations

import json
import shlex
from importlib import metadata

import pytest
from packaging.utils import canonicalize_name

from etnet.environment import packages
from etnet.environment.imports import ImportOutcome
from etnet.environment.packages import BASE, OTHER, Package, Wanted, install_command, judge, repair_command

REQUIREMENTS = [
    "numpy>=1.26",
    "Pillow>=10.1; python_version >= '3.8'",
    "tomli; python_version < '3'",
    "torch>=2.5; extra == 'train'",
    "numpy>=1.26; extra == 'train'",
    "etnet[train]; extra == 'export'",
    "onnx>=1.16; extra == 'export'",
    "pytest; extra == 'dev'",
]


@pytest.fixture
def declared(monkeypatch):
    """An installation that declares `REQUIREMENTS`."""

    class Declared:
        def get_all(self, field):
            assert field == "Provides-Extra"
            return ["train", "export", "dev"]

    monkeypatch.setattr(metadata, "metadata", lambda name: Declared())
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIREMENTS)


@pytest.mark.usefixtures("declared")
def test_packages_are_those_that_the_installation_declares_each_once():
    wanted = packages.wanted_packages()
    assert wanted[:4] == [
        Wanted("numpy", BASE, ">=1.26"),
        Wanted("pillow", BASE, ">=10.1"),
        Wanted("torch", "train", ">=2.5"),
        Wanted("onnx", "export", ">=1.16"),
    ]
    assert {item.name for item in wanted[4:]} == set(packages.DEPLOYMENT) - {"onnx"}
    assert {item.group for item in wanted[4:]} == {OTHER}


def test_whatever_is_installed_is_looked_for_under_its_name():
    installed = {name for names in metadata.packages_distributions().values() for name in map(canonicalize_name, names)}
    there = [wanted for wanted in packages.wanted_packages() if wanted.name in installed]
    assert {"numpy", "torch"} <= {wanted.name for wanted in there}
    assert [wanted.name for wanted in there if not packages.is_findable(wanted.module)] == []


def test_this_installation_declares_what_training_needs():
    groups = {item.name: item.group for item in packages.wanted_packages()}
    assert groups["numpy"] == groups["click"] == BASE
    assert groups["torch"] == groups["timm"] == "train"
    assert "pytest" not in groups


OUTCOMES = {"sound": ImportOutcome(None, version="2.6.0a0+nv24"), "failing": ImportOutcome("OSError: libx.so")}


@pytest.mark.parametrize(
    ("name", "requirement", "state", "version"),
    [
        ("sound", ">=2.5", "ok", "2.6.0a0+nv24"),
        ("sound", ">=2.6", "ok", "2.6.0a0+nv24"),
        ("sound", ">=2.7", "too old", "2.6.0a0+nv24"),
        ("sound", "", "ok", "2.6.0a0+nv24"),
        ("absent", ">=1", "missing", None),
        ("failing", ">=1", "broken", None),
    ],
)
def test_state_follows_from_the_import_and_the_version(name, requirement, state, version):
    found = judge(Wanted(name, "train", requirement), OUTCOMES, has_gpu=False)
    assert (found.state, found.version) == (state, version)


@pytest.mark.parametrize(("has_gpu", "state"), [(False, "no GPU"), (True, "broken")])
def test_a_gpu_package_is_broken_only_where_there_is_a_gpu(has_gpu, state):
    outcomes = {"pycuda.driver": ImportOutcome("ImportError: libcuda.so.1: cannot open shared object file")}
    found = judge(Wanted("pycuda", OTHER, ""), outcomes, has_gpu=has_gpu)
    assert found.state == state
    assert "libcuda" in found.reason


@pytest.mark.parametrize(
    ("others", "state"), [({}, "missing"), ({"torch": ImportOutcome("OSError: libcudart.so")}, "broken")]
)
def test_what_builds_on_torch_is_not_broken_where_there_is_no_torch(others, state):
    outcomes = {"timm": ImportOutcome("ModuleNotFoundError: No module named 'torch'"), **others}
    assert judge(Wanted("timm", "train", ""), outcomes, has_gpu=False).state == state


def test_another_package_of_the_same_first_name_is_not_taken_for_it(monkeypatch):
    def nothing_recorded(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing_recorded)
    outcomes = {"cuda.bindings.driver": ImportOutcome("ModuleNotFoundError: No module named 'cuda.bindings'")}
    assert judge(Wanted("cuda-python", OTHER, ""), outcomes, has_gpu=True).state == "missing"


@pytest.mark.parametrize(
    ("name", "findable"), [("json", True), ("no_such_module", False), ("no_such_module.part", False), ("", False)]
)
def test_modules_are_found_without_running_them(name, findable):
    assert packages.is_findable(name) is findable


def test_a_blocked_module_is_not_found(monkeypatch):
    monkeypatch.setitem(packages.sys.modules, "torch", None)
    assert not packages.is_findable("torch")


class Origin:
    """A distribution that was installed from somewhere."""

    def __init__(self, content: dict | None) -> None:
        self.content = content

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.content is None else json.dumps(self.content)


@pytest.mark.parametrize(
    ("origin", "arguments"),
    [
        (None, ["etnet[train]"]),
        ({"url": "file:///a%20b/etnet", "dir_info": {"editable": True}}, ["-e", "/a b/etnet[train]"]),
        ({"url": "file:///src/etnet", "dir_info": {}}, ["etnet[train] @ file:///src/etnet"]),
        ({"url": "file:///d/etnet.whl", "archive_info": {}}, ["etnet[train] @ file:///d/etnet.whl"]),
    ],
    ids=["index", "editable", "folder", "wheel"],
)
def test_an_extra_is_installed_from_where_etnet_came(monkeypatch, origin, arguments):
    monkeypatch.setattr(metadata, "distribution", lambda name: Origin(origin))
    assert shlex.split(install_command("train"))[1:] == ["-m", "pip", "install", *arguments]
    base = [argument.replace("[train]", "") for argument in arguments]
    assert shlex.split(install_command(BASE))[4:] == base


@pytest.mark.parametrize(("state", "how"), [("too old", ["--upgrade"]), ("broken", ["--force-reinstall", "--no-deps"])])
def test_a_package_is_mended_by_pip(state, how):
    package = Package("timm", "train", ">=1.0", "timm", "0.9", state)
    assert shlex.split(repair_command(package))[3:] == ["install", *how, "timm>=1.0"]


def test_pip_runs_for_this_python_whatever_the_path_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(packages.pip("list"))[0] == packages.sys.executable
    (tmp_path / "python").symlink_to(packages.sys.executable)
    assert shlex.split(packages.pip("list"))[0] == packages.sys.executable
    monkeypatch.setattr(packages.sys, "executable", str(tmp_path / "python"))
    assert packages.pip("list") == "python -m pip list"
