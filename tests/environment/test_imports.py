from __future__ import annotations

import pytest

from etnet.environment.imports import ImportOutcome, try_imports
from helpers.broken_packages import put_package


@pytest.fixture
def front(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_versions_are_the_modules_own(front):
    put_package(front, "sound", "__version__ = '1.2'")
    put_package(front, "unnumbered", "")
    assert try_imports(["sound", "unnumbered"]) == {
        "sound": ImportOutcome(None, version="1.2"),
        "unnumbered": ImportOutcome(None),
    }


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('numpy 1 was expected\\nmore lines')", "RuntimeError: numpy 1 was expected"),
        ("import missing_part", "ModuleNotFoundError: No module named 'missing_part'"),
        ("raise OSError", "OSError"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("def f(:", "SyntaxError: invalid syntax (__init__.py, line 1)"),
        ("import os; os.abort()", "the import crashed Python (SIGABRT)"),
        ("import os; os._exit(3)", "the import ended Python (exit code 3)"),
    ],
)
def test_a_package_that_fails_is_its_reason_and_does_not_stop_the_others(front, source, error):
    put_package(front, "before", "__version__ = '1'")
    put_package(front, "failing", source)
    put_package(front, "after", "__version__ = '2'")
    outcomes = try_imports(["before", "failing", "after"])
    assert outcomes["failing"].error == error
    assert (outcomes["before"].version, outcomes["after"].version) == ("1", "2")


def test_an_import_that_never_ends_is_given_up(front):
    put_package(front, "waiting", "import threading; threading.Event().wait()")
    put_package(front, "after", "")
    outcomes = try_imports(["waiting", "after"], timeout=1.5)
    assert outcomes["waiting"].error == "the import did not end within 1.5 s"
    assert outcomes["after"].error is None


def test_what_a_package_prints_does_not_spoil_the_answers(front):
    put_package(front, "talking", "import os\nprint('{\"started\": \"x\"}')\nos.write(1, b'half a line')")
    put_package(front, "after", "")
    outcomes = try_imports(["talking", "after"])
    assert {name: outcome.error for name, outcome in outcomes.items()} == {"talking": None, "after": None}


def test_folders_of_the_working_directory_are_not_taken_for_packages(tmp_path, monkeypatch):
    put_package(tmp_path, "openvino_lookalike", "")
    monkeypatch.chdir(tmp_path)
    (outcome,) = try_imports(["openvino_lookalike"]).values()
    assert outcome.error == "ModuleNotFoundError: No module named 'openvino_lookalike'"
