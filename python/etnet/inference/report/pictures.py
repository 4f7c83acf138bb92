"""Small pictures inside the page: drawn in a few threads, encoded to a few kilobytes each, in the order of the rows."""

from __future__ import annotations

import base64
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from etnet.errors import EtnetError
from etnet.inference.report.content import ReportRow
from etnet.types import UInt8Array

Draw = Callable[[ReportRow], "UInt8Array | None"]

LONGEST_SIDE = 320
"""Height or width of a picture in pixels, at most."""

_MOST_BYTES = 10240
_QUALITIES = (75, 45, 30)
_EFFORT = 0
"""Of libwebp, 0..6: with 2 a picture takes half as long again and shrinks by an eighth."""


@dataclass(frozen=True)
class Picture:
    """A picture for an `img` element: its address, which holds its bytes, and its size in pixels."""

    uri: str
    height: int
    width: int


def encode(picture: UInt8Array) -> Picture:
    """A picture of at most `LONGEST_SIDE` pixels as WebP, in the best of a few qualities that fits 10 KB.

    A picture that fits in none is taken in the lowest: fine texture is rare, and a report without it is worth less.

    Args:
        picture: RGB picture [H, W, 3], uint8.
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX, reducing_gap=None)
    content = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=_EFFORT)
        content = buffer.getvalue()
        if len(content) <= _MOST_BYTES:
            break
    return Picture(f"data:image/webp;base64,{base64.b64encode(content).decode()}", image.height, image.width)


def draw_pictures(rows: Iterable[ReportRow], draw: Draw, *, threads: int) -> Iterator[tuple[ReportRow, Picture | None]]:
    """Each row with its picture, in order; None where the image is gone.

    At most four pictures per thread wait to be written, so that memory does not grow with the rows.
    """
    waiting: deque[tuple[ReportRow, Future[Picture | None]]] = deque()
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="etnet-report") as pool:
        remaining = iter(rows)
        try:
            for row in islice(remaining, 4 * threads):
                waiting.append((row, pool.submit(_picture, row, draw)))
            while waiting:
                row, future = waiting.popleft()
                yield row, future.result()
                for following in islice(remaining, 1):
                    waiting.append((following, pool.submit(_picture, following, draw)))
        finally:
            for _, future in waiting:
                future.cancel()


def _picture(row: ReportRow, draw: Draw) -> Picture | None:
    try:
        drawn = draw(row)
    except EtnetError:
        # The row itself says so: its card has no picture.
        return None
    return None if drawn is None else encode(drawn)
