"""Pytest plugin of `make test-asan`: tests the module that ETNET_SANITIZED_MODULE names, not the installed one."""

from __future__ import annotations

import importlib.util
import os
import sys


def load(path: str) -> None:
    spec = importlib.util.spec_from_file_location("etnet._native", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["etnet._native"] = module


def pytest_report_header() -> str:
    return f"native module: {sys.modules['etnet._native'].__file__}"


load(os.environ["ETNET_SANITIZED_MODULE"])
