from __future__ import annotations

import pytest

from etnet.errors import EnvironmentFault
from etnet.trt.library import Library, find_builder
from helpers.fake_tensorrt import FakeTensorRT


@pytest.fixture(scope="session")
def rtx() -> Library:
    """TensorRT-RTX, which builds real engines without a GPU; skips where it is not installed."""
    try:
        return find_builder("tensorrt-rtx")
    except EnvironmentFault as error:
        pytest.skip(str(error))


@pytest.fixture
def full_tensorrt(monkeypatch) -> FakeTensorRT:
    """Stands in for the package `tensorrt`, which can be neither installed nor run without a GPU."""
    fake = FakeTensorRT()
    monkeypatch.setattr("etnet.trt.builder.find_builder", lambda name: fake.library)
    return fake
