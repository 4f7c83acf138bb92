"""`etnet benchmark`: one table of formats with size, scores, latency, throughput and memory."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etnet.cli.console import closing_lines, counted, newest_model, note
from etnet.cli.export import SizeType, tell_regions

if TYPE_CHECKING:
    from etnet.export.benchmark import BenchmarkPlan, Row
    from etnet.export.formats import ModelFiles
    from etnet.export.subject import Subject

RUNS = Path("runs/benchmark")
_SCORES = {"dice": "mean_dice", "miou": "mean_iou"}


class BatchesType(click.ParamType[tuple[int, ...]]):
    """Batch sizes written `1,8`."""

    name = "N,N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse the text of the option."""
        if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", str(value)):
            self.fail(f"{value!r} are no batch sizes; expected numbers such as 1,8", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in str(value).split(",")))


class FloorType(click.ParamType[tuple[str, float]]):
    """A floor written `dice=0.80`."""

    name = "SCORE=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Parse the text of the option."""
        match = re.fullmatch(rf"({'|'.join(_SCORES)})=([01](?:\.[0-9]+)?|\.[0-9]+)", str(value))
        if match is None or float(match[2]) > 1:
            self.fail(f"{value!r} is no floor; expected dice=VALUE or miou=VALUE with a value in 0..1", param, ctx)
        return match[1], float(match[2])


@click.command("benchmark", short_help="Compare formats: size, scores, latency, memory.")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Labelled data set to score on, or a folder of images [default: the run's held-out images].",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train", "all"]),
    default="test",
    show_default=True,
    help="Part of --data.",
)
@click.option("--formats", metavar="NAME,NAME", help="Formats to compare [default: those usual for the device].")
@click.option("--batch", "batches", type=BatchesType(), default="1", show_default=True, help="Batch sizes to time.")
@click.option(
    "--runs", type=click.IntRange(min=1), metavar="N", default=30, show_default=True, help="Timed runs per row."
)
@click.option("--size", type=SizeType(), help="Input size, multiples of 16 [default: as etnet export].")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to run.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processor threads of each runtime [default: its own choice].",
)
@click.option(
    "--floor", "floors", type=FloorType(), multiple=True, help="End with exit code 5 if a format scores lower."
)
@click.option(
    "--output", "output_folder", type=click.Path(path_type=Path), metavar="DIR", help=f"Results [default: {RUNS}/NAME]."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Also write all figures here."
)
def command(
    model: Path | None,
    data: Path | None,
    split: str,
    formats: str | None,
    batches: tuple[int, ...],
    runs: int,
    size: tuple[int, int] | None,
    device: str,
    threads: int | None,
    floors: Sequence[tuple[str, float]],
    output_folder: Path | None,
    json_file: Path | None,
) -> None:
    """Compare formats of MODEL (a run, weights, ONNX file or engine; by default the newest run).

    \b
    etnet benchmark runs/train/drive --data DRIVE/ --formats torch,onnxruntime,openvino

    Files that a format needs are made first. Each format runs in a process of its own; they take turns, so that a slow
    moment of the machine hits all. "End to end" is the time from 8-bit images to 8-bit labels and edges in the
    computer's memory, its speed is relative to the first format that ran, and so is "differ %", the share of the pixels
    with another label. Formats that cannot run here get a line with the reason.
    """
    from etnet.cli.benchmark_table import print_tables
    from etnet.export.benchmark import BenchmarkPlan, run_benchmark
    from etnet.export.formats import ModelFiles, default_formats, parse_formats
    from etnet.export.subject import open_subject
    from etnet.manifest import resolve_model
    from etnet.output import create_output_folder, run_name, write_json

    names = parse_formats(formats) if formats is not None else default_formats(device)
    path = resolve_model(model or newest_model())
    subject = open_subject(path, data=data, split=split, size=size)
    plan = BenchmarkPlan(
        names,
        subject.images,
        subject.contract.class_names,
        ignore_index=subject.ignore_index,
        batches=batches,
        runs=runs,
        device=device,
        threads=threads,
        real_images=subject.origin is not None,
    )
    folder = create_output_folder(output_folder, parent=RUNS, name=run_name(path))
    _tell_subject(path, subject, data)
    files = ModelFiles(path, folder, size=subject.size, batch=(1, 1, max(batches)), calibration=subject.calibration)
    rows = run_benchmark(plan, files, progress=note)
    report = _report(path, subject, plan, rows)
    write_json(folder / "benchmark.json", report)
    if json_file is not None:
        write_json(json_file, report)
    print_tables(rows)
    closing_lines(folder, _next_command(rows, files))
    _check(rows, floors)


def _tell_subject(path: Path, subject: Subject, data: Path | None) -> None:
    size = "{}x{}".format(*subject.size) if subject.size is not None else "free size"
    if subject.origin is None:
        note(f"Timing {path} at {size} on noise, without scores: {subject.without_images}")
    else:
        if data is not None and all(item.mask is None for item in subject.images):
            tell_regions(data, subject.contract)
        masks = "" if any(item.mask is not None for item in subject.images) else " without masks"
        count = counted(len(subject.images), "image")
        note(f"Comparing formats of {path} at {size} on {count}{masks} of {subject.origin}")


def _report(path: Path, subject: Subject, plan: BenchmarkPlan, rows: Sequence[Row]) -> dict[str, Any]:
    from etnet.export.benchmark import environment

    return {
        "model": str(path),
        "images": {"origin": subject.origin, "ids": [item.id for item in subject.images]},
        "size": subject.size,
        "settings": {name: value for name, value in vars(plan).items() if name != "images"},
        "environment": environment(),
        "rows": [row.to_dict() for row in rows],
    }


def _next_command(rows: Sequence[Row], files: ModelFiles) -> str:
    """Segment a folder with the fastest format."""
    ran = [row for row in rows if row.latencies]
    if not ran:
        return "etnet doctor"
    fastest = max(ran, key=lambda row: row.latencies[0].images_per_second)
    contestant = files.contestant(fastest.name)
    return f"etnet infer IMAGES/ --model {shlex.quote(str(contestant.model))} --backend {contestant.backend}"


def _check(rows: Sequence[Row], floors: Sequence[tuple[str, float]]) -> None:
    """Hold the floors against every format that ran.

    Raises:
        CheckFailed: A score is below its floor, or there is none; or no format ran at all.
    """
    from etnet.errors import CheckFailed

    ran = [row for row in rows if row.reason is None]
    if not ran:
        raise CheckFailed("none of the formats could run here; the table says why for each")
    for score, floor in floors:
        for row in ran:
            value = getattr(row, _SCORES[score])
            if value is None:
                raise CheckFailed(
                    f"--floor {score}={floor}: not measured, because the images have no masks; add --data"
                )
            if not value >= floor:
                raise CheckFailed(f"{row.name}: {score} is {value:.4f}, below the floor {floor}")
