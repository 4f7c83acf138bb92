from __future__ import annotations

import numpy as np
import pytest

from etnet.config.schema import CLASS_PALETTE
from etnet.inference.overlay import (
    CORRECT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    UNCERTAIN,
    WRONG_CLASS,
    LegendEntry,
    color_of_doubt,
    draw_comparison,
    draw_errors,
    draw_legend,
    draw_overlay,
    enlargement,
)
from helpers.backends import CLASS_COLORS, contract

GRAY = 128


def gray_image(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GRAY, np.uint8)


def nearest_of(color: np.ndarray, palette: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int]:
    # Colours are blended with a gray image, so hues are compared: distance of the deviations from gray.
    tint = color.astype(float) - color.mean()
    return max(palette, key=lambda candidate: float(tint @ (np.array(candidate) - np.mean(candidate))))


def test_background_keeps_the_pixels_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (1100, 1200, 3), dtype=np.uint8)
    picture = draw_overlay(image, np.zeros((1100, 1200), np.uint8), contract(), legend=False)
    np.testing.assert_array_equal(picture, image)


def test_each_class_is_tinted_in_its_colour_and_only_there():
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 10:30] = 1
    labels[35:55, 40:70] = 2
    picture = draw_overlay(gray_image(60, 80), labels, contract(), legend=False)
    factor = enlargement(60, 80)
    assert picture.shape == (60 * factor, 80 * factor, 3)
    for index, (row, column) in ((1, (20, 20)), (2, (45, 55))):
        inside = picture[row * factor, column * factor]
        assert nearest_of(inside, CLASS_COLORS[1:]) == CLASS_COLORS[index]
    assert (picture[: 8 * factor] == GRAY).all()


def test_the_outline_is_stronger_than_the_fill():
    labels = np.zeros((100, 100), np.uint8)
    labels[30:70, 30:70] = 1
    picture = draw_overlay(gray_image(100, 100), labels, contract(), legend=False).astype(int)
    row = picture[50 * enlargement(100, 100), :, 1]
    assert row.max() > row[len(row) // 2] + 20


def test_a_single_labelled_pixel_stays_visible():
    labels = np.zeros((40, 40), np.uint8)
    labels[20, 20] = 1
    assert (draw_overlay(gray_image(40, 40), labels, contract(), legend=False) != GRAY).any()


def test_the_legend_adds_a_strip_and_changes_nothing_above_it():
    labels = np.ones((40, 50), np.uint8)
    plain = draw_overlay(gray_image(40, 50), labels, contract(), legend=False)
    full = draw_overlay(gray_image(40, 50), labels, contract())
    assert full.shape[0] > plain.shape[0]
    np.testing.assert_array_equal(full[: plain.shape[0]], plain)


def test_a_border_in_doubt_glows_there_and_nowhere_else():
    labels = np.zeros((200, 200), np.uint8)
    labels[60:140, 60:140] = 1
    uncertainty = np.zeros((200, 200), np.float32)
    uncertainty[58:62, 80:120] = 1
    plain = draw_overlay(gray_image(200, 200), labels, contract(), legend=False)
    glowing = draw_overlay(gray_image(200, 200), labels, contract(), uncertainty=uncertainty, legend=False)
    factor = enlargement(200, 200)
    changed = (plain != glowing).any(axis=2)
    near = np.zeros((200, 200), np.bool_)
    near[46:74, 66:134] = True
    assert changed.any()
    assert not (changed & ~near.repeat(factor, axis=0).repeat(factor, axis=1)).any()
    # Just outside the mask, where no fill mixes its colour in.
    doubt = color_of_doubt(CLASS_COLORS[1:])
    assert nearest_of(glowing[57 * factor, 100 * factor], (*CLASS_COLORS[1:], doubt)) == doubt


def test_the_outline_of_a_class_stays_visible_on_the_glow():
    labels = np.zeros((200, 200), np.uint8)
    labels[60:140, 60:140] = 1
    everywhere = np.ones((200, 200), np.float32)
    picture = draw_overlay(gray_image(200, 200), labels, contract(), uncertainty=everywhere, legend=False)
    column = picture[:, 100 * enlargement(200, 200)].astype(int)
    distance = np.abs(column - CLASS_COLORS[1]).sum(axis=1)
    assert distance.min() < 0.3 * distance[len(distance) // 2]


def test_faint_disagreement_does_not_glow():
    labels = np.zeros((60, 60), np.uint8)
    faint = np.full((60, 60), 0.2, np.float32)
    plain = draw_overlay(gray_image(60, 60), labels, contract(), legend=False)
    picture = draw_overlay(gray_image(60, 60), labels, contract(), uncertainty=faint, legend=False)
    np.testing.assert_array_equal(picture, plain)


def test_the_legend_explains_the_glow():
    labels = np.ones((400, 400), np.uint8)
    zero = np.zeros((400, 400), np.float32)
    explained = draw_overlay(gray_image(400, 400), labels, contract(), uncertainty=zero)
    doubt = color_of_doubt(CLASS_COLORS[1:])
    assert (explained == doubt).all(axis=2).any()
    assert not (draw_overlay(gray_image(400, 400), labels, contract()) == doubt).all(axis=2).any()


@pytest.mark.parametrize("count", range(1, len(CLASS_PALETTE)))
def test_no_class_of_the_usual_colours_looks_like_a_border_in_doubt(count):
    colors = CLASS_PALETTE[1 : count + 1]
    doubt = color_of_doubt(colors)
    assert doubt in UNCERTAIN
    assert min(np.linalg.norm(np.subtract(doubt, color)) for color in colors) > 90


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_the_smallest_images_can_be_drawn(size):
    labels = np.ones(size, np.uint8)
    assert draw_overlay(gray_image(*size), labels, contract()).dtype == np.uint8
    doubt = np.ones(size, np.float32)
    assert draw_overlay(gray_image(*size), labels, contract(), uncertainty=doubt).dtype == np.uint8
    assert draw_comparison(gray_image(*size), labels, labels, contract(), title="t").dtype == np.uint8


def test_every_outcome_has_its_own_colour():
    target = np.array([[0, 1, 0, 1, 2]], np.uint8).repeat(5, 0)
    labels = np.array([[0, 1, 1, 0, 1]], np.uint8).repeat(5, 0)
    picture = draw_errors(gray_image(5, 5), labels, target)
    factor = enlargement(5, 5)
    colors = (CORRECT, FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_CLASS)
    middle = picture[2 * factor + factor // 2, factor // 2 :: factor]
    assert np.ptp(middle[0]) == 0
    assert [nearest_of(color, colors) for color in middle[1:]] == list(colors)


def test_pixels_without_a_label_are_not_painted():
    target = np.full((4, 4), 255, np.uint8)
    picture = draw_errors(gray_image(4, 4), np.ones((4, 4), np.uint8), target, ignore_index=255)
    assert np.ptp(picture) == 0


def test_a_comparison_shows_three_panels_of_the_size_of_the_overlay():
    labels = np.zeros((60, 80), np.uint8)
    target = np.full((60, 80), 255, np.uint8)
    picture = draw_comparison(gray_image(60, 80), labels, target, contract(), title="a title", ignore_index=255)
    assert picture.shape[1] > 3 * 80 * enlargement(60, 80)
    assert picture.shape[0] > 60 * enlargement(60, 80)


def test_a_legend_that_is_too_long_wraps():
    entries = [LegendEntry((255, 0, 0), f"a class with a long name {index}") for index in range(6)]
    assert draw_legend(300, entries).shape[0] > draw_legend(3000, entries, text_width=300).shape[0]
    assert draw_legend(300, entries).shape[1] == 300
