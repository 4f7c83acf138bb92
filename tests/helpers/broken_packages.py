"""Installations that are broken in one way each, made of files in front of the real packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STALE_NATIVE = """
import sys, types
sys.modules["etnet._native"] = types.SimpleNamespace(INTERFACE=-1, BUILD={}, __file__="/somewhere/_native.so")
"""
MISSING_NATIVE = "import sys; sys.modules['etnet._native'] = None\n"


def without(*modules: str) -> str:
    """Start-up code of a Python in which modules are not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"


def put_package(folder: Path, name: str, source: str) -> None:
    """Put a package in front of the installed one of that name."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)


def run_python(arguments: list[str], front: Path, *, startup: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python with `front` ahead of the installed packages, in it too; `startup` runs in every process it starts."""
    if startup:
        (front / "sitecustomize.py").write_text(startup)
    environment = {**os.environ, "PYTHONPATH": str(front), "COLUMNS": "80"}
    environment.pop("FORCE_COLOR", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=front, env=environment, capture_output=True, text=True, check=False
    )
