from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from etnet.errors import UsageError
from etnet.sidecar import InputSpec
from etnet.trt.library import Library
from etnet.trt.settings import (
    BuildSettings,
    check_settings,
    parse_size_profile,
    parse_targets,
    resolve_input,
)
from helpers.onnx_graphs import describe

FULL = Library(
    "tensorrt",
    SimpleNamespace(
        BuilderFlag=Enum("BuilderFlag", ["VERSION_COMPATIBLE"]),
        HardwareCompatibilityLevel=Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"]),
    ),
    "10.13.2",
)
RTX = Library("tensorrt-rtx", SimpleNamespace(ComputeCapability=Enum("ComputeCapability", ["SM86", "SM89"])), "1.7.1")
ONNX = Path("model.onnx")


@pytest.mark.parametrize("batch", [(0, 1, 8), (4, 2, 8), (1, 2, 1), (0, 0, 0)])
def test_a_batch_that_is_none_is_refused_with_the_form(batch):
    with pytest.raises(UsageError, match=r"--batch is .*1,4,8"):
        resolve_input(BuildSettings(batch=batch), describe("fp32", (64, 64), 2), ONNX)


@pytest.mark.parametrize("text", ["512", "512x512", "64x64,32x64,128x128", "a,b,c", "1x1,2x2"])
def test_a_size_profile_that_is_none_is_refused_with_the_form(text):
    with pytest.raises(UsageError, match="--size-profile is"):
        parse_size_profile(text)


@pytest.mark.parametrize("text", ["", "ampere", "sm86;sm89", "sm", "sm8"])
def test_a_target_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--target is"):
        parse_targets(text)


def test_targets_are_read_in_every_usual_form_and_once():
    assert parse_targets("sm86, SM_89,12.0,86") == ("sm86", "sm89", "sm120")


@pytest.mark.parametrize(
    ("library", "settings", "message"),
    [
        (FULL, BuildSettings(targets=("sm86",)), "--backend tensorrt-rtx"),
        (RTX, BuildSettings(targets=("sm86", "sm90")), "does not build for sm90; it does for sm86, sm89"),
        (RTX, BuildSettings(timing_cache=Path("t")), "--timing-cache: TensorRT-RTX measures nothing"),
        (FULL, BuildSettings(optimization_level=6), "--optimization-level is 6; expected 0 to 5"),
        (FULL, BuildSettings(workspace_gb=0), "--workspace is 0"),
        (FULL, BuildSettings(hardware_compatible="same_compute_capability"), "leave the option out"),
        (RTX, BuildSettings(hardware_compatible="ampere_plus"), "use --target instead"),
        (RTX, BuildSettings(version_compatible=True), "--version-compatible: TensorRT-RTX 1.7.1 does not offer it"),
    ],
)
def test_what_a_library_does_not_offer_is_refused(library, settings, message):
    with pytest.raises(UsageError, match=message):
        check_settings(settings, library)


def test_what_a_library_offers_is_taken():
    check_settings(BuildSettings(hardware_compatible="ampere_plus", version_compatible=True, workspace_gb=4), FULL)
    check_settings(BuildSettings(targets=("sm89",), optimization_level=0), RTX)


def test_a_fixed_size_stays_and_the_batch_can_be_chosen():
    fixed = describe("fp32", (512, 768), 2)
    assert resolve_input(BuildSettings(), fixed, ONNX) == InputSpec(512, 768, (1, 1, 8))
    assert resolve_input(BuildSettings(batch=(1, 2, 4)), fixed, ONNX) == InputSpec(512, 768, (1, 2, 4))
    with pytest.raises(UsageError, match=r"fixed size 512x768.*etnet export best.safetensors --dynamic"):
        resolve_input(BuildSettings(size_profile=((16, 16),) * 3), fixed, ONNX)


def test_a_free_size_needs_limits_that_the_network_can_take():
    free = describe("fp32", None, 2)
    with pytest.raises(UsageError, match="add for instance --size-profile 256x256"):
        resolve_input(BuildSettings(), free, ONNX)
    profile = ((16, 32), (64, 64), (128, 256))
    assert resolve_input(BuildSettings(size_profile=profile), free, ONNX) == InputSpec(None, None, (1, 1, 8), profile)


def test_a_fixed_size_that_is_no_multiple_is_refused_before_anything_is_exported():
    with pytest.raises(UsageError, match=r"--size: .*multiples of 16 pixels, not 100x64; use --size 112x64"):
        resolve_input(BuildSettings(), describe("fp32", (100, 64), 2), ONNX)


def test_sizes_that_are_no_multiples_are_refused_with_the_nearest_that_are():
    settings = BuildSettings(size_profile=((8, 16), (64, 100), (128, 128)))
    with pytest.raises(UsageError, match=r"multiples of 16 pixels, not 8x16, 64x100; use .* 16x16,64x112,128x128"):
        resolve_input(settings, describe("fp32", None, 2), ONNX)
