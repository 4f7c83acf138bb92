"""How the driver is asked is tested in tests/environment; here, what is made of its answer."""

from __future__ import annotations

import pytest

from etnet.environment import cuda_driver
from etnet.trt.driver import Driver, Gpu, ask_driver


@pytest.fixture(autouse=True)
def forgotten():
    ask_driver.cache_clear()
    yield
    ask_driver.cache_clear()


def answer(**values):
    return {"reason": "", "driver": None, "cuda": None, "gpus": [], **values}


def test_every_gpu_is_described(monkeypatch):
    gpus = [
        {"name": "NVIDIA A10", "compute_capability": "8.6", "memory_bytes": 1},
        {"name": "NVIDIA GeForce RTX 5090", "compute_capability": "12.0", "memory_bytes": 1},
    ]
    monkeypatch.setattr(cuda_driver, "ask", lambda: answer(driver="580.95.05", cuda="13.0", gpus=gpus))
    expected = (Gpu(0, "NVIDIA A10", (8, 6)), Gpu(1, "NVIDIA GeForce RTX 5090", (12, 0)))
    assert ask_driver() == Driver(expected, "580.95.05", "13.0")
    assert [gpu.target for gpu in ask_driver().gpus] == ["sm86", "sm120"]


def test_the_reason_why_there_is_none_is_kept(monkeypatch):
    monkeypatch.setattr(cuda_driver, "ask", lambda: answer(reason="the driver shows no GPU"))
    assert ask_driver() == Driver(problem="the driver shows no GPU")


def test_the_driver_is_asked_once(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(cuda_driver, "ask", lambda: asked.append(1) or answer())
    assert ask_driver() is ask_driver()
    assert asked == [1]
