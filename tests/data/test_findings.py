from __future__ import annotations

import pytest

from etnet.data.findings import Finding, PartMissing, by_severity, refuse
from etnet.errors import DataError


def test_an_error_is_refused_with_its_sentence():
    with pytest.raises(DataError, match=r"^a\.png: is upside down; turn it$"):
        refuse(Finding("error", "upside-down", "a.png: is upside down; turn it"))


@pytest.mark.parametrize("severity", ["warning", "note"])
def test_what_is_no_error_does_not_stop_training(severity):
    refuse(Finding(severity, "upside-down", "a.png: is upside down"))


def test_errors_come_first_and_the_order_stays():
    given = [
        Finding(severity, str(number), "") for number, severity in enumerate(["note", "error", "warning", "error"])
    ]
    assert [finding.rule for finding in by_severity(given)] == ["1", "3", "2", "0"]


def test_a_missing_part_is_an_error_of_the_data():
    assert PartMissing("").exit_code == 3
