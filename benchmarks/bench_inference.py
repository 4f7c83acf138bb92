"""Latency of ET-Net in PyTorch, ONNX Runtime, OpenVINO and TensorRT, side by side (paper Sec. 3: 15 ms per image).

    python benchmarks/bench_inference.py --device cpu --json inference_cpu.json
    python benchmarks/bench_inference.py --device cuda --batch 1,8 --json inference_gpu.json

The same measurement as `etnet benchmark`, on the network of the paper (ResNet-50, two classes, 512x512) with random
weights unless --model names a trained one: time does not depend on what was learned, labels do, so that without --model
only times are worth reading. The first format is the rival that every speed is relative to: float32 torch, eager, in
its own layout (NCHW). What a careful user would try first is in the table too: channels-last, bfloat16.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from measurement import Comparison, show, write_result

from etnet.cli.benchmark_table import print_tables
from etnet.config.load import load_recipe
from etnet.export.benchmark import BenchmarkPlan, Row, run_benchmark
from etnet.export.formats import FORMATS, ModelFiles, default_formats, parse_formats
from etnet.export.subject import Subject, open_subject
from etnet.inference.measure import Latency
from etnet.manifest import encode_header, read_weights_info, resolve_model
from etnet.models import build_model
from etnet.training.checkpoint import save_weights

RIVAL = "torch-nchw"
PLAIN = "PyTorch as it comes: float32, eager, NCHW"
TARGETS = {
    "cpu": {"onnxruntime": 1.7, "openvino": 3.0, "onnxruntime-int8": 5.0, "openvino-int8": 5.0},
    "cuda": {"torch-fp16-compile": 4.0, "tensorrt-fp16": 4.0},
}
"""Speed that a format should have at batch 1, relative to the rival."""


def random_weights(path: Path) -> Path:
    """A weights file with the paper's network, as it is before training."""
    torch.manual_seed(0)
    recipe = load_recipe("drive", ["model.encoder=resnet50", "model.encoder_weights=none"])
    network = build_model(recipe.model, len(recipe.data.class_names))
    save_weights(path, network.state_dict(), encode_header(recipe=recipe, iteration=0, epoch=0, data_root="nowhere"))
    return path


def described(weights: Path) -> str:
    """The network of a weights file, in words."""
    recipe = read_weights_info(weights).recipe
    return f"ET-Net, {recipe.model.encoder}, {len(recipe.data.class_names)} classes"


def compared(rows: list[Row], device: str, case: str) -> list[Comparison]:
    """Every format that ran beside the first of them, at each batch size."""
    ran = [row for row in rows if row.latencies]
    if not ran:
        return []
    rival, *others = ran
    aims = TARGETS[device] if rival.name == RIVAL else {}
    return [
        Comparison.of_rounds(
            (f"etnet, {row.name}", rates(mine)),
            (PLAIN if rival.name == RIVAL else rival.name, rates(theirs)),
            version=torch.__version__ if rival.name.startswith("torch") else None,
            better="higher",
            subject="prediction, 8-bit image to 8-bit labels",
            case=f"{case}, batch {mine.batch}",
            unit="images/s",
            result=agreement(row),
            target=aims.get(row.name) if mine.batch == 1 else None,
        )
        for row in others
        for mine, theirs in zip(row.latencies, rival.latencies, strict=False)  # one may have stopped at a larger batch
    ]


def rates(latency: Latency) -> list[float]:
    """Images per second of every run."""
    return [latency.batch / float(seconds) for seconds in latency.total]


def agreement(row: Row) -> str:
    """Which share of the labels the format gives otherwise."""
    if row.differing_labels is None:
        return "same network, labels not compared"
    return f"{1e4 * row.differing_labels:.2g} of 10,000 labels differ"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="run or weights (default: the paper's network, random)")
    parser.add_argument("--data", type=Path, help="data set of --model, to score on")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--formats", help=f"names of {', '.join(FORMATS)} (default: those usual for the device)")
    parser.add_argument("--size", default="512x512", help="HxW (default: 512x512)")
    parser.add_argument("--batch", default="1", help="batch sizes, such as 1,8 (default: 1)")
    parser.add_argument("--runs", type=int, default=30, help="timed runs per format and batch size (default: 30)")
    parser.add_argument("--threads", type=int, help="processor threads (default: each runtime's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    return parser.parse_args()


def main() -> None:
    """Measures, prints the tables and writes the figures."""
    options = arguments()
    height, width = (int(side) for side in options.size.split("x"))
    batches = tuple(int(size) for size in options.batch.split(","))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = resolve_model(options.model) if options.model else random_weights(folder / "random.safetensors")
        subject = open_subject(weights, data=options.data, split="test", size=(height, width))
        plan = _plan(options, subject, batches)
        calibration = subject.calibration or [subject.images[0].image]
        network = described(weights) + ("" if options.model else ", random weights")
        files = ModelFiles(weights, folder, size=(height, width), batch=(1, 1, max(batches)), calibration=calibration)
        rows = run_benchmark(plan, files, progress=print)
    print_tables(rows)
    comparisons = compared(rows, options.device, f"{network}, {height}x{width}")
    show(comparisons)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="inference",
            what="the same network in several formats, end to end from uint8 image to uint8 labels",
            figures={
                "device": options.device,
                "threads": options.threads,
                "network": network,
                "size": [height, width],
                "runs": options.runs,
                "images": subject.origin,
                "rows": [row.to_dict() for row in rows],
            },
            comparisons=comparisons,
        )


def _plan(options: argparse.Namespace, subject: Subject, batches: tuple[int, ...]) -> BenchmarkPlan:
    return BenchmarkPlan(
        parse_formats(options.formats) if options.formats else (RIVAL, *default_formats(options.device)),
        subject.images,
        subject.contract.class_names,
        ignore_index=subject.ignore_index,
        batches=batches,
        runs=options.runs,
        device=options.device,
        threads=options.threads,
        real_images=subject.origin is not None,
    )


if __name__ == "__main__":
    main()
