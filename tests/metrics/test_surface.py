from __future__ import annotations

import math
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist

from etnet.metrics.surface import (
    BAND_SHARE,
    SurfaceScores,
    band_width,
    boundary,
    surface_scores,
    surface_scores_of,
)

SPACINGS = [(1.0, 1.0), (0.5, 0.5), (1.0, 2.5), (0.7, 0.3)]
TOLERANCES = (1.0, 2.0, 3.0)


def disc(shape: tuple[int, int], row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - row, columns - column) <= radius


def blobs(seed: int, shape: tuple[int, int] = (48, 61)) -> np.ndarray:
    """Irregular islands, some of which touch the border."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 2.5) > 0.05


def single_pixel(row: int, column: int, shape: tuple[int, int] = (48, 61)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[row, column] = True
    return mask


PAIRS = {
    "blobs": (blobs(0), blobs(1)),
    "shifted blobs": (blobs(2), np.roll(blobs(2), (2, -3), (0, 1))),
    "equal": (blobs(3), blobs(3)),
    "discs": (disc((48, 61), 20, 30, 12), disc((48, 61), 24, 27, 9)),
    "touching the border": (disc((48, 61), 2, 0, 15), disc((48, 61), 45, 60, 12)),
    "full and full": (np.ones((48, 61), bool), np.ones((48, 61), bool)),
    "full and a disc": (np.ones((48, 61), bool), disc((48, 61), 24, 30, 10)),
    "single pixels": (single_pixel(0, 0), single_pixel(47, 60)),
    "a single pixel and blobs": (single_pixel(10, 50), blobs(4)),
    "a line": (np.eye(48, 61, dtype=bool), np.eye(48, 61, 3, dtype=bool)),
}


@pytest.fixture(params=PAIRS, ids=lambda name: name.replace(" ", "_"))
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    return PAIRS[request.param]


def by_definition(predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, float]) -> SurfaceScores:
    """Every pixel of one boundary against every pixel of the other, in float64."""
    points = []
    for mask in (predicted, truth):
        padded = np.pad(mask, 1)
        edge = mask & ~ndimage.binary_erosion(padded)[1:-1, 1:-1]
        points.append(np.argwhere(edge) * np.asarray(spacing))
    between = cdist(*points)
    there, back = between.min(axis=1), between.min(axis=0)
    both = np.concatenate([there, back])
    return SurfaceScores(
        hd95=max(np.percentile(there, 95), np.percentile(back, 95)),
        assd=both.mean(),
        surface_dice=tuple(np.mean(both <= tolerance) for tolerance in TOLERANCES),
        boundary_iou=math.nan,
        presence="both",
    )


def assert_same_distances(got: SurfaceScores, expected: SurfaceScores, *, relative: float = 1e-9) -> None:
    assert got.hd95 == pytest.approx(expected.hd95, rel=relative)
    assert got.assd == pytest.approx(expected.assd, rel=relative)
    assert got.surface_dice == pytest.approx(expected.surface_dice, rel=relative)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_are_those_between_all_pairs_of_boundary_pixels(pair, spacing):
    assert_same_distances(surface_scores(*pair, spacing=spacing), by_definition(*pair, spacing))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_are_those_of_monai(pair, spacing):
    import torch
    from monai import metrics

    predicted, truth = (torch.from_numpy(mask)[None, None].float() for mask in pair)
    options = {"include_background": True, "spacing": spacing}
    got = surface_scores(*pair, spacing=spacing)
    expected = SurfaceScores(
        hd95=metrics.compute_hausdorff_distance(predicted, truth, percentile=95, **options).item(),
        assd=metrics.compute_average_surface_distance(predicted, truth, symmetric=True, **options).item(),
        surface_dice=tuple(
            metrics.compute_surface_dice(predicted, truth, [tolerance], **options).item() for tolerance in TOLERANCES
        ),
        boundary_iou=math.nan,
        presence="both",
    )
    assert_same_distances(got, expected, relative=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    masks=hnp.arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9))),
    spacing=st.sampled_from(SPACINGS),
)
def test_small_masks_of_any_kind_agree_with_the_definition(masks, spacing):
    predicted, truth = masks
    got = surface_scores(predicted, truth, spacing=spacing)
    if predicted.any() and truth.any():
        assert_same_distances(got, by_definition(predicted, truth, spacing))
        assert got.presence == "both"
    else:
        assert math.isnan(got.hd95)
        assert math.isnan(got.assd)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), spacing=st.sampled_from(SPACINGS))
def test_scores_do_not_depend_on_which_mask_comes_first_nor_on_mirroring(seed, spacing):
    predicted, truth = blobs(seed), blobs(seed + 1)
    scores = surface_scores(predicted, truth, spacing=spacing)
    assert_same_distances(surface_scores(truth, predicted, spacing=spacing), scores)
    mirrored = surface_scores(predicted[::-1, ::-1], truth[::-1, ::-1], spacing=spacing)
    assert_same_distances(mirrored, scores)
    assert mirrored.boundary_iou == scores.boundary_iou
    turned = surface_scores(predicted.T, truth.T, spacing=spacing[::-1])
    assert_same_distances(turned, scores)


def test_long_distances_are_exact():
    predicted, truth = single_pixel(0, 3, (3000, 4)), single_pixel(2999, 0, (3000, 4))
    assert surface_scores(predicted, truth).hd95 == math.hypot(2999, 3)


@pytest.mark.parametrize(
    ("predicted", "truth", "presence", "share"),
    [(False, False, "absent", math.nan), (False, True, "missed", 0.0), (True, False, "false_alarm", 0.0)],
)
def test_a_mask_without_pixels_has_no_distance_and_no_agreement(predicted, truth, presence, share):
    masks = [disc((20, 20), 9, 9, 5) if there else np.zeros((20, 20), bool) for there in (predicted, truth)]
    got = surface_scores(*masks)
    assert got.presence == presence
    assert math.isnan(got.hd95)
    assert math.isnan(got.assd)
    assert got.surface_dice == pytest.approx((share,) * 3, nan_ok=True)
    assert got.boundary_iou == pytest.approx(share, nan_ok=True)


def test_empty_masks_are_treated_as_monai_treats_them():
    import torch
    from monai import metrics

    there, empty = torch.from_numpy(disc((20, 20), 9, 9, 5))[None, None].float(), torch.zeros(1, 1, 20, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI says that the result may be NaN
        for predicted, truth in ((empty, empty), (empty, there), (there, empty)):
            dice = metrics.compute_surface_dice(predicted, truth, [1.0], include_background=True).item()
            distance = metrics.compute_hausdorff_distance(predicted, truth, percentile=95, include_background=True)
            got = surface_scores(predicted[0, 0].bool().numpy(), truth[0, 0].bool().numpy())
            assert got.surface_dice[0] == pytest.approx(dice, nan_ok=True)
            # Its infinite distance cannot enter a mean; ours is NaN and counted.
            assert not math.isfinite(distance.item())
            assert math.isnan(got.hd95)


def official_boundary_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """IoU of the pixels of each mask whose Chebyshev distance to the outside is at most the band's width."""
    width = max(1, round(BAND_SHARE * math.hypot(*truth.shape)))
    bands = []
    for mask in (predicted, truth):
        depth = ndimage.distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
        bands.append(mask & (depth <= width))
    return np.sum(bands[0] & bands[1]) / np.sum(bands[0] | bands[1])


