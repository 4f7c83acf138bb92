"""Large images in overlapping tiles, whose probabilities are blended, in memory that does not grow with their height.

Tiles lie on the grid of the contract's `size_multiple`, so that the network samples a pixel as it would in the whole
image. Where tiles overlap, a Gaussian around each one's centre weighs it (sigma an eighth of its side, as in Isensee et
al., "nnU-Net", Nature Methods 2021), and the outer quarter of an overlap, where the network sees least around a pixel,
does not count. The weights of rows and of columns are normalised apart, so that all weights of a pixel sum to 1 and no
sum of weights is kept. One row of tiles is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from etnet.errors import UsageError
from etnet.inference.predictor import Predictor
from etnet.inference.preprocess import Center, plan, require_image
from etnet.inference.wrapped import WrappedPredictor
from etnet.types import Contract, Float32Array, Prediction, UInt8Array

TILE_SIZE = 512
"""Pixels a side, as the crops of training (paper Sec. 2.3)."""

LARGEST_OVERLAP = 0.75

LARGEST_WHOLE_IMAGE = 2048 * 2048
"""Pixels of an image above which it is divided unless the caller says otherwise.

ET-Net with ResNet-50 took 545 bytes per pixel on a processor (PyTorch, 1024x1024), which makes 2.3 GB.
"""

SIGMA = 1 / 8
"""Standard deviation of the blending weights as a share of a tile's side."""

UNTRUSTED = 4
"""Of an overlap, the part by its tile's border that does not count: one in this many."""


@dataclass(frozen=True)
class Tiling:
    """How images are divided.

    Attributes:
        size: Height and width of a tile, in pixels; None takes those of a network of fixed size, and 512 for others.
        overlap: Least share of a tile that its neighbour sees too.
        largest_whole: Images of at most this many pixels go through the network whole; with 0, those of at most one
            tile do.
    """

    size: int | None = None
    overlap: float = 0.25
    largest_whole: int = LARGEST_WHOLE_IMAGE

    def __post_init__(self) -> None:
        # The negation also refuses an overlap that is no number.
        if not 0 <= self.overlap <= LARGEST_OVERLAP:
            raise UsageError(f"the overlap of tiles is {self.overlap:g}; expected 0 to {LARGEST_OVERLAP:g} of a tile")
        if self.size is not None and self.size < 1:
            raise UsageError(f"tiles have {self.size} pixels a side; expected a positive number, for instance 512")

    @property
    def automatic(self) -> bool:
        """Whether it is for large images alone."""
        return self.largest_whole > 0


