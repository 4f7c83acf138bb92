from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.torchrun import TESTS, run_together


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes computed in `helpers.two_processes`."""
    folder = tmp_path_factory.mktemp("two_processes")
    result = run_together(TESTS / "helpers" / "two_processes.py", folder, cwd=folder)
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
