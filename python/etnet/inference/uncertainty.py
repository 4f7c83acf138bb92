"""Boundary uncertainty: where the edge branch (paper Sec. 2.1) and the border of the predicted mask disagree.

Both branches see the same features but are supervised by different targets, so that their disagreement shows where the
border is in doubt, without a second network or repeated prediction. Ours: the paper does not use the edges of a trained
network.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from etnet.data.edges import edge_map
from etnet.types import Contract, Float32Array, Prediction, UInt8Array

_FAINT = 26
"""Edge probabilities * 255 below this (a tenth) are no edge: a faint trace over a whole image adds up."""


@dataclass(frozen=True)
class BoundaryUncertainty:
    """Disagreement of edge branch and mask on one image.

    Attributes:
        map: Disagreement per pixel [H, W], float32, 0..1; 0 away from the mask's border and every edge.
        score: Disagreement of the whole image, 0..1, higher is less certain.
    """

    map: Float32Array
    score: float


def boundary_uncertainty(prediction: Prediction, contract: Contract) -> BoundaryUncertainty | None:
    """Compare the edges of a prediction with the border of its mask.

    B is the band around the border between classes as the edge branch learned it (`edge_map`, at the width that the
    band has in the image), N(.) the neighbourhood within half of that width, and P the edge probability, 0 below a
    tenth. A border that is a few pixels off is the same border, hence

        u(x) = 1 - max of P over N(x)   on B: a border that the edge branch does not confirm,
        u(x) = P(x)                     where N(x) does not meet B: an edge that the mask does not have,
        u(x) = 0                        elsewhere.

    The score is the mean of u, weighted by how much of a border a pixel is: 1 on B, P(x) off it. Without a border and
    without an edge it is 0, since the branches agree; with an empty mask it is high where edges are strong.

    Args:
        prediction: In the geometry of its image; its labels may be post-processed, which also counts as disagreement.
        contract: Of the network that made it; for two networks, of the one that segments.

    Returns:
        Map and score; None for a network without edge guidance.

    Example:
        >>> from etnet.config.schema import Recipe
        >>> labels = np.zeros((32, 32), np.uint8)
        >>> labels[8:24, 8:24] = 1
        >>> sure = Prediction(labels, None, edge_map(labels, width=3) * np.uint8(255))
        >>> boundary_uncertainty(sure, Recipe().contract()).score
        0.0
        >>> unseen = Prediction(labels, None, np.zeros_like(labels))
        >>> boundary_uncertainty(unseen, Recipe().contract()).score
        1.0
    """
    if prediction.edges is None:
        return None
    width = max(1, round(contract.edge_width * pixels_per_network_pixel(prediction.labels.shape, contract)))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (width // 2) + 1,) * 2)
    band = edge_map(prediction.labels, width=width)
    edges = np.where(prediction.edges < _FAINT, np.uint8(0), prediction.edges)
    confirmed, around = (np.asarray(cv2.dilate(plane, near), np.uint8) for plane in (edges, band))
    on_band = band > 0
    stray = np.where(around > 0, np.uint8(0), edges)
    disagreement: UInt8Array = np.where(on_band, 255 - confirmed, stray)
    weight: UInt8Array = np.where(on_band, np.uint8(255), stray)
    return BoundaryUncertainty(disagreement.astype(np.float32) / np.float32(255), _mean(disagreement, weight))


def pixels_per_network_pixel(shape: tuple[int, ...], contract: Contract) -> float:
    """How many pixels of an image of shape (height, width, ...) one pixel of the network's input is wide.

    >>> from etnet.config.schema import Recipe
    >>> pixels_per_network_pixel((512, 512), Recipe(data={"image_size": (256, 256)}).contract())
    2.0
    """
    if contract.roi is not None:
        return max(1, round(contract.roi.side * shape[1])) / contract.roi.size
    if contract.image_size is None:
        return 1.0
    height, width = contract.image_size
    # The geometric mean where the sides are scaled differently.
    return float(np.sqrt(shape[0] / height * (shape[1] / width)))


def _mean(values: UInt8Array, weight: UInt8Array) -> float:
    total = int(weight.sum(dtype=np.int64))
    if not total:
        return 0.0
    # In float64: whole numbers below 2**53, so exact for every image that fits into memory.
    return float(np.einsum("ij,ij->", values, weight, dtype=np.float64, casting="safe")) / (255 * total)
