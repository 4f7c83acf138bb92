from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import etnet
import etnet.trt

FOLDERS = {"etnet": Path(etnet.__file__).resolve().parent, "etnet.trt": Path(etnet.trt.__file__).resolve().parent}
WITH_EXAMPLES = sorted(
    {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts))
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
        if ">>>" in path.read_text()
    }
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_say(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
