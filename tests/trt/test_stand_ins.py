"""The stand-ins offer nothing that the real library lacks."""

from __future__ import annotations

import inspect

import pytest

from helpers.fake_gpu import FakeContext, FakeEngine
from helpers.fake_tensorrt import CONFIG_ATTRIBUTES, FakeBuilder, FakeConfig, FakeParser


def public(stand_in: type) -> set[str]:
    return {name for name, value in vars(stand_in).items() if not name.startswith("_") and not inspect.isclass(value)}


@pytest.mark.parametrize(
    ("stand_in", "real"),
    [
        (FakeBuilder, "Builder"),
        (FakeConfig, "IBuilderConfig"),
        (FakeParser, "OnnxParser"),
        (FakeEngine, "ICudaEngine"),
        (FakeContext, "IExecutionContext"),
    ],
)
def test_methods_exist_in_the_library(rtx, stand_in, real):
    found = public(stand_in)
    assert found
    assert found - set(dir(getattr(rtx.module, real))) == set()


def test_attributes_of_the_configuration_exist(rtx):
    assert {*CONFIG_ATTRIBUTES, "progress_monitor"} <= set(dir(rtx.module.IBuilderConfig))


def test_enumerations_have_the_members_that_are_asked_for(rtx):
    assert rtx.member("TensorIOMode", "INPUT") is not None
    assert rtx.member("ProfilingVerbosity", "DETAILED") is not None
    assert rtx.member("MemoryPoolType", "WORKSPACE") is not None
    assert rtx.member("BuilderFlag", "TF32") is not None
    assert rtx.member("BuilderFlag", "REQUIRE_USER_ALLOCATION") is not None
    assert {"UINT8", "FLOAT", "HALF", "INT8"} <= set(rtx.members("DataType"))
