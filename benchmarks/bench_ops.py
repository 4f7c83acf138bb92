"""Time and memory of the operators, side by side with what else computes the same.

    python benchmarks/bench_ops.py --device cpu --json ops.json

Each round runs every contestant once, so that a slow moment of the machine hits all of them; medians over the rounds
are reported, after one round that does not count. Time is that of loss and gradient. Peak memory is what a run needs
beyond what the process held before it: resident pages of a process of its own on the CPU, allocated memory on CUDA;
the gradient, which every contestant has to hand over, is part of it and not of the extra memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_weighted_block
import torch
from measurement import Comparison, Target, show, take_turns, write_result
from torch import Tensor

from etnet import native
from etnet.environment.versions import versions
from etnet.ops.lovasz import lovasz_softmax

Loss = Callable[[Tensor, Tensor], Tensor]
Figures = dict[str, float | None]
Rounds = dict[str, list[float]]

MEBIBYTE = 2**20


def public_lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """The loss as it is commonly written in torch (Berman et al. 2018, Alg. 1); every class is present."""
    classes = logits.shape[1]
    probabilities = logits.softmax(dim=1).movedim(1, -1).reshape(-1, classes)
    labels = target.flatten()
    losses = []
    for index in range(classes):
        foreground = (labels == index).to(probabilities.dtype)
        errors, order = torch.sort((foreground - probabilities[:, index]).abs(), descending=True)
        ranked = foreground[order]
        total = ranked.sum()
        jaccard = 1 - (total - ranked.cumsum(0)) / (total + (1 - ranked).cumsum(0))
        growth = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(torch.dot(errors, growth))
    return torch.stack(losses).mean()


def smp_loss() -> Loss:
    from segmentation_models_pytorch.losses import LovaszLoss

    return LovaszLoss(mode="multiclass", from_logits=True)


CONTESTANTS: dict[str, Callable[[], Loss]] = {
    "eager": lambda: public_lovasz_softmax,
    "compiled": lambda: torch.compile(public_lovasz_softmax),
    "smp": smp_loss,
    "reference": lambda: lambda logits, target: lovasz_softmax(logits, target, method="reference"),
    "sort": lambda: lambda logits, target: lovasz_softmax(logits, target, method="sort"),
    "histogram": lambda: lambda logits, target: lovasz_softmax(logits, target, method="histogram"),
}
"""What can take part."""

OURS = {"sort": "etnet, exact (sort)", "histogram": "etnet, binned (histogram)"}
RIVALS = {
    "eager": ("as commonly written, eager", "torch"),
    "compiled": ("as commonly written, torch.compile", "torch"),
    "smp": ("segmentation_models_pytorch", "segmentation-models-pytorch"),
}
"""What ours is compared with, and the package whose version matters."""


def taking_part(names: list[str], device: str) -> dict[str, Loss]:
    """The contestants of these names, without those that this machine cannot run."""
    no_kernel = device == "cuda" and not native.has_cuda()
    absent = {
        "smp": importlib.util.find_spec("segmentation_models_pytorch") is None,
        "sort": no_kernel,
        "histogram": no_kernel,
    }
    for name in names:
        if absent.get(name):
            print(f"{name} is left out: not available here", file=sys.stderr)
    return {name: CONTESTANTS[name]() for name in names if not absent.get(name)}


TARGET_SHAPE = [16, 2, 512, 512]


FASTER = {
    "cpu": {("sort", "eager"): 15.0, ("histogram", "eager"): 50.0},
    "cuda": {("sort", "eager"): 8.0, ("sort", "compiled"): 3.0, ("sort", "smp"): 3.0, ("histogram", "eager"): 25.0},
}
EXTRA_SHARE = {"sort": 1 / 3, "histogram": 1 / 10}
TIMES_OF_COPY = 2.0
"""Targets for TARGET_SHAPE: ratios of time by device, shares of eager's extra memory, the binned loss in copies."""


