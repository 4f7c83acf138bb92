"""The header of a MetaImage file as it is written, and whether the voxels that it announces are there.

ITK turns a negative spacing into a positive one and another direction, prints on stderr what it misses, and takes
compressed voxels that are damaged, too few or too many without a word. Format: the MetaIO page of ITK's documentation.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from etnet.data.inflated_size import ZLIB_OR_GZIP, inflated_bytes
from etnet.errors import DataError

_LONGEST_HEADER = 1 << 16
_NEEDED = (b"NDims", b"DimSize", b"ElementType", b"ElementDataFile")
_MOST_DIMENSIONS = 4
_MOST_LENGTH = 2**31 - 1
_VECTORS = (b"ElementSpacing", b"ElementSize", b"Offset", b"Position", b"Origin", b"CenterOfRotation")
_MATRICES = (b"TransformMatrix", b"Rotation", b"Orientation")


@dataclass(frozen=True)
class MetaImageHeader:
    """The lines of a header.

    Attributes:
        path: The file.
        fields: Value of each key, both as they are in the file.
        length: Bytes up to the end of the line that says where the voxels are, which is the last one.
        repeated: Keys of more than one line.
    """

    path: Path
    fields: dict[bytes, bytes]
    length: int
    repeated: frozenset[bytes] = frozenset()

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between voxels; NaN stands for what is no number, nothing for an absent line."""
        try:
            return tuple(float(number) for number in self.fields.get(b"ElementSpacing", b"").split())
        except ValueError:
            return (math.nan,) * 3

    def check_dimensions(self) -> None:
        """Compare the numbers in the header with the dimensions that it announces.

        ITK takes them as they are: with a number of dimensions below 0 or far above 10 the process ends on the spot.

        Raises:
            DataError: There are not 1 to 4 dimensions, or a line holds something else than as many numbers.
        """
        dimensions = self._whole_number(b"NDims", lowest=1, highest=_MOST_DIMENSIONS, absent=None)
        lengths = self.fields[b"DimSize"].split()
        if len(lengths) != dimensions or not all(_is_whole(length, 1, _MOST_LENGTH) for length in lengths):
            raise self._wrong(b"DimSize", f"{dimensions} whole numbers from 1 to {_MOST_LENGTH}, as NDims says")
        for keys, count in ((_VECTORS, dimensions), (_MATRICES, dimensions * dimensions)):
            for key in keys:
                if key in self.fields and len(self.fields[key].split()) != count:
                    raise self._wrong(key, f"{count} numbers, because NDims is {dimensions}")
                if key in self.fields and key != b"ElementSpacing" and not _are_numbers(self.fields[key]):
                    raise self._wrong(key, f"{count} finite numbers")
        self._whole_number(b"ElementNumberOfChannels", lowest=1, highest=_MOST_LENGTH, absent=b"1")
        self._whole_number(b"HeaderSize", lowest=-1, highest=_MOST_LENGTH, absent=b"0")

    def _whole_number(self, key: bytes, *, lowest: int, highest: int, absent: bytes | None) -> int:
        value = self.fields[key] if absent is None else self.fields.get(key, absent)
        if key in self.repeated or not _is_whole(value, lowest, highest):
            raise self._wrong(key, f"one line with a whole number from {lowest} to {highest}")
        return int(value)

    def _wrong(self, key: bytes, expected: str) -> DataError:
        held = self.fields[key].split()
        # Text is not repeated: whoever damages a header may have put a name there.
        shown = " ".join(part.decode() if re.fullmatch(rb"[-+.0-9]{1,20}", part) else "?" for part in held[:9])
        more = " ..." if len(held) > 9 else ""
        return DataError(
            f"{self.path}: the line {key.decode()} of its header holds {shown or 'nothing'}{more}; expected "
            f"{expected}; copy or export the volume again"
        )

    def check_voxels(self, expected: int) -> None:
        """Compare the voxels with what the header announces, before any memory is taken for them.

        Args:
            expected: Bytes of all voxels.

        Raises:
            DataError: Their file is missing, holds more or less, or is damaged; they are spread over several files or
                written as text.
        """
        part, start = self.voxel_file()
        size = part.stat().st_size - start
        if self._says(b"CompressedData"):
            held = self._inflated_bytes(part, start, expected)
        else:
            held = expected if self._starts_at_end and size >= expected else size
        if held != expected:
            more = "more than " if held > expected else ""
            raise DataError(
                f"{self.path}: holds {more}{min(held, expected)} bytes of voxels; expected {expected}, as its header "
                "announces; copy or export the volume again"
            )

    def _inflated_bytes(self, part: Path, start: int, expected: int) -> int:
        try:
            with part.open("rb") as stream:
                stream.seek(start)
                return inflated_bytes(stream, wrapper=ZLIB_OR_GZIP, most=expected)
        except (zlib.error, EOFError):
            raise DataError(
                f"{self.path}: its compressed voxels are damaged or incomplete; copy or export the volume again"
            ) from None

    @property
    def _starts_at_end(self) -> bool:
        return self.fields.get(b"HeaderSize") == b"-1"

    def _says(self, key: bytes) -> bool:
        return self.fields.get(key, b"").lower() in (b"true", b"t", b"1")

    def voxel_file(self) -> tuple[Path, int]:
        """The file with the voxels, which is there and no pipe, and where in it they begin.

        Raises:
            DataError: There is no such file, or the voxels are spread over several.
        """
        name = self.fields[b"ElementDataFile"]
        if name.upper() == b"LOCAL":
            return self.path, self.length
        if name.upper().startswith(b"LIST") or b"%" in name:
            raise DataError(
                f"{self.path}: its voxels are spread over several files; expected one; save the volume as one .mha file"
            )
        # The name is not repeated: it is text from inside a medical file.
        part = self.path.parent / name.decode("utf-8", "surrogateescape")
        if not _is_file(part):
            raise DataError(
                f"{self.path}: the file with its voxels is missing; expected what the line ElementDataFile names "
                "beside the header; copy both, or save the volume as one .mha file"
            )
        start = self.fields.get(b"HeaderSize", b"0")
        return part, int(start) if start.isdigit() else 0


