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
    with pytest.warns(native.NativeMissingWarning, match=r"No module named.*slower PyTorch code; rebuild.*make venv"):
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
    with pytest.raises(EnvironmentFault, match=rf"interface 0 where this version of etnet expects {native.INTERFACE}"):
        native.require()


def declared_functions() -> dict[str, list[str]]:
    tree = ast.parse(STUB.read_text())
    return {
        node.name: [argument.arg for argument in node.args.kwonlyargs]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def test_stub_lists_every_function_with_its_arguments():
    module = native.require()
    built = {
        name: re.findall(r"(\w+): ", re.search(r"\(\*, (.*)\) ->", value.__doc__).group(1))
        for name, value in vars(module).items()
        if inspect.isbuiltin(value)
    }
    assert built == declared_functions()


def test_stub_lists_every_constant():
    tree = ast.parse(STUB.read_text())
    constants = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    built = {
        name
        for name, value in vars(native.require()).items()
        if not name.startswith("__") and not inspect.isbuiltin(value)
    }
    assert built == constants
