"""Runs the tests that need a GPU, and the operators' tests under compute-sanitizer where that is installed.

On a processor it runs the operators' tests instead. Versions differ from those that the tests were written with, so
that a warning is no failure here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from measurement import write_result

from suite.running import run_bounded

ROOT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r"\bmark\.gpu\b")
TOOLS = ("memcheck", "racecheck")
FOUND = 86
"""Exit code that the sanitizer gives when it has found something."""

SUMMARY = {
    "memcheck": re.compile(r"ERROR SUMMARY: (\d+) error"),
    "racecheck": re.compile(r"RACECHECK SUMMARY: (\d+) hazard"),
}


def selected(options: argparse.Namespace) -> tuple[list[str], str]:
    """Files of tests, and the expression of their marks.

    Only files with such a test are named: others may import what is not installed here.
    """
    if options.device == "cuda":
        files = sorted((ROOT / "tests").rglob("test_*.py"))
        return [str(file.relative_to(ROOT)) for file in files if MARKED.search(file.read_text("utf-8"))], "gpu"
    chosen = ["tests/test_native.py"] if options.smoke else ["tests/test_native.py", "tests/ops", "tests/losses"]
    return chosen, "not gpu and not long"


def pytest_words(files: list[str], mark: str, report: Path) -> list[str]:
    """The command of the tests; the options keep an older pytest and a missing package from stopping all of them."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", mark, f"--junitxml={report}"]
    words += ["--continue-on-collection-errors", "-o", "minversion=7"]
    return [*words, "-p", "no:cacheprovider", "-W", "default", *files]


def outcome(report: Path) -> dict[str, Any]:
    """Counts, failures with their first line, and reasons of skips in a JUnit file."""
    counts, skips, failures = Counter[str](), Counter[str](), []
    for case in ET.parse(report).getroot().iter("testcase"):
        bad = next((part for part in case if part.tag in ("failure", "error")), None)
        skipped = case.find("skipped")
        if bad is not None:
            counts["errors" if bad.tag == "error" else "failed"] += 1
            name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
            failures.append({"test": name, "message": first_line(bad.get("message") or bad.text or "")})
        elif skipped is not None:
            counts["skipped"] += 1
            skips[first_line(skipped.get("message") or "")] += 1
        else:
            counts["passed"] += 1
    names = ("passed", "failed", "errors", "skipped")
    return {"counts": {name: counts[name] for name in names}, "failures": failures, "skips": dict(skips)}


def first_line(text: str) -> str:
    """Of a message, cut where it gets long."""
    return (text.strip().splitlines() or [""])[0][:300]


def run_tests(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The tests' outcome, with `failed` where something is wrong."""
    files, mark = selected(options)
    report, log = (options.out / "logs" / name for name in ("tests_junit.xml", "tests_pytest.log"))
    for old in (report, log):
        old.unlink(missing_ok=True)
    figures: dict[str, Any] = {"marks": mark, "files": files}
    if importlib.util.find_spec("pytest") is None:
        return {**figures, "failed": "pytest is not installed; give its wheels with --packages"}
    ended = run_bounded(pytest_words(files, mark, report), log, seconds=seconds, folder=ROOT)
    figures["pytest_seconds"] = round(ended.seconds, 1)
    if not report.is_file():
        how = f"were cut off after {ended.seconds:.0f} s" if ended.cut_off else f"ended with exit code {ended.code}"
        return {**figures, "failed": f"the tests {how} and left no report; see {log.name}"}
    figures |= outcome(report)
    counts = figures["counts"]
    if counts["failed"] or counts["errors"]:
        figures["failed"] = f"{counts['failed']} tests failed and {counts['errors']} could not run"
    elif ended.code or not counts["passed"]:
        figures["failed"] = f"{counts['passed']} tests passed, and pytest ended with exit code {ended.code}"
    return figures


def sanitize(tool: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """What one tool of the sanitizer finds in the kernels of this repository."""
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if options.device != "cuda" or not Path(sanitizer).is_file():
        return {"status": "left out", "reason": "compute-sanitizer is not installed, or no GPU is tested"}
    files, mark = selected(options)
    files = [file for file in files if file.startswith("tests/ops/")]
    report, log = (options.out / "logs" / f"tests_{tool}.{suffix}" for suffix in ("xml", "log"))
    for old in (report, log):
        old.unlink(missing_ok=True)
    words = [sanitizer, "--tool", tool, "--kernel-name", "kns=etnet", "--error-exitcode", str(FOUND)]
    # A pool would hide what is written beyond one buffer and into the next; graphs cannot be captured without one.
    words += [*pytest_words(files, mark, report), "-k", "not graph"]
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    ended = run_bounded(words, log, seconds=seconds, folder=ROOT, environment=environment)
    found = [int(count) for count in SUMMARY[tool].findall(log.read_text("utf-8", errors="replace"))]
    figures: dict[str, Any] = {"seconds": round(ended.seconds, 1), "errors": sum(found) if found else None}
    figures |= outcome(report) if report.is_file() else {}
    if ended.cut_off:
        return {**figures, "status": "cut off"}
    if ended.code == FOUND or sum(found):
        return {**figures, "status": "errors"}
    if not found or not figures.get("counts", {}).get("passed"):
        return {**figures, "status": "failed", "reason": f"exit code {ended.code} and no summary; see {log.name}"}
    return {**figures, "status": "clean"}


def headline(figures: dict[str, Any]) -> str:
    """Counts, and what the sanitizer says."""
    counts = ", ".join(f"{count} {name}" for name, count in figures.get("counts", {}).items() if count)
    tools = ", ".join(f"{tool} {found['status']}" for tool, found in figures["sanitizer"].items())
    return "; ".join(filter(None, (counts, tools)))


def main() -> int:
    """Run all, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the suite's folder")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--smoke", action="store_true", help="one file of tests")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    deadline = time.monotonic() + float(os.environ.get("ETNET_SUITE_SECONDS", "600")) - 10
    share = 0.5 if options.device == "cuda" else 1.0
    figures = run_tests(options, share * (deadline - time.monotonic()))
    figures |= {"device": options.device, "sanitizer": {}}
    for number, tool in enumerate(TOOLS):
        left = (deadline - time.monotonic()) / (len(TOOLS) - number)
        figures["sanitizer"][tool] = sanitize(tool, options, left)
    bad = [tool for tool, found in figures["sanitizer"].items() if found["status"] in ("errors", "failed")]
    if bad:
        figures["failed"] = "; ".join(filter(None, [figures.get("failed"), f"compute-sanitizer: {', '.join(bad)}"]))
    figures["headline"] = headline(figures)
    what = "tests that need a GPU, and compute-sanitizer" if options.device == "cuda" else "tests of the operators"
    write_result(options.json, benchmark="tests", what=what, figures=figures, packages=("torch", "pytest"))
    return 1 if "failed" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
