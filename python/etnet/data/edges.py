"""The edge target: a band around every boundary between two classes (supervision of the paper's Sec. 2.1).

Ours: the paper does not say how its edge ground truth is made; this is the one definition that everything here uses.
"""

from __future__ import annotations

import cv2
import numpy as np

from etnet.types import UInt8Array

_NEIGHBOURHOOD = np.ones((3, 3), np.uint8)
_NO_CLASS = 255


def edge_map(mask: UInt8Array, *, width: int, ignore_index: int | None = None) -> UInt8Array:
    """Marks the boundaries between classes.

    A border pixel has a neighbour, among its eight, of a lower class: it lies on the inside of the object. The band is
    all border pixels, dilated with an ellipse of diameter `width`. The border of the image is no boundary, and neither
    is that of a region without label.

    Args:
        mask: Class indices [H, W], uint8.
        width: Width of the band in pixels; 1 gives the border pixels themselves.
        ignore_index: Value of pixels without label; they keep it in the result.

    Returns:
        Edge target [H, W], uint8: 1 on the band, 0 elsewhere, `ignore_index` where the mask has it.

    Example:
        >>> edge_map(np.array([[0, 0, 1, 1, 1]], np.uint8), width=1)
        array([[0, 0, 1, 0, 0]], dtype=uint8)
    """
    ignored = None if ignore_index is None else mask == ignore_index
    classes = mask
    if ignored is not None and ignored.any():
        # Larger than every class, so that the minimum below never comes from a pixel without label.
        classes = np.where(ignored, np.uint8(_NO_CLASS), mask)
    lowest = cv2.erode(classes, _NEIGHBOURHOOD)
    border = lowest < classes
    if ignored is not None:
        border &= ~ignored
    edge = border.astype(np.uint8)
    if width > 1:
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        edge = np.asarray(cv2.dilate(edge, ellipse), dtype=np.uint8)
    if ignored is not None and ignore_index is not None:
        edge[ignored] = ignore_index
    return edge
