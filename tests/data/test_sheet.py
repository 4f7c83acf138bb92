from __future__ import annotations

import numpy as np

from etnet.data.sheet import EDGE, FRAME, IGNORED, PAPER, Sheet, SheetRow, class_legend, edged, fitted, framed, masked

COLORS = np.array([[0, 0, 0], [0, 200, 0], [200, 0, 0]], np.uint8)


def test_an_image_is_scaled_to_the_longer_side_and_centred():
    tile = fitted(np.full((10, 20, 3), 7, np.uint8), 40)
    assert tile.shape == (40, 40, 3)
    assert (tile[10:30] == 7).all()
    assert (tile[:10] == PAPER).all()
    assert (tile[30:] == PAPER).all()


def test_classes_are_laid_over_the_image_and_the_background_stays():
    image, mask = np.full((1, 4, 3), 100, np.uint8), np.array([[0, 1, 2, 255]], np.uint8)
    assert masked(image, mask, COLORS, strength=0.5)[0].tolist() == [
        [100, 100, 100],
        [50, 150, 50],
        [150, 50, 50],
        [(100 + value) // 2 for value in IGNORED],
    ]


def test_edges_stand_out_of_a_dark_image():
    picture = edged(np.full((1, 3, 3), 100, np.uint8), np.array([[0, 1, 255]], np.uint8), 255)
    assert picture[0].tolist() == [[38, 38, 38], list(EDGE), list(IGNORED)]


def test_outside_the_outline_the_image_is_darker():
    outline = np.array([[25, 25], [75, 25], [75, 75], [25, 75]], dtype=float)
    tile = framed(np.full((100, 100, 3), 200, np.uint8), outline, 100)
    assert (tile[50, 50] == 200).all()
    assert (tile[10, 10] < 100).all()
    assert np.abs(tile[50, 25].astype(int) - FRAME).max() < 60


def test_every_class_but_the_background_is_in_the_legend():
    assert class_legend(("background", "rim", "cup"), COLORS) == (("rim", (0, 200, 0)), ("cup", (200, 0, 0)))


def test_tiles_stand_in_rows_and_columns():
    tiles = tuple(np.full((50, 50, 3), value, np.uint8) for value in (10, 20))
    sheet = Sheet("title", "facts", ("a", "b"), (("rim", (0, 200, 0)),), tile=50)
    picture = sheet.draw([SheetRow("one", tiles), SheetRow("two", tiles[::-1])])
    assert (picture[88:138, 24:74] == 10).all()
    assert (picture[88:138, 86:136] == 20).all()
    assert (picture[176:226, 24:74] == 20).all()
    assert (picture == (0, 200, 0)).all(axis=2).any()
