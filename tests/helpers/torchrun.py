"""Starts processes that train together, as `torchrun` does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def torchrun(*words: object, cwd: Path, processes: int = 2, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a module (`-m`) or a script in several processes on this machine; every process has one thread."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [*launcher, *options, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_together(*words: object, cwd: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """`torchrun` to its end."""
    process = torchrun(*words, cwd=cwd, processes=processes)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def train_words(data: Path, overrides: Sequence[str], *options: object) -> list[object]:
    """Words after `torchrun` that train on a folder on the CPU."""
    settings = [word for override in overrides for word in ("--set", override)]
    return ["-m", "etnet", "train", "--recipe", "folder", "--data", data, *settings, "--device", "cpu", *options]
