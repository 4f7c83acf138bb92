from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from etnet.cli.evaluate_summary import summary
from etnet.cli.evaluate_table import localization_lines
from etnet.inference.evaluate_regions import LocalizationReport, LocalizedImage
from etnet.metrics.report import EvaluationReport
from helpers.backends import random_labels
from helpers.pixel_reports import report_of
from helpers.samples import sample


def printed(report: EvaluationReport) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=80).print(summary(report))
    return stream.getvalue().splitlines()


@pytest.fixture
def several() -> EvaluationReport:
    samples = [sample(str(seed), random_labels(20, 20, seed=seed), random_labels(20, 20)) for seed in range(5)]
    return report_of(*samples, class_groups=(("both_together", (1, 2)),))


def test_the_scores_of_every_structure_stand_in_one_row(several):
    lines = printed(several)
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert not any("…" in line for line in lines)
    region = several.regions["whole_image"]
    found = region.pooled.to_dict()["groups"]["both_together"]
    low, high = region.pooled_interval["groups"]["both_together"]["dice"]
    (row,) = [line.split() for line in lines if line.split()[:1] == ["both_together"]]
    rates = [f"{found[key]:.4f}" for key in ("iou", "sensitivity", "specificity")]
    distance = region.boundary["both_together"].scores["hd95_px"].mean
    assert row[1:] == [f"{found['dice']:.4f}", f"{low:.3f}", "to", f"{high:.3f}", *rates, f"{distance:.2f}"]


def test_clinical_errors_are_told_without_their_sign(several):
    (line,) = [line for line in printed(several) if line.startswith("vessel density")]
    errors = several.clinical["vessel_density_absolute_error"]
    assert line.startswith(f"vessel density absolute error: {errors.mean:.4f} (")
    assert line.rstrip().endswith("mean of 5 images")


def test_missed_structures_are_told():
    there, empty = np.zeros((2, 12, 12), np.uint8)
    there[3:9, 3:9] = 1
    lines = printed(report_of(sample("a", empty, there), sample("b", there, empty), sample("c", there, there)))
    assert "vessel: missed in 1 image, predicted where there is none in 1" in [line.rstrip() for line in lines]


def test_two_classes_have_an_area_under_the_roc_curve():
    samples = [sample(str(n), *(random_labels(9, 9, seed=s, num_classes=2) for s in (n, 9))) for n in range(3)]
    text = " ".join(" ".join(printed(report_of(*samples, classes=2))).split())
    assert ", area under the ROC curve pooled 0." in text


def test_of_many_images_without_a_centre_some_are_named():
    images = tuple(LocalizedImage(str(number), (5.0, 5.0), None, 4.0, "too small") for number in range(5))
    lines = list(localization_lines(LocalizationReport(images), most=3))
    assert lines[0] == "Nothing was found in 5 of 5 images."
    assert [line.split(",")[0].strip() for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[4] == "  ... and 2 more; see localization.csv"
