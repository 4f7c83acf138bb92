from __future__ import annotations

import sys
from enum import Enum
from types import ModuleType

import pytest

from etnet.errors import EnvironmentFault
from etnet.trt.library import Library, find_builder, find_runtimes


def fake_module(monkeypatch, name: str, version: str, **content) -> ModuleType:
    module = ModuleType(name)
    # find_spec asks a loaded module for its specification.
    module.__spec__ = type(sys.__spec__)(name, None)
    vars(module).update(__version__=version, **content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: getattr(sys.modules.get(name), "__spec__", None))
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def enumeration(name: str, *members: str) -> type[Enum]:
    return Enum(name, list(members), start=0)


RTX = {
    "ComputeCapability": enumeration("ComputeCapability", "NONE", "CURRENT", "SM75", "SM86", "SM120"),
    "NetworkDefinitionCreationFlag": enumeration("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
    "Runtime": object,
}


@pytest.mark.parametrize("module", ["tensorrt_rtx", "tensorrt_rtx_bindings"])
def test_tensorrt_rtx_is_found_under_either_name(monkeypatch, module):
    fake = fake_module(monkeypatch, module, "1.7.1", **RTX)
    library = find_builder("tensorrt-rtx")
    assert library == Library("tensorrt-rtx", fake, "1.7.1")
    assert library.targets == ("sm75", "sm86", "sm120")
    assert library.builds_without_gpu


def test_a_library_that_is_not_installed_is_named_with_its_command():
    with pytest.raises(EnvironmentFault, match=r"TensorRT-RTX is not installed.*pip install 'etnet\[tensorrt-rtx\]'"):
        find_builder("tensorrt-rtx")
    with pytest.raises(EnvironmentFault, match=r"TensorRT is not installed.*pip install 'etnet\[tensorrt\]'"):
        find_builder("tensorrt")


def test_tensorrt_rtx_without_strongly_typed_networks_is_too_old(monkeypatch):
    old = RTX | {"NetworkDefinitionCreationFlag": enumeration("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")}
    fake_module(monkeypatch, "tensorrt_rtx", "1.4.0", **old)
    with pytest.raises(EnvironmentFault, match=r"TensorRT-RTX 1\.4\.0 is too old; version 1\.5"):
        find_builder("tensorrt-rtx")


def test_members_are_found_by_name_and_missing_ones_are_none(monkeypatch):
    fake_module(
        monkeypatch, "tensorrt", "8.6.1", BuilderFlag=enumeration("BuilderFlag", "FP16", "INT8"), Runtime=object
    )
    library = find_builder("tensorrt")
    assert library.member("BuilderFlag", "INT8") is library.module.BuilderFlag.INT8
    assert library.member("BuilderFlag", "VERSION_COMPATIBLE") is None
    assert library.member("ComputeCapability", "SM86") is None
    assert not library.builds_without_gpu


def test_a_package_that_fails_without_a_word_is_named_with_its_error(monkeypatch):
    fake_module(monkeypatch, "tensorrt", "10.13")

    def broken(name):
        raise RuntimeError

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(EnvironmentFault, match=r"cannot be loaded \(RuntimeError\)"):
        find_builder("tensorrt")


def test_a_package_whose_libraries_are_missing_is_an_error_and_not_absent(monkeypatch):
    fake_module(monkeypatch, "tensorrt", "10.13")

    def broken(name):
        raise FileNotFoundError(f"libnvinfer.so.10: cannot open\nmore about {name}")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(
        EnvironmentFault, match=r"is installed but cannot be loaded \(libnvinfer\.so\.10: cannot open\)"
    ):
        find_builder("tensorrt")


def test_a_folder_of_the_same_name_is_not_taken_for_the_library(monkeypatch):
    vars(fake_module(monkeypatch, "tensorrt", "10.13")).pop("__version__")
    with pytest.raises(EnvironmentFault, match=r"tensorrt is found, but is not the package of TensorRT; install that"):
        find_builder("tensorrt")


def test_the_lean_runtime_comes_after_the_full_one(monkeypatch):
    fake_module(monkeypatch, "tensorrt_lean", "10.13.2", Runtime=object)
    assert [library.title for library in find_runtimes("tensorrt")] == ["TensorRT lean runtime 10.13.2"]
    fake_module(monkeypatch, "tensorrt", "11.0.0", Runtime=object)
    assert [library.version for library in find_runtimes("tensorrt")] == ["11.0.0", "10.13.2"]
    assert find_runtimes("tensorrt-rtx") == []
