"""What a suite has done, in its folder: `suite.json`, whole after every step, and the lock against a second suite."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT = 1
ROOT = Path(__file__).resolve().parents[2]

PRODUCT = ("python", "trt", "csrc", "CMakeLists.txt", "pyproject.toml")
SCRIPTS = ("benchmarks",)
TESTS = ("tests",)

_NOT_SOURCES = {"__pycache__", "results", ".venvs", "build"}


class SuiteFault(Exception):
    """The suite cannot go on; the text is for its user.

    Args:
        text: One sentence.
        code: Exit code: 2 for what the user can say otherwise, 4 for what the machine refuses.
    """

    def __init__(self, text: str, code: int = 4) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep it to this process; the lock goes with the process, however it ends.

    Raises:
        SuiteFault: It cannot be written to, or another suite works in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        stream = (folder / ".lock").open("a+")
    except OSError as error:
        raise SuiteFault(f"--out {folder}: cannot be written to ({error.strerror}); name another folder", 2) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise SuiteFault(
                f"--out {folder}: another suite (process {holder}) works there; wait for it or name another folder", 2
            ) from None
        # Children do not inherit it: one that survives a killed suite must not keep the next one out.
        with disk_faults(folder):
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
        yield


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn a refusal of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise SuiteFault(
            f"{path}: cannot be written ({error.strerror}); what is done is kept, "
            "so make room and give the same command again"
        ) from error


class State:
    """The steps that were begun, by name, as `suite.json` holds them."""

    def __init__(self, folder: Path) -> None:
        """Read the file where there is one.

        Raises:
            SuiteFault: It is not from a suite.
        """
        self.file = folder / "suite.json"
        self.content: dict[str, Any] = {"format": FORMAT, "steps": {}}
        if self.file.exists():
            try:
                content = json.loads(self.file.read_text("utf-8"))
                fits = content["format"] == FORMAT and isinstance(content["steps"], dict)
            except (OSError, ValueError, KeyError, TypeError):
                fits = False
            if not fits:
                raise SuiteFault(f"{self.file}: is not the state of such a suite; name another folder with --out", 2)
            self.content = content

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """Every step's record."""
        steps: dict[str, dict[str, Any]] = self.content["steps"]
        return steps

    def is_done(self, name: str, key: str) -> bool:
        """Whether a step was done by the same command on the same sources and machine."""
        record = self.steps.get(name, {})
        return record.get("status") == "done" and record.get("key") == key

    def record(self, name: str, **facts: Any) -> None:
        """Replace what is known of a step, and write it.

        Raises:
            SuiteFault: The disk refuses.
        """
        self.steps[name] = facts
        self.save()

    def save(self) -> None:
        """Write the file; it is the old one or the new one at any moment.

        Raises:
            SuiteFault: The disk refuses.
        """
        temporary = self.file.with_name(".suite.json.part")
        with disk_faults(self.file):
            try:
                with temporary.open("w", encoding="utf-8") as stream:
                    stream.write(json.dumps(self.content, indent=2) + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(self.file)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


def digest(names: Iterable[str], root: Path = ROOT) -> str:
    """Of the content of source files, tracked or not, which also holds where there is no git."""
    found = hashlib.sha256()
    for path in _files(names, root):
        found.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _files(names: Iterable[str], root: Path) -> Iterator[Path]:
    for name in names:
        path = root / name
        if path.is_file() and path.suffix != ".so":
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _files(
                sorted(
                    str(inner.relative_to(root))
                    for inner in path.iterdir()
                    if inner.name not in _NOT_SOURCES and (inner.is_dir() or inner.suffix != ".pyc")
                ),
                root,
            )


def gpus() -> list[str]:
    """Names of the GPUs that the driver lists; a suite must not go on with figures of another machine."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.split("\n")[:-1]
    return []


def machine() -> str:
    """Processor, cores and GPUs in a line."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return "; ".join([processor, f"{os.cpu_count()} cores", *gpus()])
