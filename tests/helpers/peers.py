"""The scripts of `benchmarks/peers/`, which are no package, as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from helpers.benchmarks import BENCHMARKS

PEERS = BENCHMARKS / "peers"


def load_peer(name: str) -> ModuleType:
    """Import `benchmarks/peers/<name>.py`, after what puts `benchmarks/` on the path."""
    for folder in (PEERS, BENCHMARKS):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return importlib.import_module(name)
