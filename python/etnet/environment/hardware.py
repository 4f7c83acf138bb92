"""Processor, memory and the folder for results, read from the operating system."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What etnet runs on; sizes in bytes, None where the system does not tell.

    Attributes:
        platform: Operating system, kernel and architecture.
        processor: Model name of the processor.
        cores: Cores of the machine.
        usable_cores: Cores that this process may use.
        memory_bytes: Memory of the machine, or of the container where that is less.
        available_memory_bytes: Memory that is free or can be freed.
    """

    platform: str
    processor: str
    cores: int
    usable_cores: int
    memory_bytes: int | None
    available_memory_bytes: int | None


@dataclass(frozen=True)
class ResultsFolder:
    """The folder that commands write into by default.

    Attributes:
        path: Its absolute path; it need not exist yet.
        writable: Whether results can be written there.
        free_bytes: Space on its disk that this user may fill.
    """

    path: str
    writable: bool
    free_bytes: int | None


def machine() -> Machine:
    """Describe the machine."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    total = _least(_sysconf_memory(), _first_number(Path("/sys/fs/cgroup/memory.max"), r"^(\d+)$"))
    available = _first_number(Path("/proc/meminfo"), r"^MemAvailable:\s+(\d+) kB")
    return Machine(
        platform=platform.platform(),
        processor=_processor(),
        cores=cores,
        usable_cores=usable,
        memory_bytes=total,
        available_memory_bytes=_least(total, None if available is None else available * 1024),
    )


def results_folder(folder: Path) -> ResultsFolder:
    """Say whether `folder`, or the nearest folder above it that exists, can be written."""
    path = folder.absolute()
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    return ResultsFolder(str(path), nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK), free)


def _processor() -> str:
    match = _search(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$")
    return (match or platform.processor() or platform.machine()).strip()


def _sysconf_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _first_number(path: Path, pattern: str) -> int | None:
    found = _search(path, pattern)
    return None if found is None else int(found)


def _search(path: Path, pattern: str) -> str | None:
    try:
        match = re.search(pattern, path.read_text(errors="replace"), flags=re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
