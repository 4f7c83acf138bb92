"""What the machine can do at most: the bandwidth of a copy, and the rate of a matrix product in each precision.

    python benchmarks/bench_roofline.py --device cuda --json roofline.json

Other results are shares of these. A copy counts its bytes twice, read and written; a product of two square matrices
counts 2 n^3 operations. Values are random: zeros cost a GPU less power, and it runs faster on them. Medians
of the rounds are reported. tf32 exists on NVIDIA GPUs since Ampere only; types that a processor does not compute
fast are measured all the same, because torch uses them there too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measurement import write_result

MEBIBYTE = 2**20
TYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--mebibytes", type=int, help="that are copied [default: 256; on CUDA 4096]")
    parser.add_argument("--side", type=int, help="of the matrices [default: 1024; on CUDA 8192]")
    parser.add_argument("--rounds", type=int, help="[default: 5; on CUDA 20]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    options = parser.parse_args(words)
    usual = {"mebibytes": 256, "side": 1024, "rounds": 5}
    if options.device == "cuda":
        # A quarter of what is free at most, because source and target are held; larger than any cache all the same.
        free = torch.cuda.mem_get_info()[0] // MEBIBYTE
        usual = {"mebibytes": min(4096, free // 8), "side": 8192, "rounds": 20}
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def milliseconds(task: Callable[[], object], device: str) -> float:
    """Time of a task until the device is done."""
    if device == "cpu":
        begin = time.perf_counter()
        task()
        return 1000 * (time.perf_counter() - begin)
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    task()
    end_event.record()
    end_event.synchronize()
    return float(begin_event.elapsed_time(end_event))


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Whether products of float32 matrices may round their inputs to tf32."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)


def copy_gigabytes_per_second(options: argparse.Namespace) -> float:
    """Bytes read and written by a copy within the device's memory, per second."""
    source = torch.randint(0, 256, (options.mebibytes * MEBIBYTE,), dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    times = [milliseconds(lambda: target.copy_(source), options.device) for _ in range(options.rounds + 2)][2:]
    return 2 * source.numel() / statistics.median(times) / 1e6


def teraflops(options: argparse.Namespace) -> dict[str, float | None]:
    """Rate of a matrix product in each type; None for one that the device does not have."""
    rates: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(options.side, options.side, generator=generator).to(options.device) for _ in range(2)]
    for name, dtype in TYPES.items():
        if name == "tf32" and not (options.device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)):
            continue
        one, other = (factor.to(dtype) for factor in factors)
        product = torch.empty_like(one)
        task = partial(torch.matmul, one, other, out=product)
        with tf32(name == "tf32"):
            times = [milliseconds(task, options.device) for _ in range(options.rounds + 2)][2:]
        rates[name] = [2 * options.side**3 / value / 1e9 for value in times]
    return {name: statistics.median(rates[name]) if name in rates else None for name in TYPES}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    with torch.inference_mode():
        bandwidth, rates = copy_gigabytes_per_second(options), teraflops(options)
    shown = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items() if rate is not None)
    return {
        "headline": f"copy {bandwidth:.4g} GB/s; TFLOP/s: {shown}",
        "device": options.device,
        "threads": torch.get_num_threads(),
        "mebibytes": options.mebibytes,
        "side": options.side,
        "rounds": options.rounds,
        "copy_gb_per_s": bandwidth,
        "matrix_tflops": rates,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = arguments(words)
    figures = measure(options)
    print(figures["headline"])
    if options.json is not None:
        what = "bandwidth of a copy and rate of matrix products: what the other figures of this machine are shares of"
        write_result(options.json, benchmark="roofline", what=what, figures=figures)


if __name__ == "__main__":
    main()
