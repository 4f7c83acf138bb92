from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from etnet.cli.evaluate_table import report_tables, shown, shown_interval
from etnet.metrics.report import EvaluationReport
from helpers.backends import random_labels
from helpers.pixel_reports import report_of
from helpers.samples import sample


def printed(report: EvaluationReport, *, width: int = 80) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for table in report_tables(report):
        console.print(table)
    return stream.getvalue().splitlines()


@pytest.fixture
def several() -> EvaluationReport:
    samples = [sample(str(seed), random_labels(20, 20, seed=seed), random_labels(20, 20)) for seed in range(5)]
    return report_of(*samples, class_groups=(("both_together", (1, 2)),))


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_in_80_columns(several, width):
    lines = printed(several, width=width)
    assert max(len(line.rstrip()) for line in lines) <= width
    assert not any("…" in line for line in lines)


def test_each_score_stands_above_its_interval(several):
    lines = printed(several)
    at = next(index for index, line in enumerate(lines) if line.split()[:1] == ["both_together"])
    region = several.regions["whole_image"]
    assert lines[at].split()[1] == shown(region.pooled.groups["both_together"]["dice"])
    low, high = region.pooled_interval["groups"]["both_together"]["dice"]
    assert lines[at + 1].split()[0] == f"{low:.3f}-{high:.3f}"


def test_boundaries_and_clinical_errors_have_tables_of_their_own(several):
    text = "\n".join(printed(several))
    assert "Boundary, whole image" in text
    assert "HD95 (px)" in text
    assert "Clinical" in text
    assert "vessel density absolute error" in text
    assert "Area under the ROC curve" not in text


def test_two_classes_have_an_area_under_the_roc_curve():
    samples = [sample(str(n), *(random_labels(9, 9, seed=s, num_classes=2) for s in (n, 9))) for n in range(3)]
    assert any(
        line.startswith("Area under the ROC curve: pooled 0.") for line in printed(report_of(*samples, classes=2))
    )


def test_missed_structures_are_told_below_the_table():
    there, empty = np.zeros((2, 12, 12), np.uint8)
    there[3:9, 3:9] = 1
    text = " ".join(printed(report_of(sample("a", empty, there), sample("b", there, empty), sample("c", there, there))))
    assert "vessel: missed in 1 image, predicted where there is none in 1; HD95 and ASSD are of the" in text


def test_an_undefined_score_is_a_dash_and_its_interval_nothing():
    assert shown(None) == "-"
    assert shown(0.77444) == "0.7744"
    assert shown_interval(None) == ""
    assert shown_interval([-0.5, 0.25]) == "-0.500 to 0.250"
