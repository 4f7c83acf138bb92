"""Versions that a written result names, so that someone else can repeat it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "opencv-python-headless", "pillow")
"""Packages that influence a prediction."""


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Versions of etnet, Python and some packages; None for one that is not installed."""
    from etnet import __version__

    return {"etnet": __version__, "python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
