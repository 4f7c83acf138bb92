"""Drawn fundus photographs with exact masks: a data set for the demo and the tests that needs no download.

Everything is measured in widths of the image and drawn from one seeded generator. The pictures are meant to look right
to a reader, not to replace real data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from etnet.config.schema import default_color
from etnet.data.io import write_png
from etnet.data.vessel_tree import Vessel, grow_vessels
from etnet.errors import EnvironmentFault, UsageError
from etnet.types import Float32Array, Sample, UInt8Array

CLASS_NAMES = ("background", "vessel", "optic_disc", "optic_cup")
SMALLEST_SIZE = 64

_SUPERSAMPLING = 4
_VIEW_RADIUS = 0.485
_THINNEST_PIXELS = 0.42


@dataclass(frozen=True)
class Ellipse:
    """An upright ellipse; centre (x, y) and radii (horizontal, vertical) in image widths."""

    centre: tuple[float, float]
    radii: tuple[float, float]


class _Anatomy(NamedTuple):
    """Where things are; `temporal` is +1 when the macula lies right of the disc."""

    disc: Ellipse
    cup: Ellipse
    fovea: tuple[float, float]
    temporal: int
    vessels: list[Vessel]


def write_fundus_dataset(root: Path, *, train: int, test: int, size: int, seed: int) -> None:
    """Writes a `folder` data set: `images/` and `masks/`, and a test part below `test/`.

    The masks hold the indices of `CLASS_NAMES` with a palette for viewers. Inside the disc, disc and cup win over
    vessels, as in data sets for glaucoma; the class optic_disc is the rim around the cup.

    Args:
        root: Folder that receives them; made when missing.
        train: Number of training pairs.
        test: Number of test pairs.
        size: Height and width of the images in pixels, at least 64.
        seed: The same seed gives the same files.

    Raises:
        UsageError: The size is too small or a count negative.
        EnvironmentFault: A file cannot be written.
    """
    if size < SMALLEST_SIZE or train < 0 or test < 0:
        raise UsageError(
            f"a data set of {train} + {test} images of {size} pixels cannot be drawn; expected counts from 0 "
            f"and a size from {SMALLEST_SIZE}"
        )
    palette = [default_color(index) for index in range(len(CLASS_NAMES))]
    for part, (folder, count) in enumerate(((root, train), (root / "test", test))):
        if count == 0:
            continue
        for name in ("images", "masks"):
            _make_folder(folder / name)
        for index in range(count):
            sample = draw_fundus(size=size, generator=np.random.default_rng([seed, part, index]))
            name = f"{'test' if part else 'train'}_{index + 1:03d}.png"
            write_png(folder / "images" / name, sample.image)
            write_png(folder / "masks" / name, sample.mask, palette)


def draw_fundus(*, size: int, generator: np.random.Generator) -> Sample:
    """Draws one photograph and its mask.

    Args:
        size: Height and width in pixels.
        generator: The only source of randomness.

    Returns:
        RGB image [size, size, 3], uint8, mask [size, size], uint8, indices of `CLASS_NAMES`, and the field of view.
    """
    anatomy = _draw_anatomy(size, generator)
    light = _retina(anatomy, size, generator)
    light = _paint_disc(light, anatomy, generator)
    light = _paint_vessels(light, anatomy.vessels)
    image, view = _photograph(light, generator)
    return Sample("fundus", image, _mask(anatomy, view), view)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: could not be made ({error.strerror}); name another folder") from error


def _draw_anatomy(size: int, generator: np.random.Generator) -> _Anatomy:
    temporal = 1 if generator.random() < 0.5 else -1
    fovea = (0.5 + temporal * generator.uniform(-0.01, 0.04), 0.5 + generator.uniform(-0.01, 0.05))
    distance = generator.uniform(0.27, 0.31)
    centre = (fovea[0] - temporal * distance, fovea[1] - generator.uniform(0.0, 0.045))
    vertical = generator.uniform(0.078, 0.096)
    disc = Ellipse(centre, (vertical * generator.uniform(0.84, 0.96), vertical))
    ratio = generator.uniform(0.35, 0.68)
    shift = disc.radii[0] * (1 - ratio) * 0.35
    cup_centre = (
        centre[0] + temporal * generator.uniform(0.0, 1.0) * shift,
        centre[1] + generator.uniform(-0.5, 0.5) * shift,
    )
    cup = Ellipse(cup_centre, (disc.radii[0] * ratio * generator.uniform(0.88, 1.0), disc.radii[1] * ratio))
    vessels = grow_vessels(
        start=(cup_centre[0] - temporal * cup.radii[0] * 0.35, centre[1]),
        fovea=fovea,
        temporal=temporal,
        disc_radius=vertical,
        generator=generator,
    )
    # A camera of this size does not resolve the rest.
    visible = [vessel.thicker_than(_THINNEST_PIXELS / size) for vessel in vessels]
    return _Anatomy(disc, cup, fovea, temporal, [vessel for vessel in visible if len(vessel.points) > 1])


def _floats(array: npt.ArrayLike) -> Float32Array:
    return np.asarray(array, dtype=np.float32)


def _blurred(array: Float32Array, sigma: float) -> Float32Array:
    return _floats(cv2.GaussianBlur(array, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


def _grid(size: int) -> tuple[Float32Array, Float32Array]:
    """X and y of pixel centres, each [size, size], in image widths."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    return _floats(x), _floats(y)


