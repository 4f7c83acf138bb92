"""The header of a MetaImage file as it is written, and whether the voxels that it announces are there.

ITK turns a negative spacing into a positive one and another direction, prints on stderr what it misses, and takes
compressed voxels that are damaged, too few or too many without a word. Format: the MetaIO page of ITK's documentation.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

from etnet.data.inflated_size import ZLIB_OR_GZIP, inflated_bytes
from etnet.errors import DataError

_LONGEST_HEADER = 1 << 16
_NEEDED = (b"NDims", b"DimSize", b"ElementType", b"ElementDataFile")


@dataclass(frozen=True)
class MetaImageHeader:
    """The lines of a header.

    Attributes:
        path: The file.
        fields: Value of each key, both as they are in the file.
        length: Bytes up to the end of the line that says where the voxels are, which is the last one.
    """

    path: Path
    fields: dict[bytes, bytes]
    length: int

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between voxels; NaN stands for what is no number, nothing for an absent line."""
        try:
            return tuple(float(number) for number in self.fields.get(b"ElementSpacing", b"").split())
        except ValueError:
            return (math.nan,) * 3

    def check_voxels(self, expected: int) -> None:
        """Compare the voxels with what the header announces, before any memory is taken for them.

        Args:
            expected: Bytes of all voxels.

        Raises:
            DataError: Their file is missing, holds more or less, or is damaged; they are spread over several files or
                written as text.
        """
        part, start = self._voxel_file()
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

    def _voxel_file(self) -> tuple[Path, int]:
        """The file with the voxels, and where in it they begin."""
        name = self.fields[b"ElementDataFile"]
        if name.upper() == b"LOCAL":
            return self.path, self.length
        if name.upper().startswith(b"LIST") or b"%" in name:
            raise DataError(
                f"{self.path}: its voxels are spread over several files; expected one; save the volume as one .mha file"
            )
        # The name is not repeated: it is text from inside a medical file.
        part = self.path.parent / name.decode("utf-8", "surrogateescape")
        if not part.is_file():
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
    length = 0
    try:
        with path.open("rb") as stream:
            lines = stream.read(_LONGEST_HEADER).splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}); check the path") from error
    for line in lines:
        length += len(line)
        key, _, value = line.partition(b"=")
        fields[key.strip()] = value.strip()
        if key.strip() == b"ElementDataFile":
            break
    missing = [name.decode() for name in _NEEDED if name not in fields]
    if missing:
        raise DataError(f"{path}: its header has no {missing[0]}; expected a MetaImage volume; copy or export it again")
    if fields.get(b"BinaryData", b"True").lower() in (b"false", b"f", b"0"):
        raise DataError(
            f"{path}: its voxels are written as text; expected numbers of fixed size; save it as binary data"
        )
    return MetaImageHeader(path, fields, length)
