"""Quality flags: what about an image makes its result less trustworthy. They are reported; no image is left out.

An image is compared with the range of the images that the network was trained on (`Contract.training_range`), because
only that says what is normal: the darkest of good fundus photographs are darker than a spoilt radiograph. Without that
range only what is wrong with any image is flagged.
"""

from __future__ import annotations

import math

import numpy as np

from etnet.data.image_statistics import grey_of, statistics_of_copy, working_copy
from etnet.inference.preprocess import require_image
from etnet.types import Contract, ImageStatistics, TrainingRange, UInt8Array

FLAGS: dict[str, str] = {
    "blank": "the image holds nothing",
    "too_dark": "darker than every training image, or nearly black",
    "too_bright": "brighter than every training image, or mostly white",
    "blurred": "less sharp than every training image",
    "inverted": "a bright frame around a darker picture, as in no training image: is it a negative?",
    "outside_training_range": "brightness, contrast or colour as in no training image",
}
"""Every flag with its meaning, in the order in which they are reported."""

_BLANK_SPREAD = 8
_BLANK_SHARE = 0.005
_DARK, _DARK_SHARE = 32, 0.99
_WHITE, _WHITE_SHARE = 250, 0.5

_WIDENING = 0.5
"""The training range is widened on both sides by this part of its (logarithmic) width.

The range of a few images is narrower than what they were drawn from: of 20 values from a normal distribution it spans
3.7 standard deviations, and widened so, 7.5.
"""
_SMALLEST_WIDENING = {"brightness": 1.25, "contrast": 1.25, "sharpness": 1.25, "red": 1.1, "blue": 1.1}
"""Factor by which the range of each statistic is widened at least; with one training image its width is 0."""
_FRAME_WIDENING = 0.25
_POSITIVE_FRAME = 0.25
_ZERO = 1e-4


def quality_flags(image: UInt8Array, contract: Contract) -> tuple[str, ...]:
    """The names of `FLAGS` that hold for an image.

    Args:
        image: RGB image [H, W, 3], uint8, as read for the network.
        contract: Of the network that will see it.

    Returns:
        Flags in the order of `FLAGS`; empty for an image like those trained on. A blank image has no other flag.

    Raises:
        DataError: The array is no RGB image.

    Example:
        >>> from etnet.config.schema import Recipe
        >>> quality_flags(np.zeros((64, 64, 3), np.uint8), Recipe().contract())
        ('blank',)
    """
    require_image(image)
    small = working_copy(image)
    grey = grey_of(small)
    shares = np.cumsum(np.bincount(grey.ravel(), minlength=256)) / grey.size
    if _is_blank(shares):
        return ("blank",)
    if contract.training_range is None:
        found = {
            "too_dark": shares[_DARK - 1] >= _DARK_SHARE,
            "too_bright": 1 - shares[_WHITE - 1] >= _WHITE_SHARE,
        }
    else:
        found = _against(statistics_of_copy(small, grey), contract.training_range)
    return tuple(name for name in FLAGS if found.get(name))


def _is_blank(shares: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Whether all but the darkest and the brightest 0.5 % of the pixels have nearly one grey."""
    low, high = np.searchsorted(shares, (_BLANK_SHARE, 1 - _BLANK_SHARE))
    return bool(high - low < _BLANK_SPREAD)


def _against(statistics: ImageStatistics, trained: TrainingRange) -> dict[str, bool]:
    sides = {name: _side(name, statistics, trained) for name in _SMALLEST_WIDENING}
    highest_frame = max(trained.high.frame + _FRAME_WIDENING, _POSITIVE_FRAME)
    return {
        "too_dark": sides["brightness"] < 0,
        "too_bright": sides["brightness"] > 0,
        "blurred": sides["sharpness"] < 0,
        "inverted": statistics.frame > highest_frame,
        "outside_training_range": any(sides[name] != 0 for name in ("brightness", "contrast", "red", "blue")),
    }


def _side(name: str, statistics: ImageStatistics, trained: TrainingRange) -> int:
    """-1 below the widened training range, 1 above it, 0 inside.

    In logarithms: these quantities are positive, and what halves one is as unusual as what doubles it.
    """
    low, high, value = (math.log(max(getattr(each, name), _ZERO)) for each in (trained.low, trained.high, statistics))
    widening = max(_WIDENING * (high - low), math.log(_SMALLEST_WIDENING[name]))
    return int(value > high + widening) - int(value < low - widening)
