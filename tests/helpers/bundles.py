"""Two networks that can be computed by hand, joined: the first sees red as the disc, the second as rim and cup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from etnet.config.schema import Recipe
from etnet.inference.localize import LocalizationRule
from etnet.inference.predictor import Predictor
from etnet.inference.two_stage import TwoStagePredictor
from etnet.types import Contract, RegionOfInterest, UInt8Array
from helpers.backends import PixelBackend, contract
from helpers.weights import small_recipe, write_header_only

BACKGROUND, RIM, CUP = range(3)
SEGMENTER_CLASSES = ["background", "optic_rim", "optic_cup"]


def localizer_contract() -> Contract:
    """Background and disc, of whole images."""
    return replace(contract(2), class_names=("background", "optic_disc"))


def segmenter_contract(roi: RegionOfInterest) -> Contract:
    """Background, rim and cup, and the disc as both together."""
    return replace(
        contract(3, roi=roi),
        class_names=tuple(SEGMENTER_CLASSES),
        class_groups=(("optic_disc", (RIM, CUP)),),
    )


def pixel_bundle(roi: RegionOfInterest, *, min_area: float = 0.002) -> TwoStagePredictor:
    """A two-stage predictor whose both networks are pixel arithmetic: every red pixel is disc."""
    return TwoStagePredictor(
        Predictor(PixelBackend(2, with_edges=False), localizer_contract()),
        Predictor(PixelBackend(3), segmenter_contract(roi)),
        LocalizationRule("optic_disc", min_area),
    )


def draw_disc(shape: tuple[int, int], center: tuple[float, float], radius: float) -> UInt8Array:
    """Labels [H, W] of a disc whose inner half (by radius) is the cup; centre (row, column), first pixel at 0.5."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    distance = np.hypot(rows - center[0], columns - center[1])
    return np.where(distance <= radius / 2, CUP, np.where(distance <= radius, RIM, BACKGROUND)).astype(np.uint8)


def localizer_recipe(**data: Any) -> Recipe:
    """A small network for whole images with the one class optic_disc."""
    return small_recipe(**{"class_names": ["background", "optic_disc"], "image_size": [64, 64], **data})


def segmenter_recipe(**data: Any) -> Recipe:
    """A small network for regions of interest with rim and cup."""
    section = {
        "class_names": SEGMENTER_CLASSES,
        "class_groups": {"optic_disc": ["optic_rim", "optic_cup"]},
        "roi": {"side": 0.5, "size": 48},
    }
    return small_recipe(**{**section, **data})


def write_stage_headers(folder: Path) -> tuple[Path, Path]:
    """Weights files of both stages without networks."""
    return (
        write_header_only(folder / "localizer/weights/best.safetensors", localizer_recipe()),
        write_header_only(folder / "segmenter/weights/best.safetensors", segmenter_recipe()),
    )
