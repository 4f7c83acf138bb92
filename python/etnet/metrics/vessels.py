"""What is read off a tree of vessels: density, length and branch points of the skeleton, fractal dimension, tortuosity.

Arteries and veins are not told apart, crossings count as branch points, and no short branch is pruned, so that values
compare between masks of one kind rather than with those of other programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from etnet.metrics.clinical import vessel_density
from etnet.metrics.scale import PIXELS, Scale
from etnet.metrics.skeleton import MOST_TRACED, CenterLine, thin, trace
from etnet.types import BoolArray

SHORTEST_SEGMENT = 20
"""Pixels from which on a piece of a vessel has a tortuosity; a shorter one is a few points of a coarse grid."""

_FEWEST_SIZES = 3


def vessel_measures(
    vessels: BoolArray, *, field_of_view: BoolArray | None = None, scale: Scale = PIXELS
) -> dict[str, float]:
    """Measure the vessels of one image.

    - `vessel_density_in_field_of_view`, or `vessel_density_in_image` where no field of view is given: vessel pixels as
      a share of that region (`etnet.metrics.clinical.vessel_density`).
    - `vessel_skeleton_length_*`: length of all centre lines (`CenterLine.length`).
    - `vessel_branch_points`: places of the skeleton where three or more lines meet.
    - `vessel_fractal_dimension`: of the skeleton, see `box_counting_dimension`.
    - `vessel_tortuosity`: see `tortuosity`.

    Args:
        vessels: Pixels of vessels [H, W], bool.
        field_of_view: Pixels that can hold vessels [H, W], bool; vessels outside it do not count. None for all.
        scale: Size of a pixel.

    Returns:
        Values by column in a fixed order. Without any vessel length and branch points are 0, fractal dimension and
        tortuosity NaN; the density is NaN in an empty field of view. Length, branch points and tortuosity are NaN too
        where the skeleton has more than `MOST_TRACED` pixels, as that of a large mask of noise has.
    """
    if field_of_view is not None:
        vessels = vessels & field_of_view
    skeleton = thin(vessels)
    graph = trace(skeleton) if np.count_nonzero(skeleton) <= MOST_TRACED else None
    region = "image" if field_of_view is None else "field_of_view"
    return {
        f"vessel_density_in_{region}": vessel_density(vessels, field_of_view),
        f"vessel_skeleton_length_{scale.unit}": math.nan if graph is None else graph.length(scale),
        "vessel_branch_points": math.nan if graph is None else graph.branch_points,
        "vessel_fractal_dimension": box_counting_dimension(skeleton),
        "vessel_tortuosity": math.nan if graph is None else tortuosity(graph.lines, scale),
    }


def box_counting_dimension(mask: BoolArray) -> float:
    """Slope of log(number of boxes that hold a pixel) over log(1 / side of a box), by least squares.

    The capacity dimension as it is used for retinal vessels (Mainster, "The fractal properties of retinal vessels", Eye
    4, 1990; Masters, "Fractal analysis of the vascular tree in the human retina", Annual Review of Biomedical
    Engineering 6, 2004). The sides are the powers of two from two pixels to a quarter of the longer side of the
    bounding box, at whose corner the grid of boxes begins. Ours: no side of one pixel, because a line one pixel wide
    steps over corners, so that an oblique one would seem to have fewer boxes of that side than it should.

    Args:
        mask: Pixels of the structure [H, W], bool.

    Returns:
        Dimension, 0..2; NaN where the bounding box is smaller than 32 pixels, because fewer than three sides fit.

    Example:
        >>> line = np.zeros((40, 70), bool); line[3, 2:66] = True
        >>> round(box_counting_dimension(line), 6)
        1.0
    """
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    # The largest power of two that is at most a quarter of the longer side.
    doublings = (max(width, height) // 4).bit_length() - 1
    if doublings < _FEWEST_SIZES:
        return math.nan
    largest = 2**doublings
    boxes = np.pad(mask[top : top + height, left : left + width], ((0, -height % largest), (0, -width % largest)))
    counts = []
    for _ in range(doublings):
        boxes = boxes[::2] | boxes[1::2]
        boxes = boxes[:, ::2] | boxes[:, 1::2]
        counts.append(np.count_nonzero(boxes))
    return float(-np.polyfit(np.arange(len(counts)) * math.log(2), np.log(counts), 1)[0])


def tortuosity(lines: Sequence[CenterLine], scale: Scale = PIXELS) -> float:
    """Mean over the pieces between branch points of arc length over chord, weighted by arc length.

    The ratio of Lotmar et al., "Measurement of vessel tortuosity on fundus photographs", Graefe's Archive 211, 1979,
    and the first measure of Hart et al., "Measurement and classification of retinal vascular tortuosity", International
    Journal of Medical Informatics 53, 1999. Ours: the weights, and that pieces under `SHORTEST_SEGMENT` pixels and
    rings, which have no chord, are left out.

    Args:
        lines: Pieces of a skeleton.
        scale: Size of a pixel.

    Returns:
        1 for straight vessels, more for curved ones; NaN where no piece is long enough.
    """
    arcs, ratios = [], []
    for line in lines:
        if len(line.points) >= SHORTEST_SEGMENT and not line.is_closed:
            arcs.append(line.length(scale))
            ratios.append(arcs[-1] / line.chord(scale))
    return float(np.average(ratios, weights=arcs)) if arcs else math.nan
