from __future__ import annotations

import pytest

from etnet.errors import EnvironmentFault
from etnet.trt.library import Library, find_builder


@pytest.fixture(scope="session")
def rtx() -> Library:
    """TensorRT-RTX, which builds real engines without a GPU; skips where it is not installed."""
    try:
        return find_builder("tensorrt-rtx")
    except EnvironmentFault as error:
        pytest.skip(str(error))
