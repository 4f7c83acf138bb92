"""`etnet doctor` as a user runs it, in installations that are broken in one way each."""

from __future__ import annotations

import json

import pytest

from etnet import __version__
from helpers.broken_packages import MISSING_NATIVE, STALE_NATIVE, put_package, run_python, without

HEAVY = ("torch", "torchvision", "timm", "matplotlib", "tensorboard")
"""Left out where a test is about something else: their import takes seconds."""


def doctor(front, *options, startup=""):
    return run_python(["-m", "etnet", "doctor", *options], front, startup=startup)


def state_of(report, name):
    (package,) = (item for item in report["packages"] if item["name"] == name)
    return package["state"]


def test_a_complete_installation_is_well_and_can_train(tmp_path):
    result = doctor(tmp_path, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["etnet_version"] == __version__
    assert report["training"]["possible"]
    assert report["faults"] == []
    assert {state_of(report, name) for name in ("numpy", "torch", "timm", "safetensors")} == {"ok"}
    assert list(tmp_path.iterdir()) == []


def test_without_torch_it_says_what_installs_it_and_is_not_broken(tmp_path):
    result = doctor(tmp_path, startup=without(*HEAVY))
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "Can train:  no: torch is missing, torchvision is missing, timm is missing, matplotlib is missing" in lines
    assert "Cannot run: torch: torch is missing, timm is missing" in lines
    assert lines[-1] == "Verdict:    all that is installed works"
    (command,) = (line for line in lines if "pip install" in line and "train]" in line)
    assert command.startswith("    ")


@pytest.mark.parametrize(
    ("startup", "reason"),
    [
        (STALE_NATIVE, "/somewhere/_native.so has interface -1 where this version of etnet expects"),
        (MISSING_NATIVE, "the native module etnet._native cannot be loaded"),
    ],
    ids=["stale", "missing"],
)
def test_a_native_module_that_cannot_be_used_is_broken_with_the_rebuild_command(tmp_path, startup, reason):
    result = doctor(tmp_path, startup=startup + without(*HEAVY))
    assert (result.returncode, result.stderr) == (4, "")
    (fault,) = (line for line in result.stdout.splitlines() if line.startswith("  the native module"))
    assert reason in fault
    assert "make venv" in result.stdout
    assert result.stdout.splitlines()[-1] == "Verdict:    1 thing is broken, see above"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('built for another torch')", "RuntimeError: built for another torch"),
        ("import os; os.abort()", "the import crashed Python (SIGABRT)"),
    ],
    ids=["raising", "crashing"],
)
def test_a_broken_package_is_shown_with_its_reason_and_no_traceback(tmp_path, source, reason):
    put_package(tmp_path, "timm", source)
    result = doctor(tmp_path, startup=without("torch", "torchvision", "matplotlib", "tensorboard"))
    assert (result.returncode, result.stderr) == (4, "")
    (fault,) = (line for line in result.stdout.splitlines() if line.startswith("  timm") and "is broken" in line)
    assert fault.endswith(f"is broken ({reason})")
    assert "pip install --force-reinstall --no-deps 'timm" in result.stdout


def test_bindings_that_end_python_where_no_driver_is_do_no_harm(tmp_path):
    put_package(tmp_path, "tensorrt_rtx", "import os; os.kill(os.getpid(), 11)")
    result = doctor(tmp_path, "--json", startup=without(*HEAVY))
    report = json.loads(result.stdout)
    assert state_of(report, "tensorrt-rtx") == ("broken" if report["driver"]["gpus"] else "no GPU")
    assert result.returncode == 0


def test_json_has_the_exit_code_of_the_report(tmp_path):
    result = doctor(tmp_path, "--json", startup=STALE_NATIVE + without(*HEAVY))
    assert result.returncode == 4
    assert "interface -1" in json.loads(result.stdout)["faults"][0]["what"]


def test_tables_fit_into_eighty_columns_without_colours(tmp_path):
    result = doctor(tmp_path, startup=without(*HEAVY))
    tables = [line for line in result.stdout.splitlines() if not line.startswith("    ")]
    long = [line for line in tables if len(line.rstrip()) > 80 and not line.startswith(("Can", "Verdict"))]
    assert long == []
    assert "\x1b" not in result.stdout
