"""Which run a start goes on with, when the same command may be started again and again.

`torchrun` starts all processes anew when one of them dies, and a cluster starts a job anew that gave way to another;
both by the command of the first start.
"""

from __future__ import annotations

import json
from pathlib import Path

from etnet.training.launch import launch_name
from etnet.training.run_folder import RUNS


def run_to_go_on_in(output: Path | None, *, root: Path = RUNS) -> Path | None:
    """The run folder that an earlier start of this command left, or None where there is none.

    Args:
        output: The folder that the command names; without it, that of the last run which the same `torchrun` began.
        root: Parent of the folders of runs.

    Returns:
        A folder with a run in it. Without `weights/last.safetensors` it ended before its first checkpoint.
    """
    if output is not None:
        # The lock is the first file that a run makes.
        return output if (output / ".lock").exists() else None
    launch = launch_name()
    begun = [path for path in root.glob("*/environment.json") if launch is not None and _launch_in(path) == launch]
    return max(begun, key=lambda path: path.stat().st_mtime).parent if begun else None


def _launch_in(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("launch") if isinstance(content, dict) else None
