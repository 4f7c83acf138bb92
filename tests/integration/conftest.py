from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def small_drive(drive_root: Path, tmp_path: Path) -> Path:
    """Four images of the training half of DRIVE and two of the test half, in its layout, by links."""
    root = tmp_path / "DRIVE"
    for half, count in (("training", 4), ("test", 2)):
        for part in ("images", "1st_manual", "mask"):
            (root / half / part).mkdir(parents=True)
            for file in sorted((drive_root / half / part).iterdir())[:count]:
                (root / half / part / file.name).symlink_to(file)
    return root
