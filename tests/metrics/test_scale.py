from __future__ import annotations

import math

import pytest

from etnet.errors import DataError
from etnet.metrics.scale import PIXELS, millimetres


def test_areas_and_lengths_are_in_pixels_until_a_spacing_is_known():
    assert (PIXELS.unit, PIXELS.area_unit, PIXELS.pixel_area) == ("px", "px", 1.0)
    scale = millimetres(0.5, 0.25)
    assert (scale.unit, scale.area_unit, scale.pixel_area) == ("mm", "mm2", 0.125)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_spacing_that_is_not_positive_and_finite_is_refused_in_one_sentence(wrong, place):
    spacing = [0.5, 0.5]
    spacing[place] = wrong
    with pytest.raises(DataError, match=r"slice\.dcm: the pixel spacing is .* expected two positive numbers") as caught:
        millimetres(*spacing, source="slice.dcm")
    assert str(wrong) in str(caught.value)
