from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etnet.export.benchmark import BenchmarkPlan, run_benchmark
from etnet.export.formats import ModelFiles
from etnet.inference.compare import ComparisonImage
from etnet.inference.measure import ContestantFailed, Latency
from etnet.inference.predictor import Predictor
from etnet.metrics.overlap import OverlapScores, confusion_matrix
from etnet.output import json_text
from helpers.weights import write_confident

CLASSES = ("background", "vessel", "optic_disc")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_confident(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    """Exported once for all tests."""
    return ModelFiles(weights, tmp_path_factory.mktemp("files"), size=(64, 48), batch=(1, 1, 2), calibration=())


def images(count, *, masks=True):
    generator = np.random.default_rng(0)
    return [
        ComparisonImage(
            str(index),
            generator.integers(0, 256, (64, 48, 3), dtype=np.uint8),
            generator.integers(0, 3, (64, 48), dtype=np.uint8) if masks else None,
        )
        for index in range(count)
    ]


def measured(files, **options):
    plan = {"formats": ("torch", "onnxruntime"), "images": images(2), "class_names": CLASSES, "runs": 2, **options}
    return run_benchmark(BenchmarkPlan(device="cpu", threads=1, **plan), files)


def test_each_format_has_its_scores_labels_times_and_memory(weights, files):
    first, second = measured(files, batches=(1, 2))
    expected = np.sum(
        [
            confusion_matrix(Predictor.load(weights).predict(item.image).labels, item.mask, num_classes=3)
            for item in images(2)
        ],
        axis=0,
    )
    scores = OverlapScores.from_confusion(expected, CLASSES)
    assert first.mean_dice == pytest.approx(scores.mean_dice)
    assert first.mean_iou == pytest.approx(scores.mean_iou)
    assert first.file_bytes == weights.stat().st_size
    assert first.differing_labels == 0
    assert second.differing_labels < 0.001
    assert second.ran_on == "onnxruntime cpu"
    assert [latency.batch for latency in second.latencies] == [1, 2]
    assert second.peak_bytes["host"] > 2**25
    assert second.to_dict()["latencies"][1]["milliseconds"]["total"]["p50"] > 0


def test_a_format_that_cannot_run_is_a_row_with_its_reason(files):
    int8, exact = measured(files, formats=("onnxruntime-int8", "onnxruntime"))
    assert "calibration" in int8.reason
    assert not int8.latencies
    assert exact.reason is None
    assert exact.differing_labels == 0


def test_images_without_masks_are_compared_but_not_scored(files):
    (row,) = measured(files, formats=("onnxruntime",), images=images(1, masks=False))
    assert row.mean_dice is None
    assert row.mean_iou is None
    assert row.differing_labels == 0


def test_noise_is_timed_only(files):
    (row,) = measured(files, formats=("onnxruntime",), images=images(1, masks=False), real_images=False)
    assert row.differing_labels is None
    assert row.latencies


def test_a_difference_is_a_share_of_all_pixels(files, monkeypatch):
    flipped = []

    class Flipping:
        """Gives the labels of the first format with 12 pixels changed."""

        def __init__(self, contestant, *, device, threads):
            self.contestant, self.ran_on = contestant, contestant.name

        def __enter__(self):
            return self

        def __exit__(self, *_):
            flipped.append(self.contestant.name)

        def labels(self, image):
            labels = np.zeros(image.shape[:2], np.uint8)
            labels.flat[: 12 * (self.contestant.name == "onnxruntime")] = 1
            return labels

    monkeypatch.setattr("etnet.export.benchmark.Runner", Flipping)
    monkeypatch.setattr("etnet.export.benchmark._time", lambda *_: None)
    _, second = measured(files)
    assert second.differing_labels == pytest.approx(12 / (64 * 48))
    assert sorted(flipped) == ["onnxruntime", "torch"]


class Dead:
    """Times one batch size, then its process is gone."""

    def __init__(self, contestant, *, device, threads):
        self.contestant, self.ran_on = contestant, contestant.name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def labels(self, image):
        return np.zeros(image.shape[:2], np.uint8)

    def time(self, image, *, batch, runs):
        return Latency(batch, np.ones(runs, np.float32), {})

    def peak_memory(self):
        raise ContestantFailed("its process was ended by SIGKILL")


def test_a_process_that_dies_at_the_end_costs_its_row_only(files, monkeypatch):
    monkeypatch.setattr("etnet.export.benchmark.Runner", Dead)
    first, second = measured(files)
    assert first.reason == second.reason == "its process was ended by SIGKILL"


def test_images_without_foreground_give_figures_that_json_can_hold(files, monkeypatch):
    monkeypatch.setattr("etnet.export.benchmark.Runner", Dead)
    empty = [replace(item, mask=np.zeros_like(item.mask)) for item in images(2)]
    (row,) = measured(files, formats=("onnxruntime",), images=empty)
    assert row.mean_dice is None
    assert row.mean_iou == 1
    assert "NaN" not in json_text(row.to_dict())
