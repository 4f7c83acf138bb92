"""`etnet --help` answers at once: under 0.3 s, and without importing torch or OpenCV."""

from __future__ import annotations

import subprocess
import sys

HELP = """
import json, sys, time
from etnet.cli.main import main
try:
    main(["--help"])
except SystemExit as end:
    code = end.code or 0
heavy = sorted({"torch", "timm", "cv2", "matplotlib", "numpy"} & set(sys.modules))
print(json.dumps({"code": code, "cpu_seconds": time.process_time(), "heavy": heavy}), file=sys.stderr)
"""


def ask_for_help() -> dict:
    import json

    result = subprocess.run([sys.executable, "-c", HELP], check=True, capture_output=True, text=True)
    assert "Usage:" in result.stdout
    return json.loads(result.stderr.strip().splitlines()[-1])


def test_help_takes_less_than_three_tenths_of_a_second_without_torch():
    answers = [ask_for_help() for _ in range(3)]
    assert [answer["code"] for answer in answers] == [0, 0, 0]
    assert [answer["heavy"] for answer in answers] == [[], [], []]
    # Processor time of the whole process, the best of three: the time on the clock on a machine that does nothing else.
    assert min(answer["cpu_seconds"] for answer in answers) < 0.3


def test_module_form_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "etnet", "--help"], check=True, capture_output=True, text=True)
    assert "train" in result.stdout
