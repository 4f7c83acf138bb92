"""The memory of a long run: one JSON line for every finished input, so that a run that was cut off can go on.

A line counts only if its run key, the SHA-256 of the input, what a table says of it and the sizes of all written files
are as it says: a result of other settings, of a changed image, or of which a file is gone is made again. Lines are
appended as inputs finish; at the end the file is written anew in the order of the inputs, so that equal runs leave
equal files.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from etnet.errors import UsageError
from etnet.inference.inputs import InputItem
from etnet.inference.results import Failure, ImageResult, Result, result_from_dict, result_to_dict
from etnet.output import disk_faults, replacing

NAME = "journal"


def journal_name(part: tuple[int, int] | None = None) -> str:
    """File name of the journal of a whole run, or of a part (number from 0, of how many).

    >>> journal_name(), journal_name((0, 4))
    ('journal.jsonl', 'journal.part-0-of-4.jsonl')
    """
    return f"{NAME}{part_suffix(part)}.jsonl"


def part_suffix(part: tuple[int, int] | None) -> str:
    """What the names of a part's tables have before their suffix; nothing for a whole run."""
    return "" if part is None else ".part-{}-of-{}".format(*part)


def run_key(settings: Mapping[str, Any]) -> str:
    """Hash of everything that decides what a result looks like, such as the model's hash and thresholds."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """The journal of one output folder, locked against other runs while it is open.

    Finished inputs are known by their place in the file; nothing else of them is in memory.

    Attributes:
        folder: The output folder.
        path: The journal's file.
        others: Results of earlier runs that were made with another model or other settings.
    """

    def __init__(self, folder: Path, *, key: str, part: tuple[int, int] | None = None) -> None:
        """Open or start the journal; results of earlier runs are known, those of other parts too.

        Args:
            folder: Output folder, which exists.
            key: `run_key` of this run.
            part: Number and count of this part; None for a whole run, which takes over the journals of all parts.

        Raises:
            UsageError: Another run is writing here.
            EnvironmentFault: The disk refuses.
        """
        self.folder = folder
        self.path = folder / journal_name(part)
        self._key = key
        self._lines = threading.Lock()
        self._known: dict[str, tuple[Path, int]] = {}
        self.others = 0
        self._resources = ExitStack()
        self._parts = sorted(folder.glob(f"{NAME}.part-*.jsonl")) if part is None else []
        with self._resources:
            for path in (self.path, *self._parts):
                self._lock(path)
            with disk_faults(self.path):
                _drop_torn_line(self.path)
                self._stream: BinaryIO = self._resources.enter_context(self.path.open("ab"))
            for path in (*self._parts, self.path):
                self._index(path)
            self._resources = self._resources.pop_all()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other runs in."""
        self._resources.close()

    def __len__(self) -> int:
        return len(self._known)

    def finished(self, item: InputItem, sha256: str) -> ImageResult | None:
        """The result of an input if it is complete: same run key, same input, and every file as it was written."""
        result = self.complete(item.id)
        return result if result is not None and result.is_of(item, sha256) else None

    def complete(self, file: str) -> ImageResult | None:
        """The result of an input if its files are complete; whether the input is still the same is not looked at."""
        line = self._line_of(file)
        if line is None or line["key"] != self._key:
            return None
        result = result_from_dict(line["result"])
        if isinstance(result, Failure):
            return None
        return result if all(_size(self.folder / path) == size for path, size in line["bytes"].items()) else None

    def clear(self) -> None:
        """Forget all results and remove their files.

        Raises:
            EnvironmentFault: The disk refuses.
        """
        with disk_faults(self.folder):
            for result in self.results():
                for written in result.written if isinstance(result, ImageResult) else ():
                    (self.folder / written).unlink(missing_ok=True)
            self._stream.truncate(0)
            self._stream.seek(0)
            for path in self._parts:
                path.unlink(missing_ok=True)
        self._known.clear()

    def append(self, result: Result) -> None:
        """Note that an input is finished; its files are there already.

        Raises:
            EnvironmentFault: The disk refuses.
        """
        written = result.written if isinstance(result, ImageResult) else ()
        with disk_faults(self.path), self._lines:
            line = {
                "key": self._key,
                "result": result_to_dict(result),
                "bytes": {path: (self.folder / path).stat().st_size for path in written},
            }
            place = self._stream.tell()
            self._stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            # Handed to the system at once: a killed process loses nothing.
            self._stream.flush()
            self._known[result.file] = (self.path, place)

    def results(self) -> Iterator[Result]:
        """All results, the newest of each input, in the order of the file; read again each time."""
        for file in list(self._known):
            line = self._line_of(file)
            if line is not None:
                yield result_from_dict(line["result"])

    def finish(self, order: Iterable[str]) -> None:
        """Write the journal anew in the order of the inputs; journals of parts are taken over and removed.

        Args:
            order: Ids of the inputs; results of others, which are no longer there, follow.

        Raises:
            EnvironmentFault: The disk refuses; the journal stays as it was.
        """
        ordered = [file for file in order if file in self._known]
        ordered += sorted(self._known.keys() - set(ordered))
        places: dict[str, tuple[Path, int]] = {}
        with replacing(self.path) as partial:
            with partial.open("wb") as stream:
                for file in ordered:
                    places[file] = (self.path, stream.tell())
                    stream.write(self._bytes_of(file))
            self._stream.close()
        self._known = places
        for path in self._parts:
            path.unlink(missing_ok=True)

    def _lock(self, path: Path) -> None:
        lock = FileLock(path.with_name(f".{path.stem}.lock"))
        with disk_faults(path):
            try:
                self._resources.enter_context(lock.acquire(timeout=0))
            except Timeout:
                raise UsageError(
                    f"{self.folder}: another etnet infer is writing here ({path.name}); wait for it, or name another "
                    "--output"
                ) from None

    def _index(self, path: Path) -> None:
        if not path.exists():
            return
        with path.open("rb") as stream:
            place = 0
            for content in stream:
                line = _decoded(content)
                if line is not None:
                    # The newest line of an input counts, and takes the place of the order in which inputs finished.
                    self._known.pop(line["result"]["file"], None)
                    self._known[line["result"]["file"]] = (path, place)
                    self.others += line["key"] != self._key
                place += len(content)

    def _line_of(self, file: str) -> dict[str, Any] | None:
        return _decoded(self._bytes_of(file)) if file in self._known else None

    def _bytes_of(self, file: str) -> bytes:
        path, place = self._known[file]
        with path.open("rb") as stream:
            stream.seek(place)
            return stream.readline()


def read_journal(path: Path) -> Iterator[Result]:
    """All results in a finished journal, in the order of its inputs.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        for content in stream:
            line = _decoded(content)
            if line is not None:
                yield result_from_dict(line["result"])


def _decoded(content: bytes) -> dict[str, Any] | None:
    """A line, or None for one that is no line of a journal."""
    try:
        line = json.loads(content)
        result_from_dict(line["result"])
    except (ValueError, KeyError, TypeError):
        return None
    return line if isinstance(line, dict) and {"key", "bytes"} <= line.keys() else None


def _drop_torn_line(path: Path) -> None:
    """Cut off what a killed process left behind the last line end."""
    if not path.exists():
        return
    with path.open("r+b") as stream:
        size = stream.seek(0, 2)
        kept, block = size, 1 << 16
        while kept > 0:
            start = max(0, kept - block)
            stream.seek(start)
            end = stream.read(kept - start).rfind(b"\n")
            kept = start if end < 0 else start + end + 1
            if end >= 0:
                break
        if kept < size:
            stream.truncate(kept)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
