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
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
