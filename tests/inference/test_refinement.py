from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etnet.errors import UsageError
from etnet.inference.postprocess import PostprocessedPredictor
from etnet.inference.predictor import Predictor
from etnet.inference.refinement import Refinement, override, refine
from etnet.inference.tiling import TiledPredictor, Tiling
from etnet.types import Postprocessing, RegionOfInterest, StructureRule
from helpers.backends import PixelBackend, contract, image_of, photographs, random_labels
from helpers.bundles import pixel_bundle
from helpers.tiles import NeighbourhoodBackend

VESSEL = StructureRule("vessel", largest=1)
TILES = Tiling(64, largest_whole=0)


def test_by_default_a_prediction_is_that_of_the_network():
    labels = random_labels(50, 70)
    network = Predictor(PixelBackend(), contract())
    refined = refine(network, Refinement())
    np.testing.assert_array_equal(refined.predict(image_of(labels)).labels, labels)
    assert not isinstance(refined, PostprocessedPredictor)


def test_everything_together_is_the_same_as_one_after_the_other():
    image = photographs(1, 150, 170)[0]
    network = Predictor(NeighbourhoodBackend(radius=2), contract(2))
    rules = Postprocessing(0.4, (StructureRule("vessel", largest=1, fill_holes=True),))
    found = refine(network, Refinement(TILES, tiles_per_run=2, flips=True, postprocessing=rules)).predict(image)
    steps = refine(network, Refinement(TILES, flips=True)).predict(image)
    above = refine(network, Refinement(TILES, flips=True, postprocessing=Postprocessing(0.4))).predict(image)
    np.testing.assert_array_equal(above.labels, steps.probabilities[1] >= np.float32(0.4))
    only_rules = refine(network, Refinement(TILES, flips=True, postprocessing=replace(rules, threshold=None)))
    assert np.count_nonzero(only_rules.predict(image).labels != found.labels)
    np.testing.assert_allclose(found.probabilities, steps.probabilities)
    assert {shape[0] for shape in network.backend.shapes} == {1, 2}


def test_the_rules_of_the_contract_hold_unless_others_are_given():
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8, 2:8] = labels[12:14, 12:14] = 1
    rules = replace(contract(), postprocess=Postprocessing(structures=(VESSEL,)))
    network = Predictor(PixelBackend(), rules)
    assert np.count_nonzero(refine(network, Refinement()).predict(image_of(labels)).labels) == 36
    plain = refine(network, Refinement(postprocessing=Postprocessing()))
    assert np.count_nonzero(plain.predict(image_of(labels)).labels) == 40


def test_an_automatic_tiling_is_left_out_where_the_network_sees_another_size():
    assert isinstance(refine(Predictor(PixelBackend(), contract()), Refinement()), TiledPredictor)
    resized = Predictor(PixelBackend(), contract(image_size=(32, 32)))
    assert isinstance(refine(resized, Refinement()), Predictor)
    with pytest.raises(UsageError, match="leave the tiles out"):
        refine(resized, Refinement(TILES))


def test_no_tiling_divides_nothing():
    backend = PixelBackend()
    refine(Predictor(backend, contract()), Refinement(None)).predict(image_of(random_labels(100, 90)))
    assert backend.shapes == [(1, 112, 96, 3)]


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_threshold_of_one_half_is_the_most_probable_class_also_of_resized_images(threshold):
    network = Predictor(NeighbourhoodBackend(radius=3), contract(2, image_size=(64, 64)))
    image = photographs(1, 90, 110)[0]
    found = refine(network, Refinement(postprocessing=Postprocessing(threshold))).predict(image, probabilities=False)
    np.testing.assert_array_equal(found.labels, network.predict(image).labels)


def test_a_threshold_holds_for_images_that_are_not_divided():
    image = photographs(1, 60, 60)[0]
    network = Predictor(NeighbourhoodBackend(radius=3), contract(2))
    found = refine(network, Refinement(postprocessing=Postprocessing(0.2))).predict(image, probabilities=False)
    np.testing.assert_array_equal(found.labels, network.predict(image).probabilities[1] >= np.float32(0.2))
    assert found.probabilities is None


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Postprocessing(0.5), "this network knows 3"),
        (Postprocessing(structures=(StructureRule("liver", largest=1),)), "no structure 'liver'"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(rules, words):
    with pytest.raises(UsageError, match=words):
        refine(Predictor(PixelBackend(), contract()), Refinement(postprocessing=rules))


def test_of_a_bundle_the_segmenter_is_refined():
    bundle = pixel_bundle(RegionOfInterest(0.5, 48))
    refined = refine(bundle, Refinement(flips=True))
    assert "4 flips (segmenter)" in refined.runs_on
    assert refined.description is bundle.description
    assert not refined.needs_center
    with pytest.raises(UsageError, match="a region of interest"):
        refine(bundle, Refinement(TILES))


def test_closing_reaches_the_backend_through_every_layer():
    backend = PixelBackend()
    network = Predictor(backend, contract())
    refined = refine(network, Refinement(flips=True, postprocessing=Postprocessing(structures=(VESSEL,))))
    with refined.timing() as stages:
        refined.predict(np.zeros((16, 16, 3), np.uint8))
    assert set(stages) == {"pre", "compute", "post"}
    refined.close()
    assert backend.closed


def test_rules_that_are_given_join_those_of_the_model():
    model = Postprocessing(0.4, (StructureRule("a", largest=2), StructureRule("b", min_area=5, fill_holes=True)))
    given = Postprocessing(None, (StructureRule("c", largest=1), StructureRule("b", min_area=9, largest=3)))
    assert override(model, given) == Postprocessing(
        0.4, (StructureRule("a", 2), StructureRule("b", 3, 9, True), StructureRule("c", 1))
    )
    assert override(model, Postprocessing(0.7)).threshold == 0.7


def test_another_window_is_that_of_all_networks():
    network = Predictor(PixelBackend(), contract())
    assert refine(network, Refinement(intensity_window=(3, 9))).contract == replace(contract(), intensity_window=(3, 9))
    bundle = refine(pixel_bundle(RegionOfInterest(0.5, 48)), Refinement(intensity_window=(3, 9)))
    assert {bundle.contract.intensity_window, bundle.localizer.contract.intensity_window} == {(3, 9)}
