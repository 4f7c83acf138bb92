"""The roofline: what is counted, and what a device does not have."""

from __future__ import annotations

import json

import pytest
import torch

from helpers.benchmarks import load_benchmark

roofline = load_benchmark("bench_roofline")


def test_bytes_count_twice_and_a_product_two_operations_per_pair(monkeypatch):
    options = roofline.arguments(["--mebibytes", "4", "--side", "100", "--rounds", "3"])
    monkeypatch.setattr(roofline, "milliseconds", lambda task, device: (task(), 2.0)[1])
    assert roofline.copy_gigabytes_per_second(options) == pytest.approx(2 * 4 * 2**20 / 0.002 / 1e9)
    rates = roofline.teraflops(options)
    assert rates["fp32"] == rates["fp16"] == rates["bf16"] == pytest.approx(2 * 100**3 / 0.002 / 1e12)
    assert rates["tf32"] is None, "a processor has no tf32"


def test_the_warm_up_does_not_count_and_the_median_does(monkeypatch):
    options = roofline.arguments(["--mebibytes", "1", "--rounds", "3"])
    times = iter([900.0, 900.0, 1.0, 2.0, 40.0])
    monkeypatch.setattr(roofline, "milliseconds", lambda task, device: next(times))
    assert roofline.copy_gigabytes_per_second(options) == pytest.approx(2 * 2**20 / 0.002 / 1e9)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_precision_of_products_is_as_before_afterwards(enabled):
    before = torch.get_float32_matmul_precision()
    with roofline.tf32(enabled):
        assert torch.get_float32_matmul_precision() == ("high" if enabled else "highest")
    assert torch.get_float32_matmul_precision() == before


def test_the_result_has_every_rate_and_its_sizes(tmp_path):
    file = tmp_path / "roofline.json"
    roofline.main(["--mebibytes", "1", "--side", "64", "--rounds", "1", "--json", str(file)])
    written = json.loads(file.read_text())
    assert (written["benchmark"], written["device"], written["side"]) == ("roofline", "cpu", 64)
    assert written["copy_gb_per_s"] > 0
    assert {name for name, rate in written["matrix_tflops"].items() if rate} == {"fp32", "fp16", "bf16"}


@pytest.mark.gpu
def test_a_gpu_is_faster_in_half_precision_than_in_single():
    options = roofline.arguments(["--device", "cuda", "--side", "4096", "--rounds", "5"])
    figures = roofline.measure(options)
    rates = figures["matrix_tflops"]
    assert rates["fp16"] > rates["fp32"]
    assert figures["copy_gb_per_s"] > 50