def test_boundary_iou_is_the_iou_of_the_bands(pair):
    assert surface_scores(*pair).boundary_iou == pytest.approx(official_boundary_iou(*pair))


def test_boundary_iou_of_a_large_image_has_a_wider_band():
    predicted, truth = disc((300, 400), 150, 200, 80), disc((300, 400), 155, 190, 85)
    assert band_width((300, 400)) == 10
    got = surface_scores(predicted, truth).boundary_iou
    assert got == pytest.approx(official_boundary_iou(predicted, truth))
    overlap = np.sum(predicted & truth) / np.sum(predicted | truth)
    assert got < overlap


def test_boundary_iou_of_a_thin_structure_is_its_iou():
    predicted, truth = np.zeros((2, 200, 200), bool)
    predicted[20:180, 50:54], truth[20:180, 52:56] = True, True
    assert surface_scores(predicted, truth).boundary_iou == pytest.approx(1 / 3)


def test_the_boundary_includes_pixels_at_the_border_of_the_image():
    full = np.ones((4, 5), np.uint8)
    expected = np.ones((4, 5), bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(boundary(full), expected)


def test_a_diagonal_neighbour_outside_does_not_make_a_boundary():
    mask = np.ones((5, 5), np.uint8)
    mask[0, 0] = 0
    assert not boundary(mask)[1, 1]


def test_a_region_hides_what_lies_outside_and_its_own_border():
    truth = disc((60, 60), 30, 30, 18)
    predicted = truth.copy()
    predicted[:, 45:] = False
    where = np.zeros((60, 60), bool)
    where[:, :40] = True
    got = surface_scores(predicted, truth, where=where)
    assert (got.hd95, got.assd, got.surface_dice, got.boundary_iou) == (0.0, 0.0, (1.0, 1.0, 1.0), 1.0)
    assert surface_scores(predicted, truth).hd95 > 0


def test_a_region_does_not_depend_on_labels_outside_it():
    generator = np.random.default_rng(0)
    predicted, truth, where = blobs(5), blobs(6), disc((48, 61), 24, 30, 20)
    scores = surface_scores(predicted, truth, where=where)
    for _ in range(3):
        noise = generator.random((2, *where.shape)) < 0.5
        changed = [np.where(where, mask, other) for mask, other in zip((predicted, truth), noise, strict=True)]
        assert surface_scores(*changed, where=where) == scores


def test_a_region_of_the_whole_image_changes_nothing(pair):
    everything = np.ones(pair[0].shape, bool)
    got, expected = surface_scores(*pair, where=everything), surface_scores(*pair)
    assert got == expected


def test_a_region_without_a_boundary_is_absent():
    full = np.ones((60, 60), bool)
    got = surface_scores(full, full, where=disc((60, 60), 30, 30, 10))
    assert got.presence == "absent"
    assert math.isnan(got.surface_dice[0])


def test_structures_may_consist_of_several_classes():
    target = disc((40, 40), 20, 20, 12).astype(np.uint8) + disc((40, 40), 20, 20, 6)
    labels = np.roll(target, 2, axis=0)
    got = surface_scores_of(labels, target, {"cup": (2,), "disc": (1, 2)})
    assert list(got) == ["cup", "disc"]
    assert got["disc"] == surface_scores(labels > 0, target > 0)
    assert got["cup"] == surface_scores(labels == 2, target == 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((3, 4), bool)}, r"shapes \[\(3, 3\), \(3, 4\)\]"),
        ({"where": np.zeros((4, 3), bool)}, "one shape"),
        ({"spacing": (0.0, 1.0)}, "two positive distances"),
        ({"spacing": (math.nan, 1.0)}, "two positive distances"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    masks = {"predicted": np.zeros((3, 3), bool), "truth": np.zeros((3, 3), bool)}
    with pytest.raises(ValueError, match=message):
        surface_scores(**(masks | change))


def test_inputs_are_left_as_they_are():
    predicted, truth, where = blobs(7), blobs(8), blobs(9)
    copies = predicted.copy(), truth.copy(), where.copy()
    for array in (predicted, truth, where):
        array.flags.writeable = False
    surface_scores(predicted, truth, where=where)
    for array, copy in zip((predicted, truth, where), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_the_distance_transform_of_opencv_is_exact_enough_to_round():
    sparse = np.random.default_rng(0).random((700, 900)) < 0.001
    got = cv2.distanceTransform((~sparse).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    expected = ndimage.distance_transform_edt(~sparse)
    np.testing.assert_array_equal(np.rint(np.square(got, dtype=np.float64)), np.rint(np.square(expected)))
