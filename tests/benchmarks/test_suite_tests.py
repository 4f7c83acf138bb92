"""How the suite runs tests and the sanitizer, and what it makes of their reports."""

from __future__ import annotations

import re
import sys
from argparse import Namespace

import pytest

from helpers.benchmarks import load_benchmark

gpu_tests = load_benchmark("suite.gpu_tests")

SAMPLE = """
import pytest

def test_good():
    pass

def test_bad():
    assert 1 == 2, "one is not two"

@pytest.fixture
def broken():
    raise RuntimeError("no kernel image")

def test_broken(broken):
    pass

@pytest.mark.skip(reason="no TensorRT")
def test_skipped():
    pass
"""


@pytest.fixture
def options(tmp_path):
    (tmp_path / "logs").mkdir()
    return Namespace(out=tmp_path, device="cpu", smoke=True)


def write_tests(tmp_path, monkeypatch, text: str) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text(text)
    monkeypatch.setattr(gpu_tests, "selected", lambda options: ([str(file)], "not gpu"))


def test_counts_failures_and_reasons_are_those_of_pytest(tmp_path, monkeypatch, options):
    write_tests(tmp_path, monkeypatch, SAMPLE)
    found = gpu_tests.run_tests(options, 60)
    assert found["counts"] == {"passed": 1, "failed": 1, "errors": 1, "skipped": 1}
    assert [failure["test"].rpartition("::")[2] for failure in found["failures"]] == ["test_bad", "test_broken"]
    assert "one is not two" in found["failures"][0]["message"]
    assert "no kernel image" in found["failures"][1]["message"]
    assert found["skips"] == {"no TensorRT": 1}
    assert found["failed"] == "1 tests failed and 1 could not run"


def test_a_file_that_cannot_be_imported_does_not_keep_others_from_running(tmp_path, monkeypatch, options):
    (tmp_path / "test_lacking.py").write_text("import a_package_that_is_not_there\n")
    write_tests(tmp_path, monkeypatch, "def test_good():\n    pass\n")
    files = [str(tmp_path / name) for name in ("test_lacking.py", "test_sample.py")]
    monkeypatch.setattr(gpu_tests, "selected", lambda options: (files, "not gpu"))
    found = gpu_tests.run_tests(options, 60)
    assert found["counts"] == {"passed": 1, "failed": 0, "errors": 1, "skipped": 0}
    assert "failed" in found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "import os\n\ndef test_crash():\n    os.kill(os.getpid(), 11)\n",
            "ended with exit code -11 and left no report",
        ),
        ("import time\n\ndef test_hang():\n    time.sleep(600)\n", "were cut off after .* and left no report"),
        ("", "0 tests passed, and pytest ended with exit code 5"),
    ],
    ids=["crash", "hang", "nothing"],
)
def test_tests_without_an_outcome_are_a_failure(tmp_path, monkeypatch, options, text, sentence):
    write_tests(tmp_path, monkeypatch, text)
    monkeypatch.setattr(gpu_tests, "run_bounded", _with_short_grace(gpu_tests.run_bounded))
    found = gpu_tests.run_tests(options, 3 if "hang" in text else 60)
    assert re.search(sentence, found["failed"])


def _with_short_grace(run):
    return lambda *words, **named: run(*words, grace=0.2, **named)


def test_a_missing_pytest_is_a_failure_with_a_way_out(tmp_path, monkeypatch, options):
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", lambda name: None)
    assert gpu_tests.run_tests(options, 60)["failed"] == "pytest is not installed; give its wheels with --packages"


def test_on_a_gpu_exactly_the_files_with_such_a_test_are_named():
    files, mark = gpu_tests.selected(Namespace(device="cuda", smoke=False))
    assert mark == "gpu"
    assert "tests/ops/test_lovasz_cuda.py" in files
    assert "tests/ops/test_reference.py" not in files


def test_without_a_gpu_the_sanitizer_is_left_out(options):
    assert gpu_tests.sanitize("memcheck", options, 60)["status"] == "left out"


@pytest.mark.parametrize(
    ("tool", "script", "status", "errors"),
    [
        ("memcheck", "{run}; echo '========= ERROR SUMMARY: 0 errors'", "clean", 0),
        ("memcheck", "{run}; echo '========= ERROR SUMMARY: 3 errors'; exit 86", "errors", 3),
        (
            "racecheck",
            "{run}; echo '========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)'",
            "errors",
            2,
        ),
        ("racecheck", "echo 'Device not supported'; exit 1", "failed", None),
        ("racecheck", "echo '========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)'", "failed", 0),
        ("memcheck", "sleep 600", "cut off", None),
    ],
)
def test_what_the_sanitizer_found_is_told(tmp_path, monkeypatch, options, tool, script, status, errors):
    write_tests(tmp_path, monkeypatch, "def test_good():\n    pass\n")
    chosen = str(tmp_path / "tests" / "ops" / "test_sample.py")
    (tmp_path / "tests" / "ops").mkdir(parents=True)
    (tmp_path / "tests" / "ops" / "test_sample.py").write_text("def test_good():\n    pass\n")
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    monkeypatch.setattr(
        gpu_tests,
        "selected",
        lambda options: ([chosen.removeprefix(f"{tmp_path}/"), "tests/training/test_x.py"], "not gpu"),
    )
    stand_in = tmp_path / "compute-sanitizer"
    # After its own six words comes the command that it watches.
    stand_in.write_text("#!/bin/bash\n" + script.replace("{run}", 'shift 6; "$@"') + "\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(gpu_tests.shutil, "which", lambda name: str(stand_in))
    monkeypatch.setattr(gpu_tests, "run_bounded", _with_short_grace(gpu_tests.run_bounded))
    options.device = "cuda"
    found = gpu_tests.sanitize(tool, options, 2 if status == "cut off" else 60)
    assert (found["status"], found["errors"]) == (status, errors)
    if status == "clean":
        assert found["counts"]["passed"] == 1


def test_the_headline_names_counts_and_tools():
    figures = {"counts": {"passed": 8, "failed": 0}, "sanitizer": {"memcheck": {"status": "clean"}}}
    assert gpu_tests.headline(figures) == "8 passed; memcheck clean"
    assert sys.executable in gpu_tests.pytest_words([], "gpu", gpu_tests.ROOT)
