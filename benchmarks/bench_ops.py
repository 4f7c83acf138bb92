"""Time and memory of the operators, side by side with what else computes the same.

    python benchmarks/bench_ops.py --device cpu --json benchmarks/results/ops_cpu.json

Each round runs every contestant once, so that a slow moment of the machine hits all of them; medians over the rounds
are reported, after one round that does not count. Time is that of loss and gradient. Peak memory is what a run needs
beyond what the process held before it: resident pages of a process of its own on the CPU, allocated memory on CUDA.
Extra memory is the peak without the gradient itself, which every contestant has to hand over.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bench_weighted_block
import torch
from torch import Tensor

from etnet import native
from etnet.ops.lovasz import lovasz_softmax

Loss = Callable[[Tensor, Tensor], Tensor]
Figures = dict[str, float | None]

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
"""What is compared; ratios are those to the first that takes part."""


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


@dataclass(frozen=True)
class Target:
    """What a contestant is meant to reach for TARGET_SHAPE."""

    name: str
    figure: str
    bound: float
    at_least: bool = True

    def is_met(self, value: float | None) -> bool | None:
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound

    def judge(self, row: Figures) -> dict[str, object]:
        """The figure beside its bound; `met` is None where it could not be measured."""
        value = row[self.figure]
        return {
            "figure": self.figure,
            "bound": self.bound,
            "at_least": self.at_least,
            "value": value,
            "met": self.is_met(value),
        }


TARGETS = {
    "cpu": [
        Target("sort", "speedup", 15),
        Target("sort", "extra_ratio", 1 / 3, at_least=False),
        Target("histogram", "speedup", 50),
        Target("histogram", "extra_ratio", 1 / 10, at_least=False),
    ],
    "cuda": [
        Target("sort", "speedup", 8),
        Target("sort", "speedup_over_best_library", 3),
        Target("sort", "extra_ratio", 1 / 3, at_least=False),
        Target("histogram", "speedup", 25),
        Target("histogram", "extra_ratio", 1 / 10, at_least=False),
        Target("histogram", "times_of_copy", 2, at_least=False),
    ],
}


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

    def run(self, loss: Loss) -> None:
        self.logits.grad = None
        loss(self.logits, self.target).backward()
        if self.logits.is_cuda:
            torch.cuda.synchronize()


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
    small = Inputs.draw([1, inputs.logits.shape[1], 8, 8], "cpu", "random")
    small.run(loss)  # loads and compiles what the first call needs
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


def measure(options: argparse.Namespace, losses: dict[str, Loss], kind: str) -> dict[str, Figures]:
    """Time and memory of each contestant, and their ratios to those of the first."""
    inputs = Inputs.draw(options.shape, options.device, kind)
    times: dict[str, list[float]] = {name: [] for name in losses}
    for repetition in range(options.rounds + 1):
        for name, loss in losses.items():
            begin = time.perf_counter()
            inputs.run(loss)
            if repetition > 0:
                times[name].append(1000 * (time.perf_counter() - begin))
    medians = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: peak_memory(options, name, kind) for name in losses}
    gradient = inputs.logits.numel() * 4 / MEBIBYTE
    extra = {name: None if peak is None else max(peak - gradient, 0.0) for name, peak in memory.items()}
    libraries = [medians[name] for name in ("compiled", "smp") if name in medians]
    copy = copy_time(inputs) if options.device == "cuda" else None
    first = next(iter(losses))
    return {
        name: {
            "median_ms": medians[name],
            "fastest_ms": min(times[name]),
            "speedup": medians[first] / medians[name],
            "speedup_over_compiled": ratio(medians.get("compiled"), medians[name]),
            "speedup_over_smp": ratio(medians.get("smp"), medians[name]),
            "speedup_over_best_library": ratio(min(libraries, default=None), medians[name]),
            "times_of_copy": ratio(medians[name], copy),
            "peak_mib": memory[name],
            "extra_mib": extra[name],
            "extra_ratio": ratio(extra[name], extra[first]),
        }
        for name in losses
    }


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


def ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


COLUMNS = {
    "median_ms": (".1f", "median ms"),
    "speedup": (".1f", "x eager"),
    "speedup_over_compiled": (".1f", "x compiled"),
    "speedup_over_smp": (".1f", "x smp"),
    "peak_mib": (".0f", "peak MiB"),
    "extra_mib": (".1f", "extra MiB"),
    "extra_ratio": (".3f", "of eager's"),
}
"""Figure, its format and its heading in the table."""


def show(results: dict[str, Figures]) -> None:
    print(" " * 10 + "".join(f"{heading:>12}" for _, heading in COLUMNS.values()))
    for name, row in results.items():
        cells = ("?" if row[column] is None else format(row[column], form) for column, (form, _) in COLUMNS.items())
        print(f"{name:10}" + "".join(f"{cell:>12}" for cell in cells))


def judge(results: dict[str, Figures], options: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    """Every target that applies, by contestant, printed with the figure and whether it is met."""
    verdicts: dict[str, list[dict[str, object]]] = {}
    if options.shape != TARGET_SHAPE or next(iter(results)) != "eager":
        return verdicts
    for target in TARGETS[options.device]:
        if target.name not in results:
            continue
        verdict = target.judge(results[target.name])
        verdicts.setdefault(target.name, []).append(verdict)
        value = "?" if verdict["value"] is None else f"{verdict['value']:.3g}"
        met = {True: "yes", False: "no", None: "not measured"}[verdict["met"]]
        sign = ">=" if target.at_least else "<="
        print(f"  target: {target.name} {target.figure} {sign} {target.bound:.3g}; got {value}; met: {met}")
    return verdicts


def environment(device: str) -> dict[str, object]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "build": dict(native.require().BUILD),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
    figures: dict[str, object] = {
        "shape": options.shape,
        "rounds": options.rounds,
        "environment": environment(options.device),
    }
    for kind in options.scores:
        results = measure(options, losses, kind)
        print(f"\nLovasz-Softmax, {options.shape}, float32, {kind} scores, loss and gradient")
        show(results)
        figures[f"lovasz_softmax_{kind}"] = results
        figures[f"targets_{kind}"] = judge(results, options)
    if not options.without_weighted_block:
        print("\nWeighted block, maps of ET-Net at 512x512, milliseconds")
        figures["weighted_block"] = bench_weighted_block.measure(options.device, rounds=31)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
