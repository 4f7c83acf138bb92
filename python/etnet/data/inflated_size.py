"""How much a deflated stream unpacks to, without keeping any of it: asked before memory is taken for it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

_READ_AT_ONCE = 1 << 16
_UNPACKED_AT_ONCE = 1 << 20

RAW = -zlib.MAX_WBITS
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


def inflated_bytes(stream: BinaryIO, *, wrapper: int, most: int) -> int:
    """Unpack a stream from where it stands, to its end or to a little beyond `most` bytes.

    Args:
        stream: Binary stream.
        wrapper: `RAW` or `ZLIB_OR_GZIP`, whose checksum is compared at the end.
        most: Bytes after which counting ends.

    Returns:
        Number of bytes; more than `most` stands for any larger number.

    Raises:
        zlib.error: The stream is damaged.
        EOFError: The stream ends too early.
    """
    inflation = zlib.decompressobj(wrapper)
    held = 0
    for block in _blocks(stream):
        waiting = block
        while waiting and not inflation.eof:
            held += len(inflation.decompress(waiting, _UNPACKED_AT_ONCE))
            waiting = inflation.unconsumed_tail
            if held > most:
                return held
        if inflation.eof:
            return held
    raise EOFError("the stream ends too early")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_READ_AT_ONCE):
        yield block
