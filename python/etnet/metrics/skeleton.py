"""Thin a mask to its centre lines, and follow these from branch point to branch point.

OpenCV has no thinning without its contributed modules, and scikit-image would be a heavy package for one function that
`etnet infer` needs on machines that only deploy; the method is that of its `thin`, which the tests compare with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from etnet.metrics.scale import Scale
from etnet.types import BoolArray

MOST_TRACED = 1_000_000
"""Pixels of the longest skeleton that is followed: a hundred times that of a fundus photograph's vessels."""

STEP = 8
"""Pixels between the points of a centre line that its length is measured along."""

# (row, column) of the neighbours x1 to x8: east first, then against the clock.
_NEIGHBORS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CenterLine:
    """A piece of a skeleton without a branch.

    Attributes:
        points: (row, column) of its pixels in order [N, 2], int64; a closed line ends with the pixel it began with.
    """

    points: _Indices

    @property
    def is_closed(self) -> bool:
        """Whether it comes back to where it began."""
        return bool(np.array_equal(self.points[0], self.points[-1]))

    def length(self, scale: Scale) -> float:
        """Length through every `STEP`-th pixel, both ends included.

        From pixel to pixel a straight line would be up to 8 % too long, depending on its angle (Dorst and Smeulders,
        "Length estimators for digitized contours", Computer Vision, Graphics, and Image Processing 40, 1987); through
        every eighth it is right to within 1 %, and so is an arc of a radius of 20 pixels.
        """
        edges = len(self.points) - 1
        # A closed line of fewer than three sides would be no more than a line there and back.
        sides = max(3 if self.is_closed else 1, round(edges / STEP))
        chosen = self.points[np.rint(np.linspace(0, edges, sides + 1)).astype(np.int64)]
        return float(np.hypot(*(np.diff(chosen, axis=0) * (scale.row, scale.column)).T).sum())

    def chord(self, scale: Scale) -> float:
        """Distance between both ends."""
        return math.hypot(*((self.points[-1] - self.points[0]) * (scale.row, scale.column)))


@dataclass(frozen=True)
class SkeletonGraph:
    """A skeleton as lines between its branch points and ends.

    Attributes:
        lines: Pieces without a branch.
        branch_points: Number of places where three or more lines meet; pixels of that kind that touch are one place.
    """

    lines: tuple[CenterLine, ...]
    branch_points: int

    def length(self, scale: Scale) -> float:
        """Length of all lines together."""
        return sum((line.length(scale) for line in self.lines), 0.0)


