"""`make cuda-check`: reads what ptxas -v said of every kernel and fails where registers were spilled to memory.

python tests/helpers/ptxas.py build/cuda/ptxas.log
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

KERNEL = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


def read_spills(log: str) -> dict[tuple[str, str], int]:
    """Bytes spilled, by (mangled kernel, architecture)."""
    spills: dict[tuple[str, str], int] = {}
    kernel = None
    for line in log.splitlines():
        if found := KERNEL.search(line):
            kernel = found.group(1), found.group(2)
        elif kernel and (found := SPILLS.search(line)):
            spills[kernel] = int(found.group(1)) + int(found.group(2))
            kernel = None
    return spills


def main() -> int:
    spills = read_spills(Path(sys.argv[1]).read_text())
    if not spills:
        print(f"{sys.argv[1]}: ptxas reported no kernel; expected its -v output", file=sys.stderr)
        return 1
    spilled = {kernel: count for kernel, count in spills.items() if count > 0}
    for (name, architecture), count in spilled.items():
        print(f"{name} for {architecture} spills {count} bytes of registers to memory", file=sys.stderr)
    architectures = sorted({architecture for _, architecture in spills})
    print(
        f"make cuda-check: {len(spills)} kernels for {', '.join(architectures)} compiled, {len(spilled)} of them spill"
    )
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
