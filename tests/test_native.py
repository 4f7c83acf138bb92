from __future__ import annotations

import ast
import importlib
import inspect
import re
import types
import warnings
from pathlib import Path

import pytest

import etnet
from etnet import native
from etnet.errors import EnvironmentFault

STUB = Path(etnet.__file__).with_name("_native.pyi")


@pytest.fixture
def fresh_loading():
    """Loading and warning are remembered per process; forget both around the test."""
    native._load.cache_clear()
    native._warn_once.cache_clear()
    yield
    native._load.cache_clear()
    native._warn_once.cache_clear()


@pytest.fixture
def missing_module(monkeypatch, fresh_loading):
    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)


def test_native_module_is_built_and_current():
    assert native.require() is native.module()
    assert native.require().INTERFACE == native.INTERFACE


@pytest.mark.usefixtures("missing_module")
def test_missing_module_warns_once_with_consequence_and_remedy():
    with pytest.warns(native.NativeMissingWarning, match=r"No module named.*slower Python code; rebuild.*make venv"):
        assert native.module() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.module() is None


@pytest.mark.usefixtures("missing_module")
def test_requiring_a_missing_module_is_an_error_with_the_remedy():
    with pytest.raises(EnvironmentFault, match=r"cannot be loaded .*make venv"):
        native.require()


@pytest.mark.usefixtures("fresh_loading")
def test_module_of_another_interface_is_not_used(monkeypatch):
    old = types.SimpleNamespace(INTERFACE=native.INTERFACE - 1, __file__="_native.so")
    monkeypatch.setattr(importlib, "import_module", lambda _: old)
    with pytest.raises(
        EnvironmentFault, match=rf"interface {old.INTERFACE} where this version of etnet expects {native.INTERFACE}"
    ):
        native.require()


def arguments_declared(function: ast.FunctionDef) -> list[str]:
    arguments = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
    return [name for name in arguments if name != "self"]


def arguments_built(function) -> list[str]:
    signature = re.search(r"\((.*)\) ->", function.__doc__).group(1)
    return [name for name in re.findall(r"(\w+): ", signature) if name != "self"]


def is_of_cuda(name: str) -> bool:
    return "_cuda" in name


def test_stub_lists_every_function_with_its_arguments():
    declared = {
        node.name: arguments_declared(node)
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.FunctionDef) and (native.has_cuda() or not is_of_cuda(node.name))
    }
    built = {name: arguments_built(value) for name, value in vars(native.require()).items() if inspect.isbuiltin(value)}
    assert built == declared


def test_stub_lists_every_class_with_the_arguments_of_its_constructor():
    declared = {
        node.name: arguments_declared(node.body[0])
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    built = {
        name: arguments_built(value.__init__)
        for name, value in vars(native.require()).items()
        if inspect.isclass(value)
    }
    assert built == declared


def test_stub_lists_every_constant():
    tree = ast.parse(STUB.read_text())
    constants = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    built = {
        name
        for name, value in vars(native.require()).items()
        if not name.startswith("__") and not inspect.isbuiltin(value) and not inspect.isclass(value)
    }
    assert built == constants


def test_cuda_kernels_are_reported_as_they_were_built(monkeypatch):
    assert native.has_cuda() == any(is_of_cuda(name) for name in vars(native.require()))
    monkeypatch.setattr(native, "module", lambda: None)
    assert not native.has_cuda()
