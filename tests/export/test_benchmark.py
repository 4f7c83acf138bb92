from __future__ import annotations

import numpy as np
import pytest

from etnet.export.benchmark import BenchmarkPlan, run_benchmark
from etnet.export.formats import ModelFiles
from etnet.inference.compare import ComparisonImage
from etnet.inference.predictor import Predictor
from etnet.metrics.overlap import OverlapScores, confusion_matrix
from helpers.weights import write_confident

CLASSES = ("background", "vessel", "optic_disc")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_confident(tmp_path_factory.mktemp("run") / "best.safetensors")


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


def measured(weights, folder, **options):
    plan = {"formats": ("torch", "onnxruntime"), "images": images(2), "class_names": CLASSES, "runs": 2, **options}
    files = ModelFiles(weights, folder, size=(64, 48), batch=(1, 1, 2), calibration=())
    return run_benchmark(BenchmarkPlan(device="cpu", threads=1, **plan), files)


def test_each_format_has_its_scores_labels_times_and_memory(weights, tmp_path):
    first, second = measured(weights, tmp_path, batches=(1, 2))
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


def test_a_format_that_cannot_run_is_a_row_with_its_reason(weights, tmp_path):
    engine, torch = measured(weights, tmp_path, formats=("onnxruntime-int8", "torch"))
    assert "calibration" in engine.reason
    assert not engine.latencies
    assert torch.reason is None
    assert torch.differing_labels == 0


def test_images_without_masks_are_compared_but_not_scored(weights, tmp_path):
    first, second = measured(weights, tmp_path, images=images(1, masks=False))
    assert first.mean_dice is None
    assert second.mean_iou is None
    assert second.differing_labels < 0.001


def test_noise_is_timed_only(weights, tmp_path):
    rows = measured(weights, tmp_path, images=images(1, masks=False), real_images=False)
    assert all(row.differing_labels is None and row.latencies for row in rows)


def test_a_difference_is_a_share_of_all_pixels(weights, tmp_path, monkeypatch):
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
    _, second = measured(weights, tmp_path)
    assert second.differing_labels == pytest.approx(12 / (64 * 48))
    assert sorted(flipped) == ["onnxruntime", "torch"]
