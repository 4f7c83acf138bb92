from __future__ import annotations

import threading

import pytest
import torch

from etnet.inference.backends.torch_tf32 import tf32_allowed

matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
by_name = pytest.mark.skipif(not hasattr(cudnn, "conv"), reason="torch chooses by name since 2.9")


def flags() -> tuple[bool, bool]:
    return matmul.allow_tf32, cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _as_torch_comes():
    assert flags() == (False, True)
    yield
    torch.set_float32_matmul_precision("highest")
    if hasattr(cudnn, "conv"):
        torch.backends.fp32_precision = matmul.fp32_precision = "none"
    cudnn.allow_tf32 = True


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("before", [(False, True), (True, True), (True, False), (False, False)])
def test_products_are_as_asked_inside_and_as_before_after_an_error(allowed, before):
    matmul.allow_tf32, cudnn.allow_tf32 = before
    with pytest.raises(ZeroDivisionError), tf32_allowed(allowed):
        assert flags() == (allowed, allowed)
        raise ZeroDivisionError
    assert flags() == before


def test_none_leaves_torch_as_it_is():
    with tf32_allowed(None):
        assert flags() == (False, True)


def test_medium_precision_of_products_is_kept():
    torch.set_float32_matmul_precision("medium")
    with tf32_allowed(False):
        assert not matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "medium"


@by_name
def test_a_choice_for_all_operations_is_overruled_inside_and_followed_again_after_it():
    torch.backends.fp32_precision = "tf32"
    matmul.fp32_precision = "none"
    with tf32_allowed(False):
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("ieee", "ieee")
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("tf32", "tf32")
    torch.backends.fp32_precision = "ieee"
    assert matmul.fp32_precision == "ieee"


@by_name
@pytest.mark.parametrize("allowed", [True, False])
def test_a_choice_for_one_operation_is_kept_though_torch_then_refuses_to_tell_its_flag(allowed):
    cudnn.conv.fp32_precision = "ieee"
    with pytest.raises(RuntimeError):
        _ = cudnn.allow_tf32
    with tf32_allowed(allowed):
        assert cudnn.conv.fp32_precision == ("tf32" if allowed else "ieee")
        assert matmul.allow_tf32 == allowed
    assert (cudnn.conv.fp32_precision, matmul.allow_tf32) == ("ieee", False)
    with pytest.raises(RuntimeError):
        _ = cudnn.allow_tf32


def test_blocks_that_want_the_same_overlap_and_the_last_one_restores():
    first, second = tf32_allowed(False), tf32_allowed(False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert flags() == (False, False)
    second.__exit__(None, None, None)
    assert flags() == (False, True)


def test_a_block_that_wants_another_setting_waits():
    seen, waits = [], threading.Event()

    def other() -> None:
        waits.set()
        with tf32_allowed(True):
            seen.append(flags())

    thread = threading.Thread(target=other)
    with tf32_allowed(False):
        thread.start()
        assert waits.wait(timeout=10)
        thread.join(timeout=0.2)
        assert thread.is_alive(), "it does not wait"
        assert flags() == (False, False)
    thread.join(timeout=10)
    assert seen == [(True, True)]
    assert flags() == (False, True)
