"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real research images, named by ETNET_DATA or lying beside the repository; skips without it."""
    folder = Path(os.environ.get("ETNET_DATA", _BESIDE_THE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}; name their folder with ETNET_DATA")
    return folder


@pytest.fixture(scope="session")
def drive_root(real_data: Path) -> Path:
    """The DRIVE data set in its official layout; skips without it."""
    return _data_set(real_data, "DRIVE")


@pytest.fixture(scope="session")
def drishti_root(real_data: Path) -> Path:
    """The Drishti-GS data set; skips without it."""
    return _data_set(real_data, "Drishti-GS")


@pytest.fixture(scope="session")
def montgomery_root(real_data: Path) -> Path:
    """The Montgomery data set; skips without it."""
    return _data_set(real_data, "Montgomery")


@pytest.fixture(scope="session")
def exported_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Weights and ONNX file of each kind of `export_kind`, exported once for all tests; copy what you change."""

    @functools.cache
    def export(kind: str) -> tuple[Path, Path]:
        from helpers.backends import export_kind

        return export_kind(kind, tmp_path_factory.mktemp(kind))

    return export


def _data_set(folder: Path, name: str) -> Path:
    root = folder / name
    if not root.is_dir():
        pytest.skip(f"no {name} data set in {folder}")
    return root
