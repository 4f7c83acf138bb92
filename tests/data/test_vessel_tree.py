from __future__ import annotations

import numpy as np
import pytest

from etnet.data.vessel_tree import Vessel, grow_vessels

FOVEA = (0.5, 0.5)


def vessels_of(seed: int, *, temporal: int = 1) -> list[Vessel]:
    start = (0.5 - temporal * 0.3, 0.48)
    generator = np.random.default_rng(seed)
    return grow_vessels(start=start, fovea=FOVEA, temporal=temporal, disc_radius=0.08, generator=generator)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("temporal", [-1, 1])
def test_vessels_stay_in_view_and_leave_the_macula_free(seed, temporal):
    vessels = vessels_of(seed, temporal=temporal)
    points = np.concatenate([vessel.points for vessel in vessels])
    assert np.hypot(*(points - 0.5).T).max() < 0.51
    assert np.hypot(*(points - FOVEA).T).min() > 0.025
    assert 25 < len(vessels) < 400


@pytest.mark.parametrize("seed", range(6))
def test_vessels_reach_all_four_quadrants_around_the_disc(seed):
    trunks = sorted(vessels_of(seed), key=lambda vessel: -vessel.radii.max())[:8]
    ends = np.array([vessel.points[-1] for vessel in trunks]) - (0.2, 0.48)
    assert {(bool(x > 0), bool(y > 0)) for x, y in ends} == {(True, True), (True, False), (False, True), (False, False)}


def test_both_kinds_grow_and_veins_are_wider():
    vessels = [vessel for seed in range(5) for vessel in vessels_of(seed)]
    widest = {kind: max(vessel.radii.max() for vessel in vessels if vessel.vein == kind) for kind in (True, False)}
    assert widest[True] > widest[False] > 0


def test_branches_are_thinner_than_the_widest_trunk_and_taper():
    for vessel in vessels_of(0):
        assert vessel.points.shape == (len(vessel.radii), 2)
        middle = len(vessel.radii) // 2
        assert vessel.radii[-1] < vessel.radii[middle] <= 0.008


def test_thicker_than_keeps_the_first_part():
    vessel = Vessel(np.arange(8.0).reshape(4, 2), np.array([1.0, 3.0, 2.0, 0.5]), vein=True)
    assert vessel.thicker_than(0.7).radii.tolist() == [1.0, 3.0, 2.0]
    assert len(vessel.thicker_than(9.0).points) == 0


def test_the_generator_decides():
    first, again, other = vessels_of(1), vessels_of(1), vessels_of(2)
    assert all(np.array_equal(a.points, b.points) for a, b in zip(first, again, strict=True))
    assert len(first) != len(other) or not np.array_equal(first[0].points, other[0].points)
