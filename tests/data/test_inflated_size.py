from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pytest

from etnet.data.inflated_size import RAW, ZLIB_OR_GZIP, inflated_bytes

RANDOM = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8).tobytes()
MIXED = RANDOM + bytes(3_000_000) + RANDOM


def raw(content: bytes) -> bytes:
    deflation = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflation.compress(content) + deflation.flush()


@pytest.mark.parametrize(
    "content", [b"", b"a", RANDOM, bytes(5_000_000), MIXED], ids=["none", "one", "r", "0", "mixed"]
)
@pytest.mark.parametrize(
    ("pack", "wrapper"), [(raw, RAW), (zlib.compress, ZLIB_OR_GZIP), (gzip.compress, ZLIB_OR_GZIP)]
)
def test_a_stream_unpacks_to_the_length_of_what_was_packed(content, pack, wrapper):
    assert inflated_bytes(io.BytesIO(pack(content)), wrapper=wrapper, most=10**9) == len(content)
    assert inflated_bytes(io.BytesIO(pack(content)), wrapper=wrapper, most=len(content)) == len(content)


def test_counting_ends_a_little_beyond_the_limit():
    packed = io.BytesIO(zlib.compress(bytes(100_000_000)))
    assert 1000 < inflated_bytes(packed, wrapper=ZLIB_OR_GZIP, most=1000) < 3_000_000


@pytest.mark.parametrize("content", [RANDOM, bytes(5_000_000), MIXED])
def test_damage_and_early_ends_are_errors(content):
    packed = zlib.compress(content)
    for share in (0.0, 0.3, 0.9):
        with pytest.raises(EOFError):
            inflated_bytes(io.BytesIO(packed[: int(len(packed) * share)]), wrapper=ZLIB_OR_GZIP, most=10**9)
    damaged = bytearray(packed)
    damaged[-1] ^= 1
    with pytest.raises(zlib.error):
        inflated_bytes(io.BytesIO(damaged), wrapper=ZLIB_OR_GZIP, most=10**9)