@dataclass(frozen=True)
class Inputs:
    logits: Tensor
    target: Tensor

    @staticmethod
    def draw(shape: list[int], device: str, kind: str) -> Inputs:
        """Scores as of an untrained network ("random") or of one that is right about most pixels ("trained")."""
        generator = torch.Generator().manual_seed(0)
        images, classes, height, width = shape
        target = torch.randint(0, classes, (images, height, width), generator=generator)
        logits = 2 * torch.randn(shape, generator=generator)
        if kind == "trained":
            logits.scatter_add_(1, target[:, None], torch.full((images, 1, height, width), 8.0))
        return Inputs(logits.to(device).requires_grad_(), target.to(device))

    def run(self, loss: Loss) -> Tensor:
        """The loss; its gradient is left in `logits.grad`."""
        self.logits.grad = None
        value = loss(self.logits, self.target)
        value.backward()
        if self.logits.is_cuda:
            torch.cuda.synchronize()
        return value.detach()

    def result(self, loss: Loss) -> Tensor:
        """Loss and gradient in one vector."""
        value = self.run(loss)
        return torch.cat([value.reshape(1).double(), self.logits.grad.flatten().double()])


def peak_memory(options: argparse.Namespace, name: str, kind: str) -> float | None:
    """MiB of a run beyond what was held before; None where the system does not tell."""
    if options.device == "cuda":
        return device_memory(Inputs.draw(options.shape, "cuda", kind), CONTESTANTS[name]())
    command = [sys.executable, __file__, "--memory-of", name, "--scores", kind, "--threads", str(options.threads)]
    command += ["--shape", *map(str, options.shape)]
    # With a fixed threshold every tensor is mapped by itself, so that freed memory leaves the process at once.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def device_memory(inputs: Inputs, loss: Loss) -> float:
    inputs.run(loss)
    inputs.logits.grad = None
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    inputs.run(loss)
    return (torch.cuda.max_memory_allocated() - held) / MEBIBYTE


def resident_memory(inputs: Inputs, loss: Loss) -> float | None:
    # Loads what the first call needs, and compiles for this shape: for another one it would be compiled again.
    inputs.run(loss)
    inputs.logits.grad = None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
        held = resident("VmRSS")
        inputs.run(loss)
        return (resident("VmHWM") - held) / 1024
    except OSError:
        return None


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field + ":"))
    return int(line.split()[1])


def measure(
    options: argparse.Namespace, losses: dict[str, Loss], kind: str
) -> tuple[dict[str, Figures], list[Comparison], list[Target]]:
    """Time and memory of each contestant; those of ours beside every rival's; how ours compares with a copy."""
    inputs = Inputs.draw(options.shape, options.device, kind)
    tasks = {name: (lambda loss=loss: inputs.run(loss)) for name, loss in losses.items()}
    times = take_turns(tasks, rounds=options.rounds)
    gradient = inputs.logits.numel() * 4 / MEBIBYTE
    peaks = {name: peak_memory(options, name, kind) for name in losses}
    extra = {name: None if peak is None else max(peak - gradient, 0.0) for name, peak in peaks.items()}
    results = {
        name: {
            "median_ms": statistics.median(values),
            "fastest_ms": min(values),
            "peak_mib": peaks[name],
            "extra_mib": extra[name],
        }
        for name, values in times.items()
    }
    if options.device == "cuda":
        copy = copy_time(inputs)
        for name in OURS.keys() & losses.keys():
            results[name]["times_of_copy"] = results[name]["median_ms"] / copy
    return results, compared(options, inputs, kind, losses, times, peaks), aims(options, kind, results)


def aims(options: argparse.Namespace, kind: str, results: dict[str, Figures]) -> list[Target]:
    """The targets that are no ratios of time."""
    if options.shape != TARGET_SHAPE:
        return []
    found = []
    for name, share in EXTRA_SHARE.items():
        if name in results and "eager" in results:
            mine, eager = (results[one]["extra_mib"] for one in (name, "eager"))
            figure = f"Lovasz-Softmax, {kind} scores, {OURS[name]}: memory beside the gradient, share of eager torch's"
            value = None if mine is None or not eager else mine / eager
            found.append(Target(figure, share, value, at_least=False))
    if options.device == "cuda" and "histogram" in results:
        figure = f"Lovasz-Softmax, {kind} scores, {OURS['histogram']}: copies of all that is read and written"
        found.append(Target(figure, TIMES_OF_COPY, results["histogram"]["times_of_copy"], at_least=False))
    return found


