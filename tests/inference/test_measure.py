from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from etnet.export.onnx import export_onnx
from etnet.inference.measure import Contestant, ContestantFailed, Latency, Runner, take_turns
from etnet.inference.predictor import Predictor
from etnet.types import RegionOfInterest
from helpers.weights import write_confident


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_confident(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def test_a_process_of_its_own_gives_the_labels_and_times_of_a_predictor(weights, image):
    with Runner(Contestant("torch", weights, "torch"), device="cpu", threads=1) as runner:
        assert runner.ran_on == "torch cpu"
        np.testing.assert_array_equal(runner.labels(image), Predictor.load(weights, device="cpu").predict(image).labels)
        latency = runner.time(image, batch=2, runs=3)
        assert latency.batch == 2
        assert latency.total.shape == (3,)
        assert set(latency.stages) == {"pre", "compute", "post"}
        # The stages come from runs of their own, so that their sum is near the total but not it.
        assert 0 < sum(np.median(seconds) for seconds in latency.stages.values()) < 10 * latency.total.max()
        assert runner.peak_memory()["host"] > 2**25


def test_a_model_that_cannot_be_loaded_gives_the_sentence_of_the_predictor(tmp_path):
    with pytest.raises(ContestantFailed, match="no such run directory or weights file"):
        Runner(Contestant("torch", tmp_path / "nothing.safetensors", "torch"))


def test_a_process_that_dies_is_told_by_its_signal_and_the_others_go_on(weights, image):
    with (
        Runner(Contestant("first", weights, "torch")) as first,
        Runner(Contestant("second", weights, "torch")) as second,
    ):
        os.kill(first._process.pid, signal.SIGKILL)
        outcomes = dict(take_turns([first, second], image, batch=1, runs=2, rounds=2))
        assert isinstance(outcomes[second], Latency)
        assert str(outcomes[first]) == "first: its process was ended by SIGKILL"


def test_options_reach_the_backend_and_a_bad_image_is_a_reason_not_a_dead_process(weights, image):
    with Runner(Contestant("torch-bf16", weights, "torch", {"precision": "bfloat16"}), device="cpu") as runner:
        assert runner.ran_on == "torch cpu bfloat16"
        with pytest.raises(ContestantFailed, match=r"expected \[H, W, 3\]"):
            runner.labels(image[..., 0])
        assert runner.labels(image).shape == image.shape[:2]


def test_a_process_does_not_inherit_the_peak_of_its_parent(weights):
    held = np.ones(2**27)  # a gibibyte, touched
    exported = weights.with_name("model.onnx")
    export_onnx(weights, exported, size=(64, 48))
    with Runner(Contestant("onnxruntime", exported, "onnxruntime"), device="cpu", threads=1) as runner:
        assert runner.peak_memory()["host"] < held.nbytes


class Recorder:
    """Stands in for a process: notes its turns in a list that all share."""

    def __init__(self, name, turns, *, fails_at=None):
        self.contestant = Contestant(name, None, "none")
        self.turns = turns
        self.fails_at = fails_at

    def time(self, image, *, batch, runs):
        self.turns.append((self.contestant.name, runs))
        if len(self.turns) == self.fails_at:
            raise ContestantFailed("no more")
        return Latency(batch, np.full(runs, float(len(self.turns)), np.float32), {"compute": np.ones(runs, np.float32)})


def test_contestants_take_turns_and_every_run_counts_once(image):
    turns = []
    outcomes = list(take_turns([Recorder("a", turns), Recorder("b", turns)], image, batch=4, runs=7, rounds=3))
    assert turns == [("a", 3), ("b", 3), ("a", 2), ("b", 2), ("a", 2), ("b", 2)]
    (_, first), (_, second) = outcomes
    np.testing.assert_array_equal(first.total, [1, 1, 1, 3, 3, 5, 5])
    np.testing.assert_array_equal(second.total, [2, 2, 2, 4, 4, 6, 6])
    assert first.stages["compute"].shape == (7,)


def test_one_that_fails_loses_its_later_turns_only(image):
    turns = []
    runners = [Recorder("a", turns), Recorder("b", turns, fails_at=2)]
    (_, first), (_, second) = take_turns(runners, image, batch=1, runs=3, rounds=3)
    assert [name for name, _ in turns] == ["a", "b", "a", "a"]
    assert len(first.total) == 3
    assert isinstance(second, ContestantFailed)


def test_fewer_runs_than_rounds_make_fewer_rounds(image):
    turns = []
    list(take_turns([Recorder("a", turns)], image, batch=1, runs=2, rounds=5))
    assert turns == [("a", 1), ("a", 1)]


def test_percentiles_are_milliseconds_and_the_rate_is_of_images():
    seconds = np.linspace(0.010, 0.030, 101, dtype=np.float32)
    figures = Latency(4, seconds, {"compute": seconds / 2}).to_dict()
    assert figures["milliseconds"]["total"] == pytest.approx({"p50": 20.0, "p95": 29.0, "p99": 29.8}, rel=1e-4)
    assert figures["milliseconds"]["compute"]["p50"] == pytest.approx(10.0, rel=1e-4)
    assert figures["images_per_second"] == pytest.approx(200.0, rel=1e-4)
    assert (figures["batch"], figures["runs"]) == (4, 101)


def test_a_network_of_regions_is_measured_on_regions_without_a_centre(tmp_path):
    from helpers.bundles import segmenter_contract
    from helpers.onnx_graphs import write_small_onnx

    rule = segmenter_contract(RegionOfInterest(side=0.5, size=32))
    model = write_small_onnx(tmp_path / "model.onnx", size=(32, 32), num_classes=3, trained_as=rule)
    region = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = Predictor.load(model).of_regions().predict(region).labels
    with Runner(Contestant("onnxruntime", model, "onnxruntime"), threads=1) as runner:
        np.testing.assert_array_equal(runner.labels(region), expected)
