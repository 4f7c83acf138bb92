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
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measurement import Comparison, Task, take_turns, write_result
from torch import Tensor, nn
from torch.nn import functional

from etnet.models.blocks import WeightedBlock
from etnet.ops.weighted_block import weighted_block

Row = dict[str, Any]

CHANNELS = 256
SIDES = (32, 64, 128)
CALLS = 20
"""Calls between two looks at the clock on CUDA, where a call only enqueues work."""

RIVALS = {"eager": "plain formula, eager", "compiled": "plain formula, torch.compile"}
OURS = "etnet weighted block"


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


def with_plain_blocks(network: nn.Module) -> nn.Module:
    """The network with the plain formula in place of every weighted block; the weights are the same."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is WeightedBlock:
                plain = PlainBlock(child.reduce.in_channels)
                plain.reduce, plain.expand = child.reduce, child.expand
                setattr(parent, name, plain)
    return network


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

    @property
    def case(self) -> str:
        """All of it in words."""
        layout = "channels-last" if self.channels_last else "contiguous"
        shape = "x".join(map(str, (self.images, CHANNELS, self.side, self.side)))
        return f"{shape}, {self.describe()['dtype']}, {layout}"

    def runs(self, *, with_compiled: bool) -> dict[str, Task]:
        """A task for each contestant; it gives the output or, where there is a backward pass, the gradient."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = (self.images, CHANNELS, self.side, self.side)
        torch.manual_seed(0)
        features = torch.randn(shape, device=self.device).to(self.dtype).contiguous(memory_format=layout)
        gradient = torch.randn_like(features)
        features.requires_grad_(self.backward)
        kinds = (PlainBlock, KernelBlock if self.device == "cuda" else WeightedBlock)
        plain, ours = (kind(CHANNELS).to(self.device, memory_format=layout) for kind in kinds)
        ours.load_state_dict(plain.state_dict())
        blocks: dict[str, Callable[[Tensor], Tensor]] = {"eager": plain}
        if with_compiled:
            torch.compiler.reset()
            blocks["compiled"] = torch.compile(plain, dynamic=False)
        blocks["ours"] = ours
        parameters = [*plain.parameters(), *ours.parameters()]
        return {name: self._run(block, parameters, features, gradient) for name, block in blocks.items()}

    def _run(
        self, block: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], x: Tensor, gradient: Tensor
    ) -> Task:
        half = self.dtype != torch.float32

        def run() -> Tensor:
            for leaf in (x, *parameters):
                leaf.grad = None
            autocast = torch.autocast(self.device, self.dtype if half else None, enabled=half)
            with torch.set_grad_enabled(self.backward), autocast:
                out = block(x)
            if self.backward:
                out.backward(gradient)
                return x.grad
            return out

        return run


def subjects(device: str, sides: tuple[int, ...] = SIDES) -> Iterator[Subject]:
    """Every map of these sides in every type, layout and pass that the device is measured with."""
    cuda = device == "cuda"
    types = (torch.float16,) if cuda else (torch.float32, torch.bfloat16)
    batches = (1, 16) if cuda else (1, 4)
    for side, images, dtype, last, backward in itertools.product(sides, batches, types, (False, True), (False, True)):
        yield Subject(side, images, dtype, last, backward, device)


def repeated(task: Task, device: str) -> Task:
    """The task often enough for a look at the clock: once on a processor, `CALLS` times on CUDA."""
    if device == "cpu":
        return task

    def run() -> None:
        for _ in range(CALLS):
            task()
        torch.cuda.synchronize()

    return run


def milliseconds(tasks: Mapping[str, Task], device: str, rounds: int) -> dict[str, list[float]]:
    """Of one call of every task in every round."""
    calls = 1 if device == "cpu" else CALLS
    times = take_turns(
        {name: repeated(task, device) for name, task in tasks.items()}, rounds=rounds, warm_up=2, change_first=True
    )
    return {name: [value / calls for value in values] for name, values in times.items()}


def copy_gigabytes_per_second() -> float:
    """Bytes read and written by a copy of 1 GiB on the GPU, per second."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = milliseconds({"copy": lambda: target.copy_(source)}, "cuda", rounds=5)["copy"]
    return 2 * source.numel() / statistics.median(times) / 1e6


def agreement(ours: Tensor, theirs: Tensor) -> str:
    """How far two results are apart, in words."""
    distance = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    return "equal" if distance == 0 else f"{distance:.0e} apart (relative norm)"


def measure(
    device: str, *, rounds: int, with_compiled: bool = True, sides: tuple[int, ...] = SIDES
) -> tuple[list[Row], list[Comparison]]:
    """One row for each map, layout, type and pass, and its comparison with each contestant."""
    bandwidth = copy_gigabytes_per_second() if device == "cuda" else None
    rows, comparisons = [], []
    for subject in subjects(device, sides):
        tasks = subject.runs(with_compiled=with_compiled)
        results = {name: task().detach().clone() for name, task in tasks.items()}
        times = milliseconds(tasks, device, rounds)
        found = {
            name: Comparison.of_rounds(
                (OURS, times["ours"]),
                (RIVALS[name], times[name]),
                version=torch.__version__,
                subject=f"weighted block, {'forward and backward' if subject.backward else 'forward'}",
                case=subject.case,
                unit="ms",
                result=agreement(results["ours"], results[name]),
            )
            for name in tasks
            if name != "ours"
        }
        row = subject.describe()
        row |= {f"{name}_ms": statistics.median(values) for name, values in times.items()}
        row |= {f"speedup_over_{name}": comparison.ratio for name, comparison in found.items()}
        if bandwidth is not None and not subject.backward:
            moved = 3 * subject.images * CHANNELS * subject.side**2 * subject.dtype.itemsize
            row["share_of_copy_bandwidth"] = moved / (row["ours_ms"] * 1e6) / bandwidth
        rows.append(row)
        comparisons += found.values()
        print(line(row), flush=True)
    return rows, comparisons


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
    rows, comparisons = measure(options.device, rounds=options.rounds, with_compiled=not options.without_compiled)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="weighted_block",
            what="the weighted block for the maps of ET-Net at 512x512 beside the plain formula",
            figures={"device": options.device, "threads": options.threads, "rounds": options.rounds, "rows": rows},
            comparisons=comparisons,
        )


if __name__ == "__main__":
    main()
