from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.errors import DataError, UsageError
from etnet.inference.backends import NetworkOutputs
from etnet.inference.decision import Threshold
from etnet.inference.predictor import Predictor
from etnet.inference.tiling import TILE_SIZE, UNTRUSTED, TiledPredictor, Tiling, divide
from etnet.types import RegionOfInterest
from helpers.backends import PixelBackend, contract, image_of, photographs, random_labels
from helpers.tiles import NeighbourhoodBackend, PlaceBackend

ALWAYS = Tiling(64, largest_whole=0)


def tiled(backend=None, tiling=ALWAYS, *, tiles_per_run=1, decision=None, **rules) -> TiledPredictor:
    backend = backend or PixelBackend()
    network = Predictor(backend, contract(backend.num_classes, **rules), decision=decision)
    return TiledPredictor(network, tiling, tiles_per_run=tiles_per_run)


def photograph(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return photographs(1, height, width, seed=seed)[0]


@given(
    extent=st.integers(1, 3000),
    tiles=st.integers(2, 40),
    multiple=st.sampled_from([1, 16, 32]),
    overlap=st.floats(0, 0.75),
)
def test_tiles_cover_every_pixel_on_the_grid_with_weights_that_sum_to_one(extent, tiles, multiple, overlap):
    tile = tiles * multiple
    axis = divide(extent, tile=tile, overlap=overlap, multiple=multiple)
    padded = -(-extent // multiple) * multiple
    assert all(start % multiple == 0 for start in axis.starts)
    assert axis.starts[-1] + min(tile, padded) == padded
    assert axis.stops[-1] == extent
    total = np.zeros(extent)
    for start, stop, weight in zip(axis.starts, axis.stops, axis.weights, strict=True):
        assert weight.shape == (stop - start,)
        assert weight.min() >= 0
        total[start:stop] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    steps = np.diff(axis.starts)
    # The step is rounded to the grid, and is one of it at least.
    assert (steps <= max(tile * (1 - overlap), multiple)).all()
    assert (steps > 0).all()


def test_the_outer_quarter_of_an_overlap_does_not_count():
    axis = divide(1000, tile=256, overlap=0.25, multiple=16)
    for left in range(len(axis) - 1):
        shared = axis.stops[left] - axis.starts[left + 1]
        assert not axis.weights[left][-(shared // UNTRUSTED) :].any()
        assert not axis.weights[left + 1][: shared // UNTRUSTED].any()


def test_the_weights_of_two_tiles_are_those_of_two_gaussians():
    axis = divide(96, tile=64, overlap=0.25, multiple=16)
    assert axis.starts == (0, 32)
    pixels = np.arange(40, 56)  # seen by both, and outside the quarters that do not count
    first, second = (np.exp(-(((pixels - center) / 8) ** 2) / 2) for center in (31.5, 63.5))
    np.testing.assert_allclose(axis.weights[0][40:56], first / (first + second), rtol=1e-5)
    np.testing.assert_allclose(axis.weights[1][8:24], second / (first + second), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 220),
    width=st.integers(1, 220),
    overlap=st.sampled_from([0, 0.25, 0.5, 0.75]),
    run=st.integers(1, 3),
)
def test_a_network_that_sees_single_pixels_gives_the_same_in_tiles(height, width, overlap, run):
    labels = random_labels(height, width)
    predictor = tiled(tiling=Tiling(64, overlap, largest_whole=0), tiles_per_run=run)
    prediction = predictor.predict(image_of(labels))
    np.testing.assert_array_equal(prediction.labels, labels)
    np.testing.assert_array_equal(prediction.edges, labels * 100)
    np.testing.assert_allclose(prediction.probabilities, np.moveaxis(np.eye(3)[labels], 2, 0), atol=1e-6)
    assert (prediction.labels.dtype, prediction.edges.dtype, prediction.probabilities.dtype) == (
        np.uint8,
        np.uint8,
        np.float32,
    )


@pytest.mark.parametrize("size", [(200, 300), (129, 211), (64, 250), (40, 177), (321, 65)])
def test_a_network_that_sees_a_neighbourhood_gives_the_same_in_tiles(size):
    # Tiles of 128 with a quarter of overlap: eight pixels by the border do not count.
    tiling, image = Tiling(128, largest_whole=0), photograph(*size)
    network = Predictor(NeighbourhoodBackend(radius=8), contract(2))
    whole, parts = network.predict(image), TiledPredictor(network, tiling).predict(image)
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-6)
    assert np.abs(parts.edges.astype(int) - whole.edges).max() <= 1
    sure = np.abs(whole.probabilities[1] - 0.5) > 1e-5
    np.testing.assert_array_equal(parts.labels[sure], whole.labels[sure])
    assert sure.mean() > 0.99
    assert set(np.unique(whole.labels)) == {0, 1}


def test_a_network_that_sees_farther_than_tiles_overlap_differs_in_less_than_one_percent_of_pixels():
    image = photograph(500, 600)
    network = Predictor(NeighbourhoodBackend(radius=40), contract(2))
    whole, parts = network.predict(image), TiledPredictor(network, Tiling(256, largest_whole=0)).predict(image)
    assert 0 < np.mean(parts.labels != whole.labels) < 0.01


def test_there_are_no_seams_where_tiles_disagree():
    def steepest(overlap: float) -> float:
        """Largest step of the probability from a pixel to the next, in an image of one colour."""
        predictor = tiled(PlaceBackend(), Tiling(128, overlap, largest_whole=0))
        found = predictor.predict(np.full((384, 384, 3), 90, np.uint8)).probabilities[1]
        return max(np.abs(np.diff(found, axis=axis)).max() for axis in (0, 1))

    # Tiles disagree by up to 0.35 at their borders; blending spreads that over the overlap.
    assert steepest(0.0) > 0.3
    assert steepest(0.25) < 0.06
    assert steepest(0.5) < 0.02


@pytest.mark.parametrize("size", [(64, 64), (50, 33), (1, 1), (64, 1)])
def test_an_image_of_at_most_one_tile_is_not_divided(size):
    backend = PixelBackend()
    labels = random_labels(*size)
    np.testing.assert_array_equal(tiled(backend).predict(image_of(labels)).labels, labels)
    assert len(backend.shapes) == 1


def test_a_tile_that_is_larger_than_the_image_in_one_direction_is_cut_to_it():
    backend = PixelBackend()
    labels = random_labels(40, 300)
    np.testing.assert_array_equal(tiled(backend).predict(image_of(labels)).labels, labels)
    assert set(backend.shapes) == {(1, 48, 64, 3)}


def test_without_a_size_only_large_images_are_divided():
    backend = PixelBackend()
    predictor = tiled(backend, Tiling(largest_whole=600 * 600))
    for size, shapes in (((600, 600), {(1, 608, 608, 3)}), ((600, 601), {(1, TILE_SIZE, TILE_SIZE, 3)})):
        backend.shapes.clear()
        labels = random_labels(*size)
        np.testing.assert_array_equal(predictor.predict(image_of(labels)).labels, labels)
        assert set(backend.shapes) == shapes


def test_a_network_of_fixed_size_takes_larger_images_in_tiles_of_its_size():
    backend = PixelBackend(input_size=(48, 64))
    predictor = tiled(backend, Tiling())
    for size in ((48, 64), (49, 64), (100, 250), (48, 65)):
        labels = random_labels(*size)
        np.testing.assert_array_equal(predictor.predict(image_of(labels)).labels, labels)
    assert set(backend.shapes) == {(1, 48, 64, 3)}
    with pytest.raises(DataError, match="takes only 48x64"):
        predictor.predict(np.zeros((20, 300, 3), np.uint8))


def test_a_batch_keeps_its_order_and_small_images_share_a_run():
    backend = PixelBackend()
    sizes = [(20, 20), (130, 70), (30, 31), (65, 64), (17, 32)]
    labels = [random_labels(*size, seed=seed) for seed, size in enumerate(sizes)]
    predictions = tiled(backend).predict_batch([image_of(item) for item in labels], probabilities=False)
    for prediction, expected in zip(predictions, labels, strict=True):
        np.testing.assert_array_equal(prediction.labels, expected)
        assert prediction.probabilities is None
    assert (3, 32, 32, 3) in backend.shapes


@pytest.mark.parametrize(("together", "runs"), [(1, [1] * 8), (3, [3, 1] * 2), (9, [4, 4])])
def test_tiles_of_a_row_share_runs(together, runs):
    backend = PixelBackend()
    tiled(backend, tiles_per_run=together).predict(image_of(random_labels(100, 200)))
    assert [shape[0] for shape in backend.shapes] == runs


def test_bands_follow_one_another_and_are_the_prediction(tmp_path):
    labels = random_labels(150, 90)
    image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=(150, 90, 3))
    image[:] = image_of(labels)
    predictor = tiled()
    bands = list(predictor.bands(image))
    assert [band.top for band in bands] == [0, *np.cumsum([len(band.labels) for band in bands])[:-1]]
    assert len(bands) > 2
    whole = predictor.predict(image)
    np.testing.assert_array_equal(np.concatenate([band.labels for band in bands]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([band.edges for band in bands]), whole.edges)
    np.testing.assert_array_equal(np.concatenate([band.probabilities for band in bands], axis=1), whole.probabilities)


def test_a_network_without_edge_guidance_gives_no_edge():
    assert tiled(PixelBackend(with_edges=False)).predict(np.zeros((100, 100, 3), np.uint8)).edges is None


def test_the_threshold_holds_for_the_blended_probabilities():
    image = photograph(150, 170)
    predictor = tiled(NeighbourhoodBackend(radius=4), decision=Threshold(0.3))
    prediction = predictor.predict(image)
    np.testing.assert_array_equal(prediction.labels, prediction.probabilities[1] >= np.float32(0.3))
    np.testing.assert_array_equal(predictor.predict(image, probabilities=False).labels, prediction.labels)


@pytest.mark.parametrize(
    ("tiling", "rules", "words"),
    [
        (Tiling(100), {}, "a multiple of 16, for instance 96 or 112"),
        (Tiling(8), {}, "for instance 16$"),
        (Tiling(64), {"image_size": (256, 320)}, "resized to 256x320"),
        (Tiling(64), {"roi": RegionOfInterest(0.3, 64)}, "a region of interest"),
    ],
)
def test_tiles_that_a_network_cannot_take_are_refused(tiling, rules, words):
    with pytest.raises(UsageError, match=words):
        tiled(tiling=tiling, **rules)


def test_another_tile_than_a_fixed_size_is_refused():
    with pytest.raises(UsageError, match="takes only 48x64"):
        tiled(PixelBackend(input_size=(48, 64)), Tiling(64))


@pytest.mark.parametrize("values", [{"overlap": -0.1}, {"overlap": 0.8}, {"overlap": float("nan")}, {"size": 0}])
def test_a_tiling_that_makes_no_sense_is_refused(values):
    with pytest.raises(UsageError, match="expected"):
        Tiling(**values)


def test_a_centre_is_refused_where_there_is_no_use_for_it():
    with pytest.raises(UsageError, match="leave the centre out"):
        tiled().predict(np.zeros((200, 200, 3), np.uint8), center=(3.0, 4.0))


@pytest.mark.parametrize("image", [np.zeros((200, 200), np.uint8), np.zeros((0, 5, 3), np.uint8)])
def test_an_array_that_is_no_image_is_refused(image):
    with pytest.raises(DataError, match="expected"):
        tiled().predict(image)


class CheapBackend(PixelBackend):
    """Two classes from the red value, in as few steps as possible."""

    def __init__(self) -> None:
        super().__init__(2)

    def run(self, images, *, probabilities=True) -> NetworkOutputs:
        found = images[..., 0].astype(np.float32) / 255
        return NetworkOutputs((found > 0.5).view(np.uint8), images[..., 1], np.stack([1 - found, found], 1))


def striped(height: int, width: int) -> np.ndarray:
    """A large image of vertical stripes that itself takes next to no memory."""
    row = np.where(np.arange(width) // 7 % 2, 255, 0).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3))


def peak_of(action) -> int:
    """Most bytes that were allocated at a time during the action; NumPy and OpenCV report theirs."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_height_of_the_image():
    predictor = tiled(CheapBackend(), Tiling(256, largest_whole=0))

    def consume(height: int) -> int:
        return sum(len(band.labels) for band in predictor.bands(striped(height, 3000)))

    low, high = (peak_of(lambda height=height: consume(height)) for height in (1000, 6000))
    assert high < 1.02 * low
    # Two classes and edges in float32 for a row of tiles, the row above, which the caller holds, and a few tiles.
    assert high < 3 * 3 * 4 * 256 * 3000
    prediction = peak_of(lambda: predictor.predict(striped(6000, 3000), probabilities=False))
    assert prediction < high + 1.05 * 2 * 6000 * 3000


@pytest.mark.long
def test_an_image_of_400_megapixels_needs_little_more_than_its_labels_and_edges():
    side = 20_000
    image, predictor, predictions = striped(side, side), tiled(CheapBackend(), Tiling()), []
    peak = peak_of(lambda: predictions.append(predictor.predict(image, probabilities=False)))
    assert peak < 2 * side * side + 400e6
    np.testing.assert_array_equal(predictions[0].labels, image[..., 0] > 0)