@dataclass(frozen=True)
class Axis:
    """The tiles along the rows or the columns of an image.

    Attributes:
        starts: First pixel of each tile.
        stops: Pixel behind the last one of each tile; the image's end where the tile reaches beyond it.
        weights: How much each tile counts at each of its pixels [stop - start], float32; they sum to 1 at every pixel.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    weights: tuple[Float32Array, ...]

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Band:
    """Finished rows of an image that is predicted from top to bottom.

    Attributes:
        top: Its first row.
        labels: Class indices [h, W], uint8.
        probabilities: Class probabilities [C, h, W], float32.
        edges: Probability of a boundary times 255, rounded [h, W], uint8; None without edge guidance.
    """

    top: int
    labels: UInt8Array
    probabilities: Float32Array
    edges: UInt8Array | None


def divide(extent: int, *, tile: int, overlap: float, multiple: int) -> Axis:
    """Spread tiles evenly over a number of pixels, at multiples of `multiple`.

    Args:
        extent: Pixels of the image along this axis.
        tile: Pixels of a tile, a multiple of `multiple`.
        overlap: Least share of a tile that its neighbour sees too.
        multiple: Grid on which tiles begin.

    Returns:
        The tiles. The last one ends with the image padded to the multiple, as a whole image is; where a tile is larger
        than that, there is one of the image's extent.

    Example:
        >>> divide(100, tile=64, overlap=0.25, multiple=16).starts
        (0, 48)
    """
    padded = -(-extent // multiple) * multiple
    tile = min(tile, padded)
    step = max(int(tile * (1 - overlap)) // multiple, 1)
    span = (padded - tile) // multiple
    gaps = -(-span // step)
    starts = tuple(multiple * (span * index // gaps) for index in range(gaps + 1)) if gaps else (0,)
    stops = tuple(min(start + tile, extent) for start in starts)
    return Axis(starts, stops, _blending_weights(starts, stops, tile))


def _blending_weights(starts: tuple[int, ...], stops: tuple[int, ...], tile: int) -> tuple[Float32Array, ...]:
    total = np.zeros(stops[-1])
    weights = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        pixels = np.arange(start, stop)
        weight = np.exp(-0.5 * ((pixels - start - (tile - 1) / 2) / (SIGMA * tile)) ** 2)
        if index:
            weight[: (stops[index - 1] - start) // UNTRUSTED] = 0
        if index + 1 < len(starts):
            weight[len(weight) - (stop - starts[index + 1]) // UNTRUSTED :] = 0
        total[start:stop] += weight
        weights.append(weight)
    return tuple(
        (weight / total[start:stop]).astype(np.float32)
        for weight, start, stop in zip(weights, starts, stops, strict=True)
    )


class TiledPredictor(WrappedPredictor):
    """Divides the images that are too large for the network and leaves the others whole.

    Example:
        >>> tiled = TiledPredictor(Predictor.load("runs/train/drive"), Tiling(512))  # doctest: +SKIP
        >>> for band in tiled.bands(image):  # doctest: +SKIP
        ...     mask[band.top : band.top + len(band.labels)] = band.labels
    """

    def __init__(self, network: Predictor, tiling: Tiling, *, tiles_per_run: int = 1) -> None:
        """Wrap a predictor of images in their own resolution; `tiles_per_run` go through the network together.

        Raises:
            UsageError: The network sees images at another size, or no tile of this size.
        """
        super().__init__(network)
        self.network = network
        self.tiling = tiling
        self.tile = tile_size(network, tiling)
        self._tiles_per_run = tiles_per_run

    def predict_batch(
        self,
        images: Sequence[UInt8Array],
        *,
        centers: Sequence[Center | None] | None = None,
        probabilities: bool = True,
    ) -> list[Prediction]:
        """Predict several RGB images [H, W, 3], uint8; see `Predictor.predict_batch`.

        Of an image that is divided, labels, edges and, where they are asked for, probabilities are whole in memory;
        `bands` gives them in parts.
        """
        given: Sequence[Center | None] = [None] * len(images) if centers is None else centers
        divided = {
            index: self._predict_divided(image, probabilities=probabilities)
            for index, image in enumerate(images)
            if given[index] is None and self.divides(image)
        }
        others = [index for index in range(len(images)) if index not in divided]
        whole = self.network.predict_batch(
            [images[index] for index in others], centers=[given[index] for index in others], probabilities=probabilities
        )
        predictions = divided | dict(zip(others, whole, strict=True))
        return [predictions[index] for index in range(len(images))]

    def divides(self, image: UInt8Array) -> bool:
        """Whether an RGB image [H, W, 3] is divided.

        Raises:
            DataError: The array is no RGB image.
        """
        require_image(image)
        height, width = plan((image.shape[0], image.shape[1]), self.contract).padded
        if self.network.backend.input_size is not None:
            # One that is smaller is left to the network's own refusal.
            fits = height >= self.tile[0] and width >= self.tile[1]
            return fits and (height, width) != self.tile
        larger = height > self.tile[0] or width > self.tile[1]
        return larger and image.shape[0] * image.shape[1] > self.tiling.largest_whole

    def bands(self, image: UInt8Array) -> Iterator[Band]:
        """Predict an RGB image [H, W, 3], uint8, in tiles, from top to bottom.

        Args:
            image: An array in memory or mapped from a file (`numpy.memmap`); each pixel is read about once.

        Yields:
            Bands that follow one another without a gap; nothing of the earlier ones is kept.

        Raises:
            DataError: The array is no RGB image.
        """
        require_image(image)
        rows, columns = (
            divide(extent, tile=tile, overlap=self.tiling.overlap, multiple=self.contract.size_multiple)
            for extent, tile in zip(image.shape[:2], self.tile, strict=True)
        )
        open_rows: Float32Array | None = None
        for index, (start, stop) in enumerate(zip(rows.starts, rows.stops, strict=True)):
            maps = self._row_of_tiles(image[start:stop], columns)
            maps *= rows.weights[index][:, None]
            if open_rows is not None:
                maps[:, : open_rows.shape[1]] += open_rows
            finished = stop - start if index + 1 == len(rows) else rows.starts[index + 1] - start
            # A copy, or the finished rows would stay in memory as long as these.
            open_rows = maps[:, finished:].copy()
            yield self._band(start, maps[:, :finished])

    def _row_of_tiles(self, strip: UInt8Array, columns: Axis) -> Float32Array:
        """Blend the tiles of a strip [h, W, 3]: class probabilities, then edges if any, [C or C + 1, h, W], float32."""
        maps: Float32Array | None = None
        for first in range(0, len(columns), self._tiles_per_run):
            places = range(first, min(first + self._tiles_per_run, len(columns)))
            tiles = [np.ascontiguousarray(strip[:, columns.starts[at] : columns.stops[at]]) for at in places]
            for at, tile in zip(places, self.network.predict_batch(tiles), strict=True):
                found = _stacked(tile)
                if maps is None:
                    maps = np.zeros((len(found), *strip.shape[:2]), np.float32)
                maps[:, :, columns.starts[at] : columns.stops[at]] += found * columns.weights[at]
        if maps is None:
            raise ValueError("a strip has at least one tile")
        return maps

    def _band(self, top: int, maps: Float32Array) -> Band:
        classes = self.contract.num_classes
        edges = np.rint(maps[classes]).astype(np.uint8) if len(maps) > classes else None
        return Band(top, self.network.decision.labels(maps[:classes]), maps[:classes], edges)

    def _predict_divided(self, image: UInt8Array, *, probabilities: bool) -> Prediction:
        size = image.shape[:2]
        labels = np.empty(size, np.uint8)
        edges: UInt8Array | None = None
        maps = np.empty((self.contract.num_classes, *size), np.float32) if probabilities else None
        for band in self.bands(image):
            rows = slice(band.top, band.top + len(band.labels))
            labels[rows] = band.labels
            if band.edges is not None:
                edges = np.empty(size, np.uint8) if edges is None else edges
                edges[rows] = band.edges
            if maps is not None:
                maps[:, rows] = band.probabilities
        return Prediction(labels, maps, edges)


def _stacked(tile: Prediction) -> Float32Array:
    if tile.probabilities is None:
        raise ValueError("a tile was predicted without its probabilities")
    if tile.edges is None:
        return tile.probabilities
    return np.concatenate([tile.probabilities, tile.edges[None].astype(np.float32)])


def can_be_tiled(contract: Contract) -> bool:
    """Whether a network takes images in their own resolution and whole, so that parts of them look the same to it."""
    return contract.image_size is None and contract.roi is None


def tile_size(network: Predictor, tiling: Tiling) -> tuple[int, int]:
    """(height, width) of the tiles that a network takes.

    Raises:
        UsageError: It takes none, or not of this size.
    """
    contract, fixed = network.contract, network.backend.input_size
    if not can_be_tiled(contract):
        seen = (
            "a region of interest"
            if contract.roi is not None
            else "the whole image resized to {}x{}".format(*(contract.image_size or ()))
        )
        raise UsageError(f"this network sees {seen}, of which a tile would be another scale; leave the tiles out")
    if fixed is not None:
        if tiling.size is not None and fixed != (tiling.size, tiling.size):
            raise UsageError(
                f"tiles have {tiling.size} pixels a side, but this model takes only {fixed[0]}x{fixed[1]} (height x "
                "width); leave the size of the tiles out"
            )
        return fixed
    size, multiple = tiling.size or TILE_SIZE, contract.size_multiple
    if size % multiple:
        choices = " or ".join(
            str(choice) for choice in (size // multiple * multiple, -(-size // multiple) * multiple) if choice
        )
        raise UsageError(
            f"tiles have {size} pixels a side; this network needs a multiple of {multiple}, for instance {choices}"
        )
    return size, size
