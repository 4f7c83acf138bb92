"""Which modules can be imported, tried in a second process so that a crash or an endless wait is a finding too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_SECONDS = 180.0
"""For all modules together; the first import of torch after an installation takes a minute on a slow disk."""

# The search path is handed over, because `python -c` would put the current folder first and import what lies there.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from etnet.environment.probe import main; main()"


@dataclass(frozen=True)
class ImportOutcome:
    """What came of importing one module.

    Attributes:
        error: Why it cannot be imported, on one line; None when it can.
        version: The module's `__version__`, where it has one.
        details: What `etnet.environment.probe` asked of the module.
    """

    error: str | None
    version: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def try_imports(modules: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> dict[str, ImportOutcome]:
    """Import modules in a second process; a module that ends the process is reported, the rest tried in another one.

    Args:
        modules: Names that `import` understands, in the order in which they are imported.
        timeout: Seconds after which a process is given up.
    """
    outcomes: dict[str, ImportOutcome] = {}
    while remaining := [name for name in modules if name not in outcomes]:
        output, ending = _run(remaining, timeout=timeout)
        started = None
        for line in _answers(output):
            started = line.get("started", started)
            if "name" in line:
                outcomes[line["name"]] = ImportOutcome(line["error"], line["version"], line["details"])
        # Every round settles one module at least, so the loop ends.
        guilty = started if started is not None and started not in outcomes else None
        if guilty is not None or not any(name in outcomes for name in remaining):
            outcomes[guilty or remaining[0]] = ImportOutcome(ending)
    return outcomes


def _run(modules: Sequence[str], *, timeout: float) -> tuple[str, str]:
    """Standard output of one process, and in words how it ended."""
    command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), *modules]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as expired:
        # Bytes even though text was asked for.
        output = (expired.stdout or b"").decode(errors="replace")
        return output, f"the import did not end within {timeout:g} s"
    if done.returncode < 0:
        return done.stdout, f"the import crashed Python ({_signal_name(-done.returncode)})"
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return done.stdout, f"the import ended Python ({last[0]})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _answers(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # the line that was being written when the process died
        if isinstance(answer, dict):
            yield answer
