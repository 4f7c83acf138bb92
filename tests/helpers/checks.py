"""Findings of a check of a data folder, and that training refuses the same in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from etnet.config.load import load_recipe
from etnet.data.check import CheckReport, check_dataset
from etnet.data.datasets import open_dataset
from etnet.data.findings import Finding
from etnet.errors import DataError


def findings(report: CheckReport, rule: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.rule == rule]


def the_error(root: Path, rule: str) -> Finding:
    """The first of the errors, all of one rule, with which training must refuse in the same words."""
    report = check_dataset(root)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert {finding.rule for finding in errors} == {rule}, [finding.sentence for finding in errors]
    with pytest.raises(DataError) as refusal:
        dataset = open_dataset(load_recipe(report.dataset).data, report.root, "all")
        # Images are read while training.
        for index in range(len(dataset)):
            dataset.load(index)
    assert str(refusal.value) == errors[0].sentence
    return errors[0]
