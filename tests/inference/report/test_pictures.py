from __future__ import annotations

import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image

from etnet.errors import DataError
from etnet.inference.report.pictures import LONGEST_SIDE, Picture, draw_pictures, encode
from helpers.reports import disc, row


def decoded(picture: Picture) -> Image.Image:
    head, content = picture.uri.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("shape", [(240, 320), (1000, 500), (5, 3), (1, 1), (3000, 20)])
def test_pictures_keep_their_proportions_and_grow_no_larger_than_they_are(shape):
    picture = encode(np.full((*shape, 3), 90, np.uint8))
    factor = min(1.0, LONGEST_SIDE / max(shape))
    assert picture.height == pytest.approx(shape[0] * factor, abs=1)
    assert picture.width == pytest.approx(shape[1] * factor, abs=1)
    assert decoded(picture).size == (picture.width, picture.height)


def test_a_picture_of_ordinary_detail_is_small_and_true():
    drawn = disc(row("eye.png"))
    picture = encode(drawn)
    assert len(picture.uri) < 6656 * 4 / 3 + 40
    difference = np.asarray(decoded(picture).convert("RGB")).astype(float) - drawn
    assert np.sqrt(np.mean(difference**2)) < 8


def test_fine_texture_costs_quality_before_it_costs_size():
    rng = np.random.default_rng(0)
    noisy, smooth = (rng.integers(0, high, (320, 320, 3), dtype=np.uint8) for high in (60, 2))
    assert len(encode(smooth).uri) < len(encode(noisy).uri) < 40_000


def test_a_view_that_is_not_contiguous_is_encoded_as_it_looks():
    drawn = disc(row("eye.png"))
    assert encode(drawn[:, ::-1]).uri == encode(drawn[:, ::-1].copy()).uri


def test_rows_keep_their_order_whoever_is_drawn_first():
    rows = [row(str(index)) for index in range(40)]
    turn = threading.Semaphore(0)

    def draw(one):
        # The first waits for the second, which runs in the other thread.
        turn.release() if one.file == "1" else turn.acquire() if one.file == "0" else None
        return np.full((4, 4, 3), int(one.file), np.uint8)

    pairs = list(draw_pictures(rows, draw, threads=2))
    assert [one for one, _ in pairs] == rows
    levels = [np.asarray(decoded(picture)).mean() for _, picture in pairs]
    assert np.abs(np.array(levels) - np.arange(40)).max() < 4


def test_a_picture_that_is_gone_or_cannot_be_read_is_none():
    def draw(one):
        if one.file == "damaged":
            raise DataError("damaged: cannot be read")
        return

    assert [picture for _, picture in draw_pictures([row("gone"), row("damaged")], draw, threads=1)] == [None, None]


def test_a_mistake_of_the_drawing_code_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(draw_pictures([row("a")], lambda one: 1 / 0, threads=1))


def test_few_pictures_wait_to_be_written():
    drawn = []

    def draw(one):
        drawn.append(one)
        return np.zeros((2, 2, 3), np.uint8)

    pictures = draw_pictures((row(str(index)) for index in range(1000)), draw, threads=2)
    for _ in range(3):
        next(pictures)
    pictures.close()
    assert len(drawn) <= 3 + 4 * 2