def read_metaimage_header(path: Path) -> MetaImageHeader:
    """Read the lines of a header.

    Raises:
        DataError: The file cannot be opened, or lines are missing without which there is no volume.
    """
    fields: dict[bytes, bytes] = {}
    repeated: set[bytes] = set()
    length = 0
    try:
        with path.open("rb") as stream:
            lines = stream.read(_LONGEST_HEADER).splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}); check the path") from error
    for line in lines:
        length += len(line)
        key, value = _key_and_value(line)
        if key in fields:
            repeated.add(key)
        fields[key] = value
        if key == b"ElementDataFile":
            break
    missing = [name.decode() for name in _NEEDED if name not in fields]
    if missing:
        raise DataError(f"{path}: its header has no {missing[0]}; expected a MetaImage volume; copy or export it again")
    if fields.get(b"BinaryData", b"True").lower() in (b"false", b"f", b"0"):
        raise DataError(
            f"{path}: its voxels are written as text; expected numbers of fixed size; save it as binary data"
        )
    return MetaImageHeader(path, fields, length, frozenset(repeated))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name longer than any may be
        return False


def _key_and_value(line: bytes) -> tuple[bytes, bytes]:
    # ITK takes a colon as well.
    parts = re.split(rb"[=:]", line, maxsplit=1)
    return parts[0].strip(), parts[1].strip() if len(parts) == 2 else b""


def _is_whole(text: bytes, lowest: int, highest: int) -> bool:
    return re.fullmatch(rb"[-+]?[0-9]{1,18}", text) is not None and lowest <= int(text) <= highest


def _are_numbers(text: bytes) -> bool:
    try:
        return all(math.isfinite(float(part)) for part in text.split())
    except ValueError:
        return False
