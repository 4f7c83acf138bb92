"""The packages of the extra `medical`: imported when the first file needs them, one sentence where they are missing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from etnet.errors import EnvironmentFault


def import_for(path: Path, package: str) -> Any:
    """Import the package that reads a file.

    Args:
        path: The file, for the sentence.
        package: Name of the module, such as `pydicom`.

    Raises:
        EnvironmentFault: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EnvironmentFault(
            f"{path}: is read with {package.partition('.')[0]}, which is not installed; run: "
            "pip install 'etnet[medical]'"
        ) from error
