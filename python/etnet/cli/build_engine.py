"""`etnet build-engine`: an engine of TensorRT or TensorRT-RTX from a run, weights or an ONNX file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from etnet.cli.console import closing_lines, note, print_rows, progress_bar
from etnet.cli.export import BatchType, SizeType
from etnet.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from etnet.export.engine import BuiltEngine
    from etnet.inference.compare import ComparisonImage
    from etnet.sidecar import InputSpec, NetworkPrecision, Sidecar
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


SECTIONS = {
    "Precision": ("--fp16", "--int8", "--fp32", "--calibration"),
    "Sizes": ("--size", "--dynamic", "--size-profile", "--batch"),
    "Where it will run": ("--backend", "--target", "--version-compatible", "--hardware-compatible"),
    "Build": ("--optimization-level", "--workspace", "--timing-cache", "--dry-run"),
    "Check against PyTorch": ("--verify", "--no-verify", "--max-drop"),
    "Results": ("--output", "--overwrite", "--json"),
}


@click.command("build-engine", cls=SectionedCommand, sections=SECTIONS, short_help="Build a TensorRT engine.")
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
@click.option("--size", type=SizeType(), help="Size to export weights for [default: that of the run's images].")
@click.option("--dynamic", is_flag=True, help="Export weights with free size; needs --size-profile.")
@click.option("--size-profile", metavar="MIN,OPT,MAX", help="Sizes of a free input, such as 256x256,512x512,1024x1024.")
@click.option("--batch", type=BatchType(), help="Batch sizes, such as 1,4,8 [default: 1,1,8, or the ONNX file's].")
@click.option("--workspace", type=float, metavar="GB", help="Most scratch memory on the GPU [default: all of it].")
@click.option("--timing-cache", type=click.Path(path_type=Path), metavar="FILE", help="Keeps measured times for later.")
@click.option("--optimization-level", type=int, metavar="N", help="0 (fast build) to 5 (fast engine) [default: 3].")
@click.option("--version-compatible", is_flag=True, help="Let later versions of TensorRT run the engine.")
@click.option(
    "--hardware-compatible",
    type=click.Choice(("ampere_plus", "same_compute_capability")),
    help="Let other GPUs run the engine.",
)
@click.option(
    "--target", metavar="sm86,sm89,...", help="GPUs to build for with tensorrt-rtx [default: sm80 and newer]."
)
@click.option(
    "--verify", type=click.Path(path_type=Path), metavar="DIR", help="Images to compare on [default: the run's]."
)
@click.option("--no-verify", is_flag=True, help="Do not compare.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    metavar="DROP",
    default=0.005,
    show_default=True,
    help="Largest loss of Dice.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be built.")
@click.option("--overwrite", is_flag=True, help="Replace an existing engine and an ONNX file on the way.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the engine's description to stdout, and nothing else there."
)
def command(
    model: Path,
    fp16: bool,
    int8: bool,
    fp32: bool,
    output_file: Path | None,
    calibration: Path | None,
    size: tuple[int, int] | None,
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
    from etnet.cli.export import require_one_comparison
    from etnet.output import json_text
    from etnet.trt.builder import prepare_build

    require_one_comparison(verify, no_verify=no_verify)
    settings = _settings(_precision(fp16=fp16, int8=int8, fp32=fp32), build_options)
    source = _source(model, settings, calibration, size, dynamic=dynamic)
    target = _target(output_file, source.onnx, overwrite=overwrite or dry_run)
    prepared = prepare_build(source.onnx, target, settings, model=model, sidecar=source.planned)
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
        click.get_current_context().exit(130)
    if as_json:
        click.echo(json_text(_as_values(built.sidecar, target)))
    else:
        _print_summary(built)
    closing_lines(target, _next_command(target, built), to_stderr=as_json)


def _precision(*, fp16: bool, int8: bool, fp32: bool) -> NetworkPrecision | None:
    from etnet.errors import UsageError

    chosen = [name for name, given in (("fp16", fp16), ("int8", int8), ("fp32", fp32)) if given]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} exclude each other; choose one")
    return cast("NetworkPrecision", chosen[0]) if chosen else None


def _settings(precision: NetworkPrecision | None, options: dict[str, Any]) -> BuildSettings:
    from etnet.trt.settings import BuildSettings, parse_size_profile, parse_targets

    profile, target = options["size_profile"], options["target"]
    return BuildSettings(
        library=options["library"],
        precision=precision,
        batch=options["batch"],
        size_profile=None if profile is None else parse_size_profile(profile),
        workspace_gb=options["workspace"],
        timing_cache=options["timing_cache"],
        optimization_level=options["optimization_level"],
        version_compatible=options["version_compatible"],
        hardware_compatible=options["hardware_compatible"],
        targets=() if target is None else parse_targets(target),
    )


def _source(
    model: Path, settings: BuildSettings, calibration: Path | None, size: tuple[int, int] | None, *, dynamic: bool
) -> _Source:
    from etnet.errors import UsageError
    from etnet.manifest import resolve_model

    if model.suffix.lower() == ".onnx":
        given = {"--calibration": calibration is not None, "--size": size is not None, "--dynamic": dynamic}
        useless = [name for name, is_given in given.items() if is_given]
        if useless:
            raise UsageError(f"{useless[0]}: {model} is an ONNX file already; give the run or weights instead of it")
        return _Source(model)
    if model.suffix.lower() in (".engine", ".plan"):
        raise UsageError(f"{model}: is an engine; give the ONNX file, weights or run that it was built from")
    precision = settings.precision or "fp32"
    if (precision == "int8") != (calibration is not None):
        raise UsageError(
            "--int8 needs --calibration DIR with images like those that will be segmented"
            if calibration is None
            else "--calibration is used by --int8 only; add --int8 or leave it out"
        )
    return _planned_export(resolve_model(model), settings, size, dynamic=dynamic)


def _planned_export(weights: Path, settings: BuildSettings, size: tuple[int, int] | None, *, dynamic: bool) -> _Source:
    from etnet.cli.export import choose_size
    from etnet.errors import UsageError
    from etnet.manifest import read_weights_info
    from etnet.sidecar import InputSpec, Sidecar, Source

    precision = settings.precision or "fp32"
    info = read_weights_info(weights)
    dynamic = dynamic or settings.size_profile is not None
    chosen = choose_size(info, size, dynamic=dynamic)
    if chosen is None and settings.size_profile is None:
        raise UsageError("--dynamic needs --size-profile MIN,OPT,MAX, such as 256x256,512x512,1024x1024")
    folder = weights.parent.parent if weights.parent.name == "weights" else weights.parent
    # The integers of an engine are not those of a processor, so model-int8.onnx stays the processor's.
    name = {"fp32": "model", "fp16": "model-fp16", "int8": "model-int8-tensorrt"}[precision]
    height, width = chosen or (None, None)
    planned = Sidecar(
        contract=info.contract,
        input=InputSpec(height, width, settings.batch or (1, 1, 8)),
        outputs=(),
        precision=precision,
        source=Source(info.path.name, info.sha256, info.recipe.name, info.epoch, info.etnet_version),
        quantized_for="tensorrt" if precision == "int8" else None,
    )
    return _Source(folder / f"{name}.onnx", weights, chosen, planned)


def _target(explicit: Path | None, onnx: Path, *, overwrite: bool) -> Path:
    from etnet.errors import UsageError

    target = explicit or onnx.with_suffix(".engine")
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; --output expects a file such as {target / 'model.engine'}")
    if target.suffix not in (".engine", ".plan"):
        raise UsageError(f"{target}: expected a name that ends in .engine or .plan, by which etnet knows an engine")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists already; add --overwrite to replace it, or choose another --output")
    return target


def _export(source: _Source, calibration: Path | None, *, overwrite: bool) -> None:
    """Write the ONNX file, unless the one that is there came from the same weights in the same way."""
    from etnet.cli.export import calibration_images
    from etnet.errors import UsageError
    from etnet.export.checked import ExportRequest, export_checked
    from etnet.manifest import read_weights_info

    weights, planned, onnx = source.weights, source.planned, source.onnx
    if weights is None or planned is None:
        raise ValueError("an ONNX file is not exported again")
    if onnx.exists() and not overwrite:
        if planned.precision != "int8" and _is_same_export(onnx, planned):
            note(f"Using {onnx}, which was exported from these weights")
            return
        raise UsageError(
            f"{onnx}: exists already and would be replaced on the way; build from it with etnet build-engine "
            f"{shlex.quote(str(onnx))}, or add --overwrite"
        )
    info = read_weights_info(weights)
    note(f"Exporting {weights} as {planned.precision} to {onnx}")
    images = calibration_images(info, calibration, source.size)
    request = ExportRequest(
        weights, onnx, planned.precision, source.size, planned.input.batch, images, quantized_for="tensorrt"
    )
    export_checked(request, ())


def _is_same_export(onnx: Path, planned: Sidecar) -> bool:
    from etnet import __version__
    from etnet.onnx_sidecar import describe_onnx

    found = describe_onnx(onnx)
    return (
        found.source.weights_sha256 == planned.source.weights_sha256
        and found.source.etnet_version == __version__
        and found.precision == planned.precision
        and found.input.size == planned.input.size
    )


def _images(source: _Source, folder: Path | None) -> list[ComparisonImage]:
    from etnet.cli.export import comparison_images, tell_regions
    from etnet.export.images import load_folder
    from etnet.manifest import read_weights_info
    from etnet.onnx_sidecar import describe_onnx
    from etnet.trt.driver import ask_driver

    if not ask_driver().gpus:
        # Nothing will be compared, so images that are not there must not stop the build.
        return []
    if source.weights is not None:
        return comparison_images(read_weights_info(source.weights), folder, source.size)
    if folder is None:
        return []
    sidecar = describe_onnx(source.onnx)
    tell_regions(folder, sidecar.contract)
    return load_folder(folder, sidecar.contract, sidecar.input.size)


def _build(prepared: PreparedBuild, source: _Source, images: list[ComparisonImage], max_drop: float) -> BuiltEngine:
    from etnet.export.engine import build_checked

    where = prepared.gpu.name if prepared.gpu else ", ".join(prepared.targets)
    note(f"Building {prepared.output} from {source.onnx} with {prepared.library.title} for {where}")
    with progress_bar(unit="steps") as bar:
        return build_checked(prepared, source.weights or source.onnx, images, max_drop=max_drop, observer=_Bars(bar))


class _Bars:
    """A bar for every phase of a build that is under way."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def phase_started(self, name: str, parent: str | None, steps: int) -> None:
        depth = 0 if parent is None else 1
        self._tasks[name] = self._bar.add_task("  " * depth + name, total=max(steps, 1))

    def step_done(self, name: str, step: int) -> None:
        if name in self._tasks:
            self._bar.update(self._tasks[name], completed=step + 1)

    def phase_finished(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._bar.remove_task(task)


def _print_plan(prepared: PreparedBuild, source: _Source) -> None:
    rows = [("Would build", str(prepared.output))]
    if source.planned is not None:
        rows.append(("Would export", f"{source.weights} to {source.onnx}"))
    else:
        rows.append(("From", str(source.onnx)))
    rows += [
        ("With", prepared.library.title),
        ("For", prepared.gpu.name if prepared.gpu else ", ".join(prepared.targets)),
        ("Precision", prepared.precision),
        *input_rows(prepared.input),
    ]
    rows += [(name.replace("_", " ").capitalize(), str(value)) for name, value in prepared.settings.recorded().items()]
    print_rows(rows)


def _print_summary(built: BuiltEngine) -> None:
    from etnet.cli.export import figures

    sidecar, engine = built.sidecar, built.sidecar.engine
    if engine is None:
        raise ValueError("the sidecar of an engine describes one")
    shares = ", ".join(f"{share:.0%} {name}" for name, share in engine.layer_precisions.items())
    rows = [
        ("Library", f"{engine.library} {engine.library_version}"),
        ("Runs on", engine.gpu or ", ".join(engine.targets)),
        ("Precision", f"{sidecar.precision} (layers: {shares or 'not told by the library'})"),
        *input_rows(sidecar.input),
        ("File", f"{(sidecar.file_bytes or 0) / 1e6:.1f} MB"),
    ]
    if built.comparison is None:
        rows.append(("Compared", f"NO: {built.not_compared}"))
    else:
        rows += figures(built.comparison)
    print_rows(rows)


def input_rows(spec: InputSpec) -> list[tuple[str, str]]:
    """Rows of a summary that say what a model takes."""
    if spec.size is not None:
        size = f"{spec.size[0]}x{spec.size[1]}"
    elif spec.size_profile is not None:
        size = "{}x{}, {}x{} at best, {}x{}".format(*(number for pair in spec.size_profile for number in pair))
    else:
        size = "any"
    smallest, best, largest = spec.batch
    return [("Input", size), ("Batch", f"{smallest} to {largest}, best {best}")]


def _as_values(sidecar: Sidecar, target: Path) -> dict[str, Any]:
    import json

    return {"path": str(target), **json.loads(sidecar.to_json())}


def _next_command(target: Path, built: BuiltEngine) -> str:
    model = shlex.quote(str(target))
    return f"etnet inspect {model}" if built.comparison is None else f"etnet infer YOUR_IMAGES --model {model}"
