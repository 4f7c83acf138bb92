"""The memory of a long run: one JSON line for every finished input, so that a run that was cut off can go on.

A line counts only if its run key, the SHA-256 of the input, what a table says of it and the checksums of all written
files are as it says: a result of other settings, of a changed image, or of which a file is gone is made again. Lines
are appended as inputs finish; at the end the file is written anew in the order of the inputs, so that equal runs leave
equal files.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from etnet.errors import UsageError
from etnet.inference.inputs import InputItem
from etnet.inference.results import (
    RESULT_FOLDERS,
    Failure,
    ImageResult,
    Result,
    result_from_dict,
    result_to_dict,
)
from etnet.output import disk_faults, replacing

NAME = "journal"
LONGEST_START = 5.0
"""Seconds for which a run waits for others that are starting in the same folder."""


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


@dataclass(frozen=True)
class _Line:
    """What the journal holds of one input.

    Attributes:
        key: Run key of the run that made it.
        result: What became of the input.
        files: Length and CRC-32 of each file that was written, by its path relative to the output folder.
    """

    key: str
    result: Result
    files: dict[str, tuple[int, int]]

    def encoded(self) -> bytes:
        """The line with its end."""
        content = {"key": self.key, "result": result_to_dict(self.result), "files": self.files}
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def is_intact(self, folder: Path, file: str) -> bool:
        """Whether one of its files is as it was written."""
        return _fingerprint(folder / file) == self.files[file]


class _Place(NamedTuple):
    """Where the newest line of an input lies, and whether it has the key of this run."""

    path: Path
    offset: int
    is_current: bool


class Journal:
    """The journal of one output folder, locked against other runs while it is open.

    Finished inputs are known by their place in the file; nothing else of them is in memory.

    Attributes:
        folder: The output folder.
        path: The journal's file.
    """

    def __init__(self, folder: Path, *, key: str, part: tuple[int, int] | None = None, source: str = "") -> None:
        """Open or start the journal; a whole run takes over the lines of all parts.

        Args:
            folder: Output folder, which exists.
            key: `run_key` of this run.
            part: Number and count of this part; None for a whole run.
            source: What is segmented, as `source_key` gives it; noted in a new journal.

        Raises:
            UsageError: Another run is writing here.
            EnvironmentFault: The disk refuses.
        """
        self.folder = folder
        self.path = folder / journal_name(part)
        self._key, self._source = key, source
        self._lines = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._resources = ExitStack()
        with self._resources:
            self._lock_folder(part)
            with disk_faults(self.path):
                _drop_torn_line(self.path)
                self._stream: BinaryIO = self._resources.enter_context(self.path.open("ab"))
                if not self._stream.tell():
                    self._write(_header(source))
                for path in sorted(folder.glob(f"{NAME}.part-*.jsonl")) if part is None else ():
                    self._take_over(path)
            self._index()
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
        return len(self._places)

    @property
    def others(self) -> int:
        """How many results were made with another model or other settings."""
        return sum(not place.is_current for place in self._places.values())

    def finished(self, item: InputItem, sha256: str) -> ImageResult | None:
        """The result of an input if it is complete: same run key, same input, and every file as it was written."""
        result = self.complete(item.id)
        return result if result is not None and result.is_of(item, sha256) else None

    def complete(self, file: str) -> ImageResult | None:
        """The result of an input if its files are complete; whether the input is still the same is not looked at."""
        line = self._line_of(file)
        if line is None or line.key != self._key or isinstance(line.result, Failure):
            return None
        return line.result if all(line.is_intact(self.folder, path) for path in line.files) else None

    def clear(self) -> None:
        """Forget all results and remove their files.

        Raises:
            EnvironmentFault: The disk refuses.
        """
        with disk_faults(self.folder):
            for file in list(self._places):
                line = self._line_of(file)
                for path in line.files if line is not None else ():
                    (self.folder / path).unlink(missing_ok=True)
            self._stream.truncate(0)
            self._stream.seek(0)
            self._write(_header(self._source))
        self._places.clear()

    def append(self, result: Result) -> None:
        """Note that an input is finished; its files are there already, and files of an earlier result are removed.

        Raises:
            EnvironmentFault: The disk refuses.
        """
        written = result.written if isinstance(result, ImageResult) else ()
        with disk_faults(self.path), self._lines:
            earlier = self._line_of(result.file)
            if earlier is not None:
                for path in earlier.files.keys() - set(written):
                    # One that has changed since then belongs to another result by now.
                    if earlier.is_intact(self.folder, path):
                        (self.folder / path).unlink(missing_ok=True)
            line = _Line(self._key, result, {path: _fingerprint(self.folder / path) or (0, 0) for path in written})
            offset = self._stream.tell()
            self._write(line.encoded())
            self._places[result.file] = _Place(self.path, offset, is_current=True)

    def results(self) -> Iterator[Result]:
        """All results, the newest of each input, in the order of the file; read again each time."""
        for file in list(self._places):
            line = self._line_of(file)
            if line is not None:
                yield line.result

    def finish(self, order: Iterable[str]) -> None:
        """Write the journal anew in the order of the inputs.

        Results of inputs that are no longer there follow, unless their files belong to others by now; failures of such
        inputs are dropped.

        Args:
            order: Ids of the inputs.

        Raises:
            EnvironmentFault: The disk refuses; the journal stays as it was.
        """
        present = [file for file in order if file in self._places]
        ordered = [*present, *self._still_valid(set(present))]
        places: dict[str, _Place] = {}
        with replacing(self.path) as partial:
            with partial.open("wb") as stream:
                stream.write(_header(self._source))
                for file in ordered:
                    places[file] = self._places[file]._replace(path=self.path, offset=stream.tell())
                    stream.write(self._bytes_of(file))
            self._stream.close()
        self._places = places

    def _still_valid(self, present: set[str]) -> list[str]:
        gone = sorted(self._places.keys() - present)
        if not gone:
            return []
        lines = {file: self._line_of(file) for file in gone}
        owned = {path for file in present for path in getattr(self._line_of(file), "files", ())}
        return [
            file
            for file, line in lines.items()
            if line is not None and isinstance(line.result, ImageResult) and owned.isdisjoint(line.files)
        ]

    def _lock_folder(self, part: tuple[int, int] | None) -> None:
        """Keep out other whole runs and all parts, or the same part and whole runs."""
        whole = self.folder / f".{NAME}.lock"
        with ExitStack() as while_starting:
            # A part holds this lock only while it takes its own, so that others may wait for it.
            (self._resources if part is None else while_starting).enter_context(
                self._lock(whole, timeout=LONGEST_START)
            )
            if part is not None:
                self._resources.enter_context(self._lock(self.folder / f".{NAME}{part_suffix(part)}.lock"))
                return
            for lock in sorted(self.folder.glob(f".{NAME}.part-*.lock")):
                self._resources.enter_context(self._lock(lock))

    def _lock(self, path: Path, *, timeout: float = 0.0) -> AbstractContextManager[Any]:
        with disk_faults(path):
            try:
                return FileLock(path).acquire(timeout=timeout)
            except Timeout:
                raise UsageError(
                    f"{self.folder}: another etnet infer is writing here ({path.name}); wait for it, or name another "
                    "--output"
                ) from None

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        # Handed to the system at once: a killed process loses nothing.
        self._stream.flush()

    def _take_over(self, part: Path) -> None:
        """Move the lines of a part behind those of this journal, which are older."""
        with part.open("rb") as stream:
            for content in stream:
                if _decoded(content) is not None:
                    self._write(content)
        part.unlink()

    def _index(self) -> None:
        with self.path.open("rb") as stream:
            offset = 0
            for content in stream:
                line = _decoded(content)
                if line is not None:
                    # The newest line of an input counts, and takes the place of the order in which inputs finished.
                    self._places.pop(line.result.file, None)
                    self._places[line.result.file] = _Place(self.path, offset, line.key == self._key)
                offset += len(content)

    def _line_of(self, file: str) -> _Line | None:
        return _decoded(self._bytes_of(file)) if file in self._places else None

    def _bytes_of(self, file: str) -> bytes:
        place = self._places[file]
        with place.path.open("rb") as stream:
            stream.seek(place.offset)
            return stream.readline()


def source_key(source: Path) -> str:
    """A hash that tells one input folder from another without naming it."""
    return hashlib.sha256(str(source.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]


def journal_source(path: Path) -> str | None:
    """The `source_key` of what a journal's run segmented; None where the journal does not say."""
    try:
        with path.open("rb") as stream:
            header = json.loads(stream.readline())
    except (OSError, ValueError):
        return None
    return header.get("source") if isinstance(header, dict) else None


def read_journal(path: Path) -> Iterator[Result]:
    """All results in a finished journal, in the order of its inputs.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        for content in stream:
            line = _decoded(content)
            if line is not None:
                yield line.result


def _header(source: str) -> bytes:
    return json.dumps({"etnet_journal": 1, "source": source}).encode() + b"\n"


def _decoded(content: bytes) -> _Line | None:
    """A line, or None for what is no line of a journal, or names files outside the folders of results."""
    try:
        fields = json.loads(content)
        files = {str(path): (int(size), int(checksum)) for path, (size, checksum) in fields["files"].items()}
        line = _Line(str(fields["key"]), result_from_dict(fields["result"]), files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return line if all(map(_is_inside, line.files)) else None


def _is_inside(file: str) -> bool:
    parts = PurePosixPath(file).parts
    return len(parts) > 1 and parts[0] in RESULT_FOLDERS and ".." not in parts


def _fingerprint(path: Path) -> tuple[int, int] | None:
    """Length and CRC-32 of a file; None where there is none."""
    length = checksum = 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                length, checksum = length + len(block), zlib.crc32(block, checksum)
    except OSError:
        return None
    return length, checksum


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
