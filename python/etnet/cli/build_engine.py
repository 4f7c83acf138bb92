"""`etnet build-engine`: an engine of TensorRT or TensorRT-RTX from a run, weights or an ONNX file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from etnet.cli.console import closing_lines, note, output, progress_bar, warn

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from etnet.export.engine import BuiltEngine
    from etnet.inference.compare import ComparisonImage
    from etnet.sidecar import NetworkPrecision, Sidecar
    from etnet.trt.builder import PreparedBuild
    from etnet.trt.settings import BuildSettings


@dataclass(frozen=True)
class _Source:
    """What MODEL stands for.

    Attributes:
        onnx: The ONNX file to build from.
        weights: The weights to export it from; None where MODEL is an ONNX file.
        size: (height, width) of the export; None for free size.
        planned: Description of the file that the export will write; None where there is nothing to export.
    """

    onnx: Path
    weights: Path | None = None
    size: tuple[int, int] | None = None
    planned: Sidecar | None = None


@click.command("build-engine", short_help="Build a TensorRT engine.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--fp16", is_flag=True, help="Half precision.")
@click.option("--int8", is_flag=True, help="8-bit integers; from weights it needs --calibration.")
@click.option("--fp32", is_flag=True, help="Single precision [default: that of the ONNX file; fp32 for weights].")
@click.option(
    "--backend",
    "library",
    type=click.Choice(("tensorrt", "tensorrt-rtx")),
    default="tensorrt",
    show_default=True,
    help="tensorrt builds for the GPU of this machine; tensorrt-rtx ahead of time for RTX GPUs, without one.",
)
@click.option(
    "--output",
    "output_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Plan file to write [default: MODEL's name, in its folder or run directory, with .engine].",
)
@click.option("--calibration", type=click.Path(path_type=Path), metavar="DIR", help="Images for --int8 from weights.")
@click.option("--size", metavar="HxW", help="Size to export weights for [default: that of the run's images].")
@click.option("--dynamic", is_flag=True, help="Export weights with free size; needs --size-profile.")
@click.option("--size-profile", metavar="MIN,OPT,MAX", help="Sizes of a free input, such as 256x256,512x512,1024x1024.")
@click.option("--batch", metavar="MIN,OPT,MAX", help="Batch sizes, such as 1,4,8 [default: those of the ONNX file].")
@click.option("--workspace", type=float, metavar="GB", help="Most scratch memory on the GPU [default: all of it].")
@click.option("--timing-cache", type=click.Path(path_type=Path), metavar="FILE", help="Keeps measured times for later.")
@click.option("--optimization-level", type=int, metavar="N", help="0 (fast build) to 5 (fast engine) [default: 3].")
@click.option("--version-compatible", is_flag=True, help="Let later versions of TensorRT run the engine.")
@click.option(
    "--hardware-compatible",
    type=click.Choice(("ampere_plus", "same_compute_capability")),
    help="Let other GPUs run the engine.",
)
@click.option("--target", metavar="sm86,sm89,...", help="GPUs to build for with tensorrt-rtx [default: sm80 and newer].")
@click.option("--verify", type=click.Path(path_type=Path), metavar="DIR", help="Images to compare on [default: the run's].")
@click.option("--no-verify", is_flag=True, help="Do not compare.")
@click.option("--max-drop", type=click.FloatRange(0, 1), default=0.005, show_default=True, help="Largest loss of Dice.")
@click.option("--dry-run", is_flag=True, help="Only show what would be built.")
@click.option("--overwrite", is_flag=True, help="Replace an existing engine and an ONNX file on the way.")
@click.option("--json", "as_json", is_flag=True, help="Print the engine's description to stdout, and nothing else there.")
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    fp16: bool,
    int8: bool,
    fp32: bool,
    output_file: Path | None,
    calibration: Path | None,
    size: str | None,
    dynamic: bool,
    verify: Path | None,
    no_verify: bool,
    max_drop: float,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    **build_options: Any,
) -> None:
    """Build an engine from MODEL: a run directory, a weights file or an ONNX file exported by etnet.

    \b
    etnet build-engine runs/train/drive --fp16 --backend tensorrt-rtx

    Weights are exported to ONNX on the way. The precision is that of the ONNX file, and the command fails when fp16 was
    asked for and most layers run in another one. Beside the engine lies FILE.json with classes, sizes, hashes and the
    GPU it was built for. Where a GPU can run it, the engine is compared with PyTorch on real images before it gets its
    name. Loading an engine is running code: use only engines that you built yourself.
    """
    from etnet.output import json_text
    from etnet.trt.builder import prepare_build

    settings = _settings(_precision(fp16=fp16, int8=int8, fp32=fp32), build_options)
    source = _source(model, settings, calibration, size, dynamic=dynamic)
    target = _target(output_file, source.onnx, overwrite=overwrite or dry_run)
    prepared = prepare_build(source.onnx, target, settings, sidecar=source.planned)
    if dry_run:
        _print_plan(prepared, source)
        return
    try:
        if source.planned is not None:
            _export(source, calibration, overwrite=overwrite)
            prepared = prepare_build(source.onnx, target, settings)
        images = [] if no_verify else _images(source, verify)
        built = _build(prepared, source, images, max_drop)
    except KeyboardInterrupt:
        note("Stopped; no engine was written.")
        context.exit(130)
    if as_json:
        click.echo(json_text(_as_values(built.sidecar, target)))
    else:
        _print_summary(built)
    closing_lines(target, _next_command(target, built), to_stderr=as_json)