def _ellipse_distance(ellipse: Ellipse, size: int) -> Float32Array:
    """Distance [size, size] from the centre in radii: 1 on the ellipse."""
    x, y = _grid(size)
    across = (x - ellipse.centre[0]) / ellipse.radii[0]
    down = (y - ellipse.centre[1]) / ellipse.radii[1]
    return _floats(np.hypot(across, down))


def _falloff(distance: npt.NDArray[np.floating], edge: float, softness: float) -> Float32Array:
    """1 below `edge`, 0 above it, smooth over about `softness`."""
    return _floats(1 / (1 + np.exp(np.clip((distance - edge) * (4 / softness), -30, 30))))


def _cloud(size: int, *, cells: float, generator: np.random.Generator) -> Float32Array:
    """Smooth noise [size, size] of unit spread with about `cells` bumps across; drawn small, then enlarged."""
    small = max(4, min(size, round(cells * 4)))
    noise = generator.standard_normal((small, small)).astype(np.float32)
    noise = _blurred(noise, small / cells / 2.5)
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    return _floats(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC))


def _retina(anatomy: _Anatomy, size: int, generator: np.random.Generator) -> Float32Array:
    """Light of the bare fundus [size, size, 3], about 0..1: pigment, choroid, macula."""
    x, y = _grid(size)
    red = generator.uniform(0.74, 0.86)
    base = np.array([red, red * generator.uniform(0.44, 0.54), red * generator.uniform(0.17, 0.26)], np.float32)
    shade = 1 + 0.045 * _cloud(size, cells=3, generator=generator) + 0.03 * _cloud(size, cells=9, generator=generator)
    choroid = _cloud(size, cells=26, generator=generator) + 0.7 * _cloud(size, cells=60, generator=generator)
    light = base * shade[..., None] * (1 + choroid[..., None] * np.array([0.010, 0.022, 0.028], np.float32))

    towards = np.hypot((x - anatomy.fovea[0]) * 0.9, y - anatomy.fovea[1])
    macula = 0.75 * np.exp(-((towards / 0.075) ** 2)) + 0.45 * np.exp(-((towards / 0.028) ** 2))
    light *= 1 - macula[..., None] * np.array([0.20, 0.33, 0.40], np.float32)
    reflex = np.exp(-((towards / 0.006) ** 2)) * generator.uniform(0.05, 0.18)
    light += reflex[..., None] * np.array([1.0, 0.85, 0.6], np.float32)

    # Nerve fibres scatter light above and below the disc.
    disc_x, disc_y = anatomy.disc.centre
    sheen = np.exp(-((np.hypot(x - disc_x, (y - disc_y) * 0.8) / 0.19) ** 2))
    return _floats(light * (1 + 0.13 * sheen[..., None] * np.array([0.7, 1.0, 0.8], np.float32)))


def _paint_disc(light: Float32Array, anatomy: _Anatomy, generator: np.random.Generator) -> Float32Array:
    size = light.shape[0]
    towards_disc, towards_cup = _ellipse_distance(anatomy.disc, size), _ellipse_distance(anatomy.cup, size)
    x, _ = _grid(size)
    rim_color = np.array([0.97, 0.70, 0.40], np.float32) * generator.uniform(0.94, 1.02)
    cup_color = np.array([1.02, 0.91, 0.66], np.float32) * generator.uniform(0.96, 1.02)
    pallor = 1 + 0.06 * np.clip((x - anatomy.disc.centre[0]) * anatomy.temporal / anatomy.disc.radii[0], -1, 1)
    mottle = 1 + 0.02 * _cloud(size, cells=40, generator=generator)
    pigment = np.exp(-(((towards_disc - 1.06) / 0.07) ** 2)) * generator.uniform(0.06, 0.16)
    light = light * (1 - pigment[..., None] * np.array([0.7, 1.0, 1.0], np.float32))
    inside = _falloff(towards_disc, 1.0, 0.14)[..., None]
    light = light * (1 - inside) + inside * rim_color * (pallor * mottle)[..., None]
    inside = _falloff(towards_cup, 1.0, 0.34)[..., None] * 0.92
    return _floats(light * (1 - inside) + inside * cup_color * mottle[..., None])


