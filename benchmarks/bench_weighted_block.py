"""Time of the weighted block for the maps of ET-Net at 512x512, side by side with the plain formula in torch.

    python benchmarks/bench_weighted_block.py --device cpu --threads 1 --json block.json

`bench_ops.py` runs it too. The maps have 256 channels at strides 16, 8 and 4. On the CPU they are float32 and bfloat16
in both layouts, one image and four; on CUDA float16, one image and sixteen. The contestants are the plain formula
(eager), the same under torch.compile, and ours: on the CPU the module as networks use it, on CUDA its kernel. Half
precision runs under autocast, as in training. On CUDA every row also says how much of the bandwidth of a copy the
forward pass reaches, counting the map read twice and written once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from etnet.models.blocks import WeightedBlock
from etnet.ops.weighted_block import weighted_block

Run = Callable[[], None]
Row = dict[str, object]

CHANNELS = 256
SIDES = (32, 64, 128)
CALLS = 20
"""Calls between two looks at the clock on CUDA, where a call only enqueues work."""


class PlainBlock(WeightedBlock):
    """The formula as it is commonly written, a module as well: calling one takes part of the time of a small map."""

    def forward(self, features: Tensor) -> Tensor:
        context = features.mean(dim=(2, 3), keepdim=True)
        return features * torch.sigmoid(self.expand(functional.relu(self.reduce(context))))


class KernelBlock(WeightedBlock):
    """The native kernel, also where networks do not choose it."""

    def forward(self, features: Tensor) -> Tensor:
        w1, w2 = self.reduce.weight.flatten(1), self.expand.weight.flatten(1)
        return weighted_block(features, w1, self.reduce.bias, w2, self.expand.bias, method="native")


@dataclass(frozen=True)
class Subject:
    """One map, and what is done with it."""

    side: int
    images: int
    dtype: torch.dtype
    channels_last: bool
    backward: bool
    device: str

    def describe(self) -> Row:
        return {
            "shape": [self.images, CHANNELS, self.side, self.side],
            "dtype": str(self.dtype).removeprefix("torch."),
            "layout": "channels_last" if self.channels_last else "contiguous",
            "pass": "forward+backward" if self.backward else "forward",
        }

    def runs(self, *, with_compiled: bool) -> dict[str, Run]:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = (self.images, CHANNELS, self.side, self.side)
        torch.manual_seed(0)
        features = torch.randn(shape, device=self.device).to(self.dtype).contiguous(memory_format=layout)
        gradient = torch.randn_like(features)
        features.requires_grad_(self.backward)
        kinds = (PlainBlock, KernelBlock if self.device == "cuda" else WeightedBlock)
        plain, ours = (kind(CHANNELS).to(self.device, memory_format=layout) for kind in kinds)
        blocks: dict[str, Callable[[Tensor], Tensor]] = {"eager": plain}
        if with_compiled:
            torch.compiler.reset()
            blocks["compiled"] = torch.compile(plain, dynamic=False)
        blocks["ours"] = ours
        parameters = [*plain.parameters(), *ours.parameters()]
        return {name: self._run(block, parameters, features, gradient) for name, block in blocks.items()}

    def _run(
        self, block: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], x: Tensor, gradient: Tensor
    ) -> Run:
        half = self.dtype != torch.float32

        def run() -> None:
            for leaf in (x, *parameters):
                leaf.grad = None
            autocast = torch.autocast(self.device, self.dtype if half else None, enabled=half)
            with torch.set_grad_enabled(self.backward), autocast:
                out = block(x)
            if self.backward:
                out.backward(gradient)

        return run


def subjects(device: str) -> Iterator[Subject]:
    cuda = device == "cuda"
    types = (torch.float16,) if cuda else (torch.float32, torch.bfloat16)
    batches = (1, 16) if cuda else (1, 4)
    for side, images, dtype, last, backward in itertools.product(SIDES, batches, types, (False, True), (False, True)):
        yield Subject(side, images, dtype, last, backward, device)


def seconds_per_call(run: Run, device: str) -> float:
    begin = time.perf_counter()
    if device == "cpu":
        run()
        return time.perf_counter() - begin
    for _ in range(CALLS):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / CALLS


def medians(runs: dict[str, Run], device: str, rounds: int) -> dict[str, float]:
    """Milliseconds; each round runs every contestant once, and two rounds before do not count.

    The first of a round changes, because what ran before leaves the caches warm or cold.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for repetition in range(rounds + 2):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            seconds = seconds_per_call(runs[name], device)
            if repetition >= 2:
                times[name].append(1000 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def copy_gigabytes_per_second() -> float:
    """Bytes read and written by a copy of 1 GiB on the GPU, per second."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = [seconds_per_call(lambda: target.copy_(source), "cuda") for _ in range(5)]
    return 2 * source.numel() / statistics.median(times) / 1e9


def measure(device: str, *, rounds: int, with_compiled: bool = True) -> list[Row]:
    """One row for each map, layout, type and pass."""
    bandwidth = copy_gigabytes_per_second() if device == "cuda" else None
    rows = []
    for subject in subjects(device):
        found = medians(subject.runs(with_compiled=with_compiled), device, rounds)
        row = subject.describe()
        row |= {f"{name}_ms": value for name, value in found.items()}
        row |= {f"speedup_over_{name}": found[name] / found["ours"] for name in found if name != "ours"}
        if bandwidth is not None and not subject.backward:
            moved = 3 * subject.images * CHANNELS * subject.side**2 * subject.dtype.itemsize
            row["share_of_copy_bandwidth"] = moved / (found["ours"] * 1e6) / bandwidth
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row: Row) -> str:
    named = f"{'x'.join(map(str, row['shape'])):15} {row['dtype']:9} {row['layout']:14} {row['pass']:17}"
    figures = [f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)]
    return named + "  ".join(figures)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--without-compiled", action="store_true", help="leave torch.compile out, which takes minutes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = measure(options.device, rounds=options.rounds, with_compiled=not options.without_compiled)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"threads": options.threads, "rounds": options.rounds, "torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
