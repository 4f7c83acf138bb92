"""What `etnet infer` costs beside its network: a loop over decoded images, and the whole folder run, side by side.

    python benchmarks/bench_infer.py --model runs/train/drive --input DRIVE/test/images --device cpu
    python benchmarks/bench_infer.py --model drive.engine --input photographs/ --batch-size 8 --jobs 16

The loop predicts images that are in memory already and throws the masks away. The folder run is that of the command
without its report, which draws at most 1,000 pictures of any number of images: decode, hash, check, predict,
post-process, measure, write masks, journal and tables. Rounds alternate between the two, and the overhead is the median
of the rounds' ratios less one. The first round of each, which warms up, does not count.
Target on a processor: at most 10 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measurement import Target, show, write_result

from etnet.inference.folder import predict_folder
from etnet.inference.input_images import open_input
from etnet.inference.inputs import Inputs, find_inputs
from etnet.inference.pipeline import Work
from etnet.inference.predictor import ImagePredictor
from etnet.inference.refinement import Refinement, refine
from etnet.inference.two_stage import open_predictor
from etnet.output import json_text
from etnet.types import UInt8Array

TARGET_OVERHEAD = 0.10


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="what etnet infer takes")
    parser.add_argument("--input", type=Path, required=True, help="folder of images")
    parser.add_argument("--images", type=int, help="first images to take [default: all]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def loop_seconds(predictor: ImagePredictor, images: list[UInt8Array], batch_size: int) -> float:
    """Time of the network alone."""
    start = time.perf_counter()
    for first in range(0, len(images), batch_size):
        predictor.predict_batch(images[first : first + batch_size], probabilities=False)
    return time.perf_counter() - start


def folder_seconds(predictor: ImagePredictor, inputs: Inputs, work: Work) -> float:
    """Time of the whole run."""
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        outcome = predict_folder(predictor, inputs, Path(output), work=work)
        seconds = time.perf_counter() - start
    if outcome.failed:
        raise SystemExit(f"{outcome.failed} images failed, the first: {next(outcome.failures())[1]}")
    return seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Alternate rounds of both."""
    network = open_predictor(options.model, backend=options.backend, device=options.device, threads=options.threads)
    predictor = refine(network, Refinement(tiles_per_run=options.batch_size))
    found = find_inputs(options.input)
    inputs = Inputs(found.items[: options.images])
    images = [open_input(item, intensity_window=predictor.contract.intensity_window).pixels() for item in inputs.items]
    work = Work(options.batch_size, options.jobs)
    rounds = [
        (loop_seconds(network, images, options.batch_size), folder_seconds(predictor, inputs, work))
        for _ in range(options.rounds + 1)
    ][1:]
    network.close()
    count = len(images)
    overhead = statistics.median(whole / loop - 1 for loop, whole in rounds)
    return {
        "device": "cpu" if " cpu" in predictor.runs_on else "cuda",
        "model": options.model.name,
        "data": options.input.name,
        "ran_on": predictor.runs_on,
        "images": count,
        "height_px": images[0].shape[0],
        "width_px": images[0].shape[1],
        "batch_size": options.batch_size,
        "threads": options.threads,
        "jobs": work.threads,
        "rounds": [{"loop_s": round(loop, 3), "folder_s": round(whole, 3)} for loop, whole in rounds],
        "network_images_per_s": round(count / statistics.median(loop for loop, _ in rounds), 2),
        "images_per_s": round(count / statistics.median(whole for _, whole in rounds), 2),
        "overhead": round(overhead, 4),
    }


def aims(figures: dict[str, Any]) -> list[Target]:
    """What the overhead is meant to be, on a processor."""
    what = "time that the folder run takes beside its network, share"
    return [Target(what, TARGET_OVERHEAD, figures["overhead"], at_least=False)] if figures["device"] == "cpu" else []


def main() -> None:
    """Measure, print, and write the figures."""
    options = arguments()
    figures = measure(options)
    print(json_text(figures))
    targets = aims(figures)
    show([], targets)
    if options.json is not None:
        write_result(
            options.json,
            benchmark="infer",
            what="the whole etnet infer, without its report, beside a loop of its network over decoded images",
            figures=figures,
            targets=targets,
        )


if __name__ == "__main__":
    main()