def _strokes(
    vessels: list[Vessel], size: int, *, widening: float, smallest: float, fades: bool = False
) -> Float32Array:
    """Coverage [size, size] in 0..1 of lines along the vessels, from a picture several times as large.

    With `fades`, thin vessels count less: they hold less blood to look through.
    """
    fine = size * _SUPERSAMPLING
    shift = 4
    canvas = np.zeros((fine, fine), np.uint8)
    for vessel in sorted(vessels, key=lambda vessel: vessel.radii[0]):
        points = np.rint((vessel.points * fine - 0.5) * 2**shift).astype(np.int32)
        widths = np.maximum(np.rint(2 * vessel.radii * widening * fine), smallest * _SUPERSAMPLING).astype(int)
        depths = np.clip(0.42 + 0.58 * vessel.radii / 0.0032, 0, 1) if fades else np.ones(len(widths))
        for step in range(1, len(points)):
            start, end, depth = points[step - 1].tolist(), points[step].tolist(), round(255 * depths[step])
            cv2.line(canvas, start, end, depth, int(widths[step]), cv2.LINE_8, shift)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return _floats(np.divide(small, 255))


def _blood(vessels: list[Vessel], size: int, *, vein: bool) -> Float32Array:
    return _strokes([v for v in vessels if v.vein == vein], size, widening=1.0, smallest=1.5, fades=True)


def _reflex_coverage(vessels: list[Vessel], size: int) -> Float32Array:
    """The bright line along the middle of wide vessels."""
    wide = [vessel.thicker_than(2.0 / size) for vessel in vessels]
    return _strokes([vessel for vessel in wide if len(vessel.points) > 1], size, widening=0.26, smallest=0.5)


def _paint_vessels(light: Float32Array, vessels: list[Vessel]) -> Float32Array:
    size = light.shape[0]
    for vein, absorbed in ((True, (0.37, 0.60, 0.53)), (False, (0.22, 0.47, 0.42))):
        coverage = _blood(vessels, size, vein=vein)
        # A faint halo: blood scatters into its surroundings.
        soft = 0.88 * coverage + 0.22 * _blurred(coverage, max(0.5, size * 0.004))
        light = light * (1 - np.clip(soft, 0, 1)[..., None] * np.array(absorbed, np.float32))
    reflex = _reflex_coverage(vessels, size)
    return _floats(light * (1 + 0.16 * _blurred(reflex, 0.6)[..., None]))


def _photograph(light: Float32Array, generator: np.random.Generator) -> tuple[UInt8Array, npt.NDArray[np.bool_]]:
    """The camera (vignette, focus, sensor noise): image [size, size, 3] and field of view [size, size]."""
    size = light.shape[0]
    x, y = _grid(size)
    from_centre = np.hypot(x - 0.5, y - 0.5)
    lamp = np.hypot(x - 0.5 - generator.uniform(-0.07, 0.07), y - 0.5 - generator.uniform(-0.07, 0.07))
    light = light * (1.07 - 1.45 * lamp**2 - 2.6 * lamp**4)[..., None]
    light = _blurred(light, size / 640 * generator.uniform(0.6, 1.1))
    inside = _falloff(from_centre, _VIEW_RADIUS, 4.0 / size)
    light = light * inside[..., None] * generator.uniform(0.92, 1.08)
    grain = generator.standard_normal((size, size, 3)).astype(np.float32)
    grain = 0.6 * grain + 0.9 * _blurred(grain, 0.8)
    pixels = light * 255 + grain * (0.8 + 2.6 * inside[..., None])
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), from_centre < _VIEW_RADIUS


def _mask(anatomy: _Anatomy, view: npt.NDArray[np.bool_]) -> UInt8Array:
    size = view.shape[0]
    coverage = _strokes(anatomy.vessels, size, widening=1.0, smallest=1.5)
    mask = (view & (coverage >= 0.5)).astype(np.uint8)
    mask[_ellipse_distance(anatomy.disc, size) <= 1] = CLASS_NAMES.index("optic_disc")
    mask[_ellipse_distance(anatomy.cup, size) <= 1] = CLASS_NAMES.index("optic_cup")
    return mask
