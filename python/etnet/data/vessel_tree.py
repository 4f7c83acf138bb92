"""The branching vessels of a drawn fundus: arcades around the macula, nasal trunks, and what grows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

_STEP = 0.006
_THINNEST = 0.0011
_VIEW_RADIUS = 0.485
_FREE_ZONE = 0.035
_DEEPEST_LEVEL = 5
_CELLS = 72
_NOBODY = -1
_TIP = 14


@dataclass(frozen=True)
class Vessel:
    """A path with a width.

    Attributes:
        points: x and y [P, 2] in image widths.
        radii: Half of the width [P] in image widths, shrinking along the path.
        vein: Veins are wider and darker than arteries.
    """

    points: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]
    vein: bool

    def thicker_than(self, radius: float) -> Vessel:
        """The path up to where its radius falls below a bound for good."""
        thick = np.flatnonzero(self.radii > radius)
        count = int(thick[-1]) + 1 if len(thick) else 0
        return Vessel(self.points[:count], self.radii[:count], self.vein)


@dataclass(frozen=True)
class _Shoot:
    """Where a vessel begins; `side` is -1 above and +1 below the fovea, and arcades turn around it."""

    x: float
    y: float
    heading: float
    radius: float
    vein: bool
    level: int
    side: int = 0
    arcade: bool = False
    parent: int = _NOBODY


def grow_vessels(
    *,
    start: tuple[float, float],
    fovea: tuple[float, float],
    temporal: int,
    disc_radius: float,
    generator: np.random.Generator,
) -> list[Vessel]:
    """Grows all vessels of one eye.

    Args:
        start: (x, y) inside the disc where the trunks emerge.
        fovea: (x, y) of the centre of the macula, which stays free of vessels.
        temporal: +1 when the fovea is on the right of the disc, -1 when it is on the left.
        disc_radius: Radius of the disc; nothing branches inside it.
        generator: The only source of randomness.

    Returns:
        Vessels, trunks before their branches.
    """
    garden = _Garden(start, fovea, temporal, disc_radius, generator)
    waiting = garden.trunks()
    vessels: list[Vessel] = []
    while waiting:
        vessel, shoots = garden.grow(waiting.pop(0), name=len(vessels))
        waiting.extend(shoots)
        vessels.append(vessel)
    return [vessel for vessel in vessels if len(vessel.points) > 5]


class _Territory:
    """Which vessel runs through each part of the image: vessels of one kind neither cross nor crowd each other."""

    def __init__(self) -> None:
        self._owner = np.full((2, _CELLS, _CELLS), _NOBODY)

    def owner(self, x: float, y: float, *, vein: bool) -> int:
        row, column = self._cell(x, y)
        return int(self._owner[int(vein), row, column])

    def claim(self, points: npt.NDArray[np.float64], *, vein: bool, name: int) -> None:
        for x, y in points.tolist():
            row, column = self._cell(x, y)
            self._owner[int(vein), row, column] = name

    @staticmethod
    def _cell(x: float, y: float) -> tuple[int, int]:
        last = _CELLS - 1
        return min(max(int(y * _CELLS), 0), last), min(max(int(x * _CELLS), 0), last)


@dataclass(frozen=True)
class _Garden:
    start: tuple[float, float]
    fovea: tuple[float, float]
    temporal: int
    disc_radius: float
    generator: np.random.Generator
    territory: _Territory = field(default_factory=_Territory)

    def trunks(self) -> list[_Shoot]:
        """An artery and a vein for each of four quadrants, and a few thin ones straight from the disc."""
        draw = self.generator.uniform
        shoots = []
        for side in (-1, 1):
            for vein in (True, False):
                radius = draw(0.0060, 0.0076) if vein else draw(0.0045, 0.0058)
                spread = draw(0.02, 0.22) if vein else draw(-0.22, -0.02)
                shoots.append(self._trunk(side * (1.45 + spread), radius, vein, side=side, arcade=True))
                spread = draw(0.0, 0.3) if vein else draw(-0.3, 0.0)
                shoots.append(self._trunk(side * (2.25 + spread), radius * draw(0.62, 0.8), vein, side=side))
        straight = (draw(2.9, 3.4), draw(-0.35, -0.1), draw(0.15, 0.4))
        shoots += [self._trunk(angle, draw(0.0022, 0.0030), bool(draw() < 0.5), side=0) for angle in straight]
        return shoots

    def _trunk(self, angle: float, radius: float, vein: bool, *, side: int, arcade: bool = False) -> _Shoot:
        # Angles count from the temporal direction, downwards positive.
        heading = angle if self.temporal > 0 else math.pi - angle
        x, y = self.start[0] + self.generator.uniform(-0.006, 0.006), self.start[1]
        y += side * self.disc_radius * self.generator.uniform(0.05, 0.35)
        return _Shoot(x, y, heading, radius, vein, 0, side, arcade)

    def grow(self, shoot: _Shoot, *, name: int) -> tuple[Vessel, list[_Shoot]]:
        """Follows one vessel to its end and collects the branches that leave it."""
        generator = self.generator
        x, y, heading, radius = shoot.x, shoot.y, shoot.heading, shoot.radius
        points, radii = [(x, y)], [radius]
        shoots: list[_Shoot] = []
        wander = 0.0
        until_branch = generator.uniform(0.02, 0.07)
        side = 1 if generator.random() < 0.5 else -1
        preferred = heading + generator.uniform(-0.35, 0.35)
        taper = generator.uniform(0.55, 0.8) if shoot.level == 0 else generator.uniform(1.2, 2.0)
        while radius > _THINNEST and self._is_free(x, y, shoot, name):
            wander = 0.86 * wander + generator.normal(0.0, 0.035)
            heading += wander * 0.55 + self._steering(x, y, heading, preferred, shoot)
            x, y = x + _STEP * math.cos(heading), y + _STEP * math.sin(heading)
            radius *= 1 - taper * _STEP
            points.append((x, y))
            radii.append(radius)
            until_branch -= _STEP
            if until_branch <= 0 and self._from_disc(x, y) > self.disc_radius * 1.15:
                branch, radius = self._branch(x, y, heading, radius, shoot, side)
                shoots.extend(replace(each, parent=name) for each in branch)
                side = -side if generator.random() < 0.75 else side
                until_branch = generator.uniform(0.03, 0.085)
        path, widths = np.array(points), np.array(radii)
        self.territory.claim(path, vein=shoot.vein, name=name)
        tip = min(_TIP, len(widths))
        if shoot.level > 0:
            widths[-tip:] *= np.linspace(1.0, 0.45, tip)
        else:
            # Trunks come up from the depth of the cup.
            widths[:tip] *= np.linspace(0.55, 1.0, tip)
        return Vessel(path, widths, shoot.vein), shoots

    def _branch(
        self, x: float, y: float, heading: float, radius: float, shoot: _Shoot, side: int
    ) -> tuple[list[_Shoot], float]:
        share = self.generator.uniform(0.42, 0.78)
        child = radius * share
        if shoot.level >= _DEEPEST_LEVEL or child < _THINNEST * 1.1:
            return [], radius
        turn = side * self.generator.uniform(0.45, 1.05)
        # Murray's law: the cubes of the radii add up.
        rest = radius * (1 - 0.75 * share**3) ** (1 / 3)
        return [_Shoot(x, y, heading + turn, child, shoot.vein, shoot.level + 1)], rest

    def _steering(self, x: float, y: float, heading: float, preferred: float, shoot: _Shoot) -> float:
        across, down = x - self.fovea[0], y - self.fovea[1]
        distance = math.hypot(across, down)
        if shoot.arcade:
            # Along an ellipse around the fovea, in the sense that leads from the disc over the macula.
            sense = shoot.side * self.temporal
            wanted = math.atan2(-sense * across * 0.62, sense * down * 1.25)
            outwards = math.atan2(down, across)
            pull = 0.10 * _turn(wanted, heading)
            return pull + (0.05 * _turn(outwards, heading) if distance < 0.24 else 0.0)
        pull = 0.02 * _turn(preferred, heading)
        if distance < 0.20 and shoot.level > 0:
            pull += 0.03 * _turn(math.atan2(-down, -across), heading)
        return pull

    def _is_free(self, x: float, y: float, shoot: _Shoot, name: int) -> bool:
        if shoot.level > 0 and self.territory.owner(x, y, vein=shoot.vein) not in (_NOBODY, shoot.parent, name):
            return False
        in_view = math.hypot(x - 0.5, y - 0.5) < _VIEW_RADIUS + 0.01
        return in_view and math.hypot(x - self.fovea[0], y - self.fovea[1]) > _FREE_ZONE

    def _from_disc(self, x: float, y: float) -> float:
        return math.hypot(x - self.start[0], y - self.start[1])


def _turn(wanted: float, heading: float) -> float:
    """The shorter turn from one direction to another, in -pi..pi."""
    return (wanted - heading + math.pi) % (2 * math.pi) - math.pi