def thin(mask: BoolArray) -> BoolArray:
    """The centre lines of a mask, one pixel wide and as connected as the mask.

    Parallel thinning in two alternating passes until nothing changes (Guo and Hall, "Parallel thinning with two-
    subiteration algorithms", Communications of the ACM 32, 1989, in the form A1 of Lam, Lee and Suen, "Thinning
    methodologies - a comprehensive survey", IEEE TPAMI 14, 1992, Sec. III).

    Args:
        mask: Pixels of the structure [H, W], bool.

    Returns:
        Pixels of the centre lines [H, W], bool.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    flat = padded.ravel()
    offsets = _flat_offsets(padded.shape[1])
    inner = np.asarray(cv2.erode(padded, np.ones((3, 3), np.uint8)), np.uint8).ravel()
    border = np.flatnonzero(flat > inner)
    # A pixel is looked at again in a pass only after a neighbour has gone, so that thick structures cost no more.
    waiting = [border, border]
    places = np.empty(flat.size, np.int32)
    while waiting[0].size or waiting[1].size:
        for index, removable in enumerate(_REMOVABLE):
            candidates = _distinct(waiting[index][flat[waiting[index]] > 0], places)
            gone = candidates[removable[_neighbor_codes(flat, candidates, offsets)]]
            flat[gone] = 0
            near = (gone[:, None] + offsets).ravel()
            near = near[flat[near] > 0]
            waiting[index] = near
            waiting[1 - index] = np.concatenate([waiting[1 - index], near])
    return padded[1:-1, 1:-1].astype(np.bool_)


def trace(skeleton: BoolArray) -> SkeletonGraph:
    """Follow a skeleton from branch point to branch point.

    Pixels are linked with their four nearest neighbours, and with a diagonal one where no pixel links them around the
    corner. A pixel with three or more links is a branch point, one with a single link an end; a pixel without any is
    no line.

    Args:
        skeleton: Pixels of centre lines [H, W], bool, as `thin` gives them.
    """
    padded = np.pad(skeleton, 1)
    width = padded.shape[1]
    links = _links(padded)
    degrees = np.zeros(padded.size, np.uint8)
    for pixel, linked in links.items():
        degrees[pixel] = len(linked)
    lines = [_center_line(path, width) for path in _paths(links)]
    places = (degrees >= 3).reshape(padded.shape).astype(np.uint8)
    return SkeletonGraph(tuple(lines), cv2.connectedComponents(places, connectivity=8)[0] - 1)


def _neighbor_codes(flat: npt.NDArray[np.uint8], pixels: _Indices, offsets: _Indices) -> npt.NDArray[np.uint8]:
    """The eight neighbours of each pixel as the bits of one number, x1 the lowest."""
    codes = np.zeros(pixels.size, np.uint8)
    for bit, offset in enumerate(offsets):
        codes |= flat[pixels + offset] << np.uint8(bit)
    return codes


def _distinct(pixels: _Indices, places: npt.NDArray[np.int32]) -> _Indices:
    """Each pixel once; `places` is room for a number per pixel of the image, whose content does not matter."""
    order = np.arange(pixels.size, dtype=np.int32)
    places[pixels] = order
    return np.asarray(pixels[places[pixels] == order])


def _flat_offsets(width: int) -> _Indices:
    return np.array([row * width + column for row, column in _NEIGHBORS], np.int64)


def _removable(*, second_pass: bool) -> BoolArray:
    """Whether a pixel with these eight neighbours may go [256], bool: conditions G1, G2, G3 (or G3')."""
    x1, x2, x3, x4, x5, x6, x7, x8 = ((np.arange(256) >> bit & 1).astype(np.bool_) for bit in range(8))
    crossings = sum((~a & (b | c)).astype(int) for a, b, c in ((x1, x2, x3), (x3, x4, x5), (x5, x6, x7), (x7, x8, x1)))
    n1 = sum((a | b).astype(int) for a, b in ((x1, x2), (x3, x4), (x5, x6), (x7, x8)))
    n2 = sum((a | b).astype(int) for a, b in ((x2, x3), (x4, x5), (x6, x7), (x8, x1)))
    fewer = np.minimum(n1, n2)
    kept = (x6 | x7 | ~x4) & x5 if second_pass else (x2 | x3 | ~x8) & x1
    return np.asarray((crossings == 1) & (fewer >= 2) & (fewer <= 3) & ~kept)


_REMOVABLE = (_removable(second_pass=False), _removable(second_pass=True))


def _links(padded: BoolArray) -> dict[int, list[int]]:
    """The linked neighbours of every pixel of a skeleton with an empty border, by index into the flat array."""
    flat, width = padded.ravel(), padded.shape[1]
    pixels = np.flatnonzero(flat)
    links: dict[int, list[int]] = {int(pixel): [] for pixel in pixels}
    for (row, column), offset in zip(_NEIGHBORS, _flat_offsets(width).tolist(), strict=True):
        linked = flat[pixels + offset]
        if row and column:
            linked = linked & ~flat[pixels + row * width] & ~flat[pixels + column]
        for pixel in pixels[linked].tolist():
            links[pixel].append(pixel + offset)
    return links


def _paths(links: dict[int, list[int]]) -> list[list[int]]:
    """Every link once, as paths between pixels that have not exactly two links, then the rings that have none such."""
    nodes = [pixel for pixel, linked in links.items() if len(linked) != 2]
    is_node = set(nodes)
    on_path: set[int] = set()
    paths = []
    for node in nodes:
        for following in links[node]:
            # A path between two nodes is met from both; one without pixels between them is told apart by its order.
            if following in on_path or (following in is_node and following < node):
                continue
            path = _follow(links, node, following, is_node)
            on_path.update(path[1:-1])
            paths.append(path)
    for pixel, linked in links.items():
        if pixel not in is_node and pixel not in on_path:
            path = _follow(links, pixel, linked[0], {pixel})
            on_path.update(path)
            paths.append(path)
    return paths


def _follow(links: dict[int, list[int]], start: int, following: int, ends: set[int]) -> list[int]:
    path = [start, following]
    while path[-1] not in ends:
        one, other = links[path[-1]]
        path.append(other if one == path[-2] else one)
    return path


def _center_line(path: list[int], width: int) -> CenterLine:
    # Without the border that was added.
    return CenterLine(np.stack(np.divmod(np.array(path), width), axis=1) - 1)
