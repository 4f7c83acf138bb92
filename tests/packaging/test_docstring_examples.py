from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import etnet

PACKAGE = Path(etnet.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("etnet", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_say(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
