"""Pictures that let an engineer trust a result at a glance: classes over the image, and what was hit and missed.

Small images are enlarged by a whole factor, so that lines stay thin against the structures they surround.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from etnet.data.roi import Window
from etnet.types import BoolArray, Contract, Float32Array, UInt8Array

Rgb = tuple[int, int, int]

CORRECT: Rgb = (38, 194, 129)
FALSE_POSITIVE: Rgb = (255, 122, 41)
FALSE_NEGATIVE: Rgb = (64, 156, 255)
WRONG_CLASS: Rgb = (214, 102, 224)
UNCERTAIN: tuple[Rgb, ...] = ((255, 210, 40), (40, 225, 255), (255, 40, 200), (255, 255, 255))
"""Colours of borders in doubt, the usual one first."""

_SHORT_SIDE = 1000
"""Images are enlarged until their shorter side has about this many pixels, at most by `_LARGEST_FACTOR`."""
_LARGEST_FACTOR = 4
_LONG_SIDE = 8000
"""Pixels of the longer side that no enlargement goes beyond."""
_FILL_OPACITY = 0.36
_ERROR_OPACITY = 0.85
_FRAME: Rgb = (255, 255, 255)
_FRAME_OPACITY = np.float32(0.7)
_DOUBT_FROM, _DOUBT_FULL = 0.3, 0.8
"""Uncertainties at which the glow begins and is strongest: below the first, borders of every good result would glow."""
_ALIKE = 100.0
"""Distance in RGB below which two colours are taken for each other."""
_STRIP: Rgb = (24, 26, 30)
_STRIP_TEXT: Rgb = (235, 237, 240)


@dataclass(frozen=True)
class LegendEntry:
    """A colour and what it stands for."""

    color: Rgb
    text: str


def enlargement(height: int, width: int) -> int:
    """The whole factor by which a picture of this size is enlarged.

    >>> enlargement(584, 565), enlargement(1, 1), enlargement(2000, 3000), enlargement(10, 30000)
    (2, 4, 1, 1)
    """
    wanted = min(round(_SHORT_SIDE / min(height, width)), _LARGEST_FACTOR, _LONG_SIDE // max(height, width))
    return max(1, wanted)


def draw_overlay(
    image: UInt8Array,
    labels: UInt8Array,
    contract: Contract,
    *,
    window: Window | None = None,
    uncertainty: Float32Array | None = None,
    legend: bool = True,
) -> UInt8Array:
    """Draw the classes over their image: a translucent fill and a smooth outline in the colour of each class.

    Args:
        image: RGB image [H, W, 3], uint8.
        labels: Class indices [H, W], uint8; the background stays as it is.
        contract: Names and colours of the classes.
        window: Region of interest, drawn as a thin square; None draws none.
        uncertainty: Map [H, W], float32, 0..1, of `etnet.inference.uncertainty`, drawn as a glow along the borders in
            doubt, over which the outlines stay visible; None draws none.
        legend: Add a strip below the picture with each class and its share of the pixels.

    Returns:
        RGB picture, uint8: [k*H, k*W, 3] with k = `enlargement(H, W)`, and the strip.
    """
    factor = enlargement(*labels.shape)
    canvas = _enlarge(image, factor).astype(np.float32)
    if uncertainty is not None:
        # Below the classes, whose outlines must stay visible on it.
        _blend(canvas, _glow(uncertainty, factor), color_of_doubt(contract.class_colors[1:]))
    for index in range(1, contract.num_classes):
        color = contract.class_colors[index]
        coverage = _coverage(labels == index, factor)
        _blend(canvas, coverage * _FILL_OPACITY, color)
        _blend(canvas, _outline(coverage), color)
    if window is not None:
        _blend(canvas, _FRAME_OPACITY * _outline(_coverage(window.inside(labels.shape), factor)), _FRAME)
    picture = _bytes(np.rint(canvas))
    if not legend:
        return picture
    entries = [
        LegendEntry(
            contract.class_colors[index], f"{name.replace('_', ' ')}  {100 * float(np.mean(labels == index)):.1f} %"
        )
        for index, name in enumerate(contract.class_names)
        if index
    ]
    if uncertainty is not None:
        entries.append(LegendEntry(color_of_doubt(contract.class_colors[1:]), "uncertain border"))
    return np.vstack([picture, draw_legend(picture.shape[1], entries)])


def color_of_doubt(class_colors: Sequence[Rgb]) -> Rgb:
    """The first of `UNCERTAIN` that no class is painted alike, or the one that is least alike.

    >>> color_of_doubt([(46, 204, 113)]) == UNCERTAIN[0], color_of_doubt([(241, 196, 15)]) == UNCERTAIN[1]
    (True, True)
    """

    def apart(color: Rgb) -> float:
        return min((math.dist(color, other) for other in class_colors), default=math.inf)

    return next((color for color in UNCERTAIN if apart(color) >= _ALIKE), max(UNCERTAIN, key=apart))


def draw_errors(
    image: UInt8Array, labels: UInt8Array, target: UInt8Array, *, ignore_index: int | None = None
) -> UInt8Array:
    """Paint every foreground pixel by its outcome over the image in gray.

    Args:
        image: RGB image [H, W, 3], uint8.
        labels: Predicted class indices [H, W].
        target: True class indices [H, W].
        ignore_index: Value of `target` without a label; such pixels stay unpainted.

    Returns:
        RGB picture [k*H, k*W, 3], uint8, k = `enlargement(H, W)`.
    """
    factor = enlargement(*labels.shape)
    gray = _bytes(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))
    canvas = _enlarge(np.repeat(gray[..., None], 3, axis=2), factor).astype(np.float32) * np.float32(0.55)
    counted = np.ones(target.shape, dtype=np.bool_) if ignore_index is None else target != ignore_index
    outcomes = (
        (CORRECT, (labels == target) & (labels > 0)),
        (FALSE_POSITIVE, (labels > 0) & (target == 0)),
        (FALSE_NEGATIVE, (labels == 0) & (target > 0)),
        (WRONG_CLASS, (labels > 0) & (target > 0) & (labels != target)),
    )
    for color, where in outcomes:
        # Crisp edges here: blending two outcomes would invent a colour that the legend does not know.
        _blend(canvas, _enlarge((where & counted).astype(np.uint8), factor, smooth=False) * _ERROR_OPACITY, color)
    return _bytes(np.rint(canvas))


def draw_comparison(
    image: UInt8Array,
    labels: UInt8Array,
    target: UInt8Array,
    contract: Contract,
    *,
    title: str,
    ignore_index: int | None = None,
) -> UInt8Array:
    """Ground truth, prediction and errors side by side under one title, with a legend below.

    Returns:
        RGB picture, uint8.
    """
    truth = np.where(target < contract.num_classes, target, 0).astype(np.uint8)
    panels = (
        ("ground truth", draw_overlay(image, truth, contract, legend=False)),
        ("prediction", draw_overlay(image, labels, contract, legend=False)),
        ("errors", draw_errors(image, labels, target, ignore_index=ignore_index)),
    )
    height, width = panels[0][1].shape[:2]
    gap = np.full((height, max(4, width // 150), 3), _STRIP, np.uint8)
    row = np.hstack([panels[0][1], gap, panels[1][1], gap, panels[2][1]])
    step = width + gap.shape[1]
    head = draw_caption(row.shape[1], title, [(i * step, name) for i, (name, _) in enumerate(panels)])
    classes = [
        LegendEntry(color, name.replace("_", " "))
        for color, name in zip(contract.class_colors[1:], contract.class_names[1:], strict=True)
    ]
    outcomes = [
        LegendEntry(CORRECT, "found"),
        LegendEntry(FALSE_POSITIVE, "false positive"),
        LegendEntry(FALSE_NEGATIVE, "missed"),
    ]
    if contract.num_classes > 2:
        outcomes.append(LegendEntry(WRONG_CLASS, "wrong class"))
    # Each legend stands below its own panel: the class green and the green of "found" mean different things.
    feet = [
        draw_legend(2 * step, classes, text_width=row.shape[1]),
        draw_legend(width, outcomes, text_width=row.shape[1]),
    ]
    height = max(foot.shape[0] for foot in feet)
    padded = [cv2.copyMakeBorder(f, 0, height - f.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=_STRIP) for f in feet]
    return _bytes(np.vstack([head, row, np.hstack(padded)]))


def draw_legend(width: int, entries: Sequence[LegendEntry], *, text_width: int | None = None) -> UInt8Array:
    """A strip of colour swatches with text, wrapped to the width.

    Args:
        width: Width of the strip in pixels.
        entries: Colours and texts, left to right.
        text_width: Width of the picture that sets the size of the text; None takes `width`.

    Returns:
        RGB strip [h, width, 3], uint8.
    """
    font = _font(text_width or width)
    margin, swatch = int(font.size), int(font.size)
    line, lines = margin, 1
    places: list[tuple[int, int]] = []
    for entry in entries:
        span = int(swatch * 1.5 + font.getlength(entry.text) + 2 * margin)
        if line > margin and line + span > width:
            line, lines = margin, lines + 1
        places.append((line, lines - 1))
        line += span
    pitch = int(font.size * 1.7)
    strip = Image.new("RGB", (width, lines * pitch + margin), _STRIP)
    pen = ImageDraw.Draw(strip)
    for (x, row), entry in zip(places, entries, strict=True):
        middle = margin // 2 + row * pitch + pitch // 2
        box = (x, middle - swatch // 2, x + swatch, middle + swatch // 2)
        pen.rounded_rectangle(box, radius=swatch // 4, fill=entry.color)
        pen.text((x + swatch * 1.5, middle), entry.text, fill=_STRIP_TEXT, font=font, anchor="lm")
    return np.asarray(strip, dtype=np.uint8)


def draw_caption(width: int, title: str, names: Sequence[tuple[int, str]]) -> UInt8Array:
    """A strip with a title and, below it, the name of each panel at its left edge."""
    font = _font(width)
    margin = int(font.size)
    strip = Image.new("RGB", (width, int(font.size * 4.2)), _STRIP)
    pen = ImageDraw.Draw(strip)
    pen.text((margin, font.size * 1.2), title, fill=_STRIP_TEXT, font=_font(width, 1.15), anchor="lm")
    for x, name in names:
        pen.text((x + margin, font.size * 3.1), name, fill=(160, 166, 175), font=font, anchor="lm")
    return np.asarray(strip, dtype=np.uint8)


def _font(width: int, scale: float = 1.0) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=float(np.clip(width / 48, 11, 34)) * scale)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which its wheels on PyPI include")
    return font


def _enlarge(plane: UInt8Array, factor: int, *, smooth: bool = True) -> UInt8Array:
    if factor == 1:
        return plane
    size = (plane.shape[1] * factor, plane.shape[0] * factor)
    return _bytes(cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST))


def _coverage(where: BoolArray, factor: int) -> Float32Array:
    """How much of each picture pixel a region covers, 0..1, with stairs smoothed away."""
    grown = _enlarge(where.astype(np.uint8), factor, smooth=False).astype(np.float32)
    # Narrow enough for a single labelled pixel to keep more than half of its height, and so to stay visible.
    soft = np.asarray(cv2.GaussianBlur(grown, (0, 0), 0.45 * factor), np.float32)
    # Steepen the ramp around the border: smooth, but only about one pixel wide.
    coverage: Float32Array = np.clip((soft - 0.5) * factor + 0.5, 0.0, 1.0)
    return coverage


def _outline(coverage: Float32Array) -> Float32Array:
    """An antialiased line along the inside of a region's border, wider in larger pictures."""
    width = 1 + 2 * max(1, round(min(coverage.shape) / 800))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    # borderValue 1: where the picture ends, the region has no border.
    inner = cv2.erode(coverage, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(1.0,))
    smooth = np.asarray(cv2.GaussianBlur(inner, (0, 0), 0.6), np.float32)
    line: Float32Array = np.clip(coverage - smooth, 0.0, 1.0)
    return line


def _glow(uncertainty: Float32Array, factor: int) -> Float32Array:
    """Opacity of the glow: strongest along the border in doubt, fading away from it, wider in larger pictures."""
    doubt = np.clip((uncertainty - _DOUBT_FROM) / (_DOUBT_FULL - _DOUBT_FROM), 0, 1).astype(np.float32)
    size = (doubt.shape[1] * factor, doubt.shape[0] * factor)
    grown = np.asarray(cv2.resize(doubt, size, interpolation=cv2.INTER_LINEAR), np.float32)
    reach = max(1, round(min(size) / 400))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    return np.asarray(cv2.GaussianBlur(cv2.dilate(grown, near), (0, 0), reach), np.float32)


def _bytes(array: npt.NDArray[Any]) -> UInt8Array:
    """Narrows the type that OpenCV's stubs give."""
    return np.asarray(array).astype(np.uint8, copy=False)


def _blend(canvas: Float32Array, opacity: Float32Array | UInt8Array, color: Rgb) -> None:
    weight = np.asarray(opacity, dtype=np.float32)[..., None]
    canvas += weight * (np.asarray(color, dtype=np.float32) - canvas)