def compared(
    options: argparse.Namespace, inputs: Inputs, kind: str, losses: dict[str, Loss], times: Rounds, peaks: Figures
) -> list[Comparison]:
    """Time and peak memory of ours beside those of every rival."""
    case = f"{'x'.join(map(str, options.shape))}, float32, {kind} scores"
    faster = FASTER[options.device] if options.shape == TARGET_SHAPE else {}
    rows = []
    for own, rival in itertools.product(OURS, RIVALS):
        if not {own, rival} <= losses.keys():
            continue
        name, package = RIVALS[rival]
        result = bench_weighted_block.agreement(*(inputs.result(losses[one]) for one in (own, rival)))
        described: dict[str, Any] = {"case": case, "result": result, "version": versions((package,))[package]}
        rows.append(
            Comparison.of_rounds(
                (OURS[own], times[own]),
                (name, times[rival]),
                subject="Lovasz-Softmax, loss and gradient",
                unit="ms",
                target=faster.get((own, rival)),
                **described,
            )
        )
        mine, theirs = peaks[own], peaks[rival]
        # Tiny inputs fit into pages that are there already.
        if mine and theirs:
            sides = (OURS[own], [mine]), (name, [theirs])
            rows.append(Comparison.of_rounds(*sides, subject="Lovasz-Softmax, peak memory", unit="MiB", **described))
    return sorted(rows, key=lambda row: row.subject)


def copy_time(inputs: Inputs) -> float:
    """Milliseconds to read logits and labels twice and write the gradient once at the measured copy bandwidth."""
    source = torch.empty(256 * MEBIBYTE, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for _ in range(10):
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    bytes_per_ms = 2 * source.numel() / statistics.median(times)
    logits = inputs.logits.numel() * inputs.logits.element_size()
    labels = inputs.target.numel() * inputs.target.element_size()
    return (2 * logits + 2 * labels + 4 * inputs.logits.numel()) / bytes_per_ms


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shape", type=int, nargs=4, default=TARGET_SHAPE, metavar=("N", "C", "H", "W"))
    parser.add_argument("--scores", choices=["random", "trained"], nargs="+", default=["random", "trained"])
    parser.add_argument("--names", choices=list(CONTESTANTS), nargs="+", default=list(CONTESTANTS))
    parser.add_argument("--without-weighted-block", action="store_true", help="leave it to bench_weighted_block.py")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--memory-of", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        inputs = Inputs.draw(options.shape, "cpu", options.scores[0])
        print(json.dumps(resident_memory(inputs, CONTESTANTS[options.memory_of]())))
        return
    losses = taking_part(options.names, options.device)
    figures: dict[str, Any] = {
        "device": options.device,
        "threads": options.threads,
        "shape": options.shape,
        "rounds": options.rounds,
        "build": dict(native.require().BUILD),
    }
    comparisons: list[Comparison] = []
    targets: list[Target] = []
    for kind in options.scores:
        figures[f"lovasz_softmax_{kind}"], rows, aimed = measure(options, losses, kind)
        comparisons += rows
        targets += aimed
    show(comparisons, targets)
    if not options.without_weighted_block:
        print("\nWeighted block, maps of ET-Net at 512x512, milliseconds")
        figures["weighted_block"], rows = bench_weighted_block.measure(options.device, rounds=31)
        comparisons += rows
    if options.json is not None:
        write_result(
            options.json,
            benchmark="ops",
            what="operators beside what else computes the same: the loss with its gradient"
            + ("" if options.without_weighted_block else ", and the weighted block"),
            figures=figures,
            comparisons=comparisons,
            targets=targets,
            packages=("segmentation-models-pytorch",),
        )


if __name__ == "__main__":
    main()
