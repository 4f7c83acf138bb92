"""The versions of the pixel loops for wide vectors (csrc/cpu/lovasz_rows.cpp) give the bits of the plain one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.digest import digest


def test_wide_vectors_change_no_bit():
    if "ETNET_SANITIZED_MODULE" not in os.environ:
        pytest.skip("needs a second build, without the versions for wide vectors; make test-asan has one")
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "-m", "helpers.digest"]
    installed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    assert digest() == installed
