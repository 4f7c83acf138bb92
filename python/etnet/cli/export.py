"""`etnet export`: trained weights as an ONNX file that was compared with PyTorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from etnet.cli.console import closing_lines, infer_or_bundle, newest_model, note, output, progress_bar, warn
from etnet.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from etnet.export.images import RunImages
    from etnet.inference.compare import Comparison, ComparisonImage
    from etnet.manifest import WeightsInfo
    from etnet.sidecar import QuantizedFor, Sidecar
    from etnet.types import Contract

Precision = Literal["fp32", "fp16", "int8"]


class SizeType(click.ParamType[tuple[int, int]]):
    """(height, width) written `584x565`."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse the text of the option."""
        match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", str(value))
        if match is None:
            self.fail(f"{value!r} is no size; expected height x width such as 512x512", param, ctx)
        return int(match[1]), int(match[2])


class BatchType(click.ParamType[tuple[int, int, int]]):
    """Three batch sizes written `1,4,8`."""

    name = "MIN,OPT,MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        """Parse the text of the option."""
        match = re.fullmatch(r"([0-9]{1,6}),([0-9]{1,6}),([0-9]{1,6})", str(value))
        if match is None:
            self.fail(f"{value!r} are no batch sizes; expected three such as 1,4,8", param, ctx)
        return int(match[1]), int(match[2]), int(match[3])


SECTIONS = {
    "Precision": ("--fp16", "--int8", "--int8-for", "--calibration"),
    "Sizes": ("--size", "--dynamic", "--batch"),
    "Check against PyTorch": ("--verify", "--no-verify", "--max-drop", "--device"),
    "Results": ("--output", "--overwrite", "--json"),
}


@click.command(
    "export", cls=SectionedCommand, sections=SECTIONS, short_help="Make an ONNX file that runs without PyTorch."
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--output",
    "output_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="ONNX file to write [default: model.onnx, model-fp16.onnx or model-int8.onnx in the run directory].",
)
@click.option("--fp16", is_flag=True, help="Half precision: half the size, made for GPUs.")
@click.option("--int8", is_flag=True, help="8-bit integers: fastest on processors; needs --calibration.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of 20 to 200 images like those that will be segmented; int8 takes its number ranges from them.",
)
@click.option(
    "--int8-for",
    type=click.Choice(("processor", "tensorrt")),
    default="processor",
    show_default=True,
    help="Which kind of integers: processors and TensorRT want different ones.",
)
@click.option(
    "--size",
    type=SizeType(),
    help="Size of the network's input, multiples of 16 [default: that of the run's images, else 512x512].",
)
@click.option("--dynamic", is_flag=True, help="Take images of all sizes.")
@click.option(
    "--batch",
    type=BatchType(),
    default="1,1,8",
    show_default=True,
    help="Batch sizes of an engine that is built from the file; the file itself takes any.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of images to compare on [default: the run's held-out images].",
)
@click.option("--no-verify", is_flag=True, help="Do not compare with PyTorch.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    metavar="DROP",
    default=0.005,
    show_default=True,
    help="Largest loss of mean foreground Dice against PyTorch.",
)
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where PyTorch runs to compare."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print the file's description to stdout, and nothing else there.")
def command(
    model: Path | None,
    output_file: Path | None,
    fp16: bool,
    int8: bool,
    calibration: Path | None,
    int8_for: QuantizedFor,
    size: tuple[int, int] | None,
    dynamic: bool,
    batch: tuple[int, int, int],
    verify: Path | None,
    no_verify: bool,
    max_drop: float,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export MODEL (a run directory or weights file; by default the newest run) to ONNX.

    \b
    etnet export runs/train/drive
    etnet infer my_images/ --model runs/train/drive/model.onnx

    The file takes 8-bit RGB images and gives labels, edges and probabilities: normalisation, softmax and argmax are
    inside. It is compared with PyTorch on real images before it gets its name; when it loses more than --max-drop, the
    command ends with exit code 5 and leaves no file. Beside it lies FILE.json with classes, sizes, hashes, versions and
    the figures of the comparison; the ONNX metadata hold the same but the last.
    """
    from etnet.errors import UsageError

    require_exporter()
    from etnet.export.checked import ExportRequest, export_checked
    from etnet.manifest import read_weights_info, resolve_model
    from etnet.output import json_text

    precision = _precision(fp16=fp16, int8=int8, calibration=calibration)
    if int8_for != "processor" and not int8:
        raise UsageError(f"--int8-for {int8_for} is used by --int8 only; add --int8 or leave it out")
    require_one_comparison(verify, no_verify=no_verify)
    weights = resolve_model(model or newest_model())
    _require_weights(weights)
    info = read_weights_info(weights)
    target = _target(output_file, weights, precision, overwrite=overwrite)
    chosen = choose_size(info, size, dynamic=dynamic)
    images = [] if no_verify else comparison_images(info, verify, chosen)
    calibrating = calibration_images(info, calibration, chosen)
    request = ExportRequest(weights, target, precision, chosen, batch, calibrating, int8_for)
    note(f"Exporting {weights} as {precision}{_where_compared(images)}")
    with progress_bar() as bar:
        task = bar.add_task("Comparing with PyTorch", total=len(images), visible=bool(images))
        sidecar, comparison = export_checked(
            request, images, max_drop=max_drop, device=device, progress=lambda _: bar.advance(task)
        )
    if as_json:
        click.echo(json_text({"path": str(target), **_as_values(sidecar)}))
    else:
        _print_summary(sidecar, comparison)
    closing_lines(target, infer_or_bundle(target, sidecar.contract, overlay=False), to_stderr=as_json)


def require_exporter() -> None:
    """Refuse to export where a package for it is missing."""
    from importlib.util import find_spec

    from etnet.errors import EnvironmentFault

    missing = [name for name in ("torch", "timm", "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise EnvironmentFault(
            f"exporting needs {', '.join(missing)}, which this machine lacks; install with: pip install 'etnet[train]' "
            "or export where the network was trained and copy the file"
        )


def _precision(*, fp16: bool, int8: bool, calibration: Path | None) -> Precision:
    from etnet.errors import UsageError

    if fp16 and int8:
        raise UsageError("--fp16 and --int8 exclude each other; choose one, or none for fp32")
    if int8 and calibration is None:
        raise UsageError("--int8 needs --calibration DIR with images like those that will be segmented")
    if calibration is not None and not int8:
        raise UsageError("--calibration is used by --int8 only; add --int8 or leave it out")
    return "int8" if int8 else "fp16" if fp16 else "fp32"


def _require_weights(path: Path) -> None:
    from etnet.errors import ModelFileError
    from etnet.inference.backends import choose_backend

    if choose_backend(path) != "torch":
        raise ModelFileError(
            f"{path}: is already a deployed model; etnet export takes the run directory or weights file behind it"
        )


def _target(explicit: Path | None, weights: Path, precision: Precision, *, overwrite: bool) -> Path:
    from etnet.errors import UsageError

    folder = weights.parent.parent if weights.parent.name == "weights" else weights.parent
    target = explicit or folder / ("model.onnx" if precision == "fp32" else f"model-{precision}.onnx")
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; --output expects the name of a file such as {target / 'model.onnx'}")
    if target.suffix != ".onnx":
        raise UsageError(f"{target}: expected a name that ends in .onnx, by which etnet infer knows the kind of file")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists already; add --overwrite to replace it, or choose another --output")
    return target


def choose_size(info: WeightsInfo, size: tuple[int, int] | None, *, dynamic: bool) -> tuple[int, int] | None:
    """The (height, width) to export for, None for free size; what was not chosen is told."""
    from etnet.errors import UsageError
    from etnet.export.images import check_size, suggest_size

    if dynamic and size is not None:
        raise UsageError("--size and --dynamic exclude each other; --dynamic takes images of all sizes")
    if size is not None:
        # Before images are resized to it.
        check_size(size, multiple=info.contract.size_multiple, roi=info.contract.roi)
    if dynamic or size is not None:
        return size
    suggested, reason = suggest_size(info)
    note(f"Size: {suggested[0]}x{suggested[1]} ({reason}); choose another with --size or --dynamic")
    return suggested


def require_one_comparison(verify: Path | None, *, no_verify: bool) -> None:
    """Refuse images to compare on together with the wish not to compare."""
    from etnet.errors import UsageError

    if verify is not None and no_verify:
        raise UsageError("--verify and --no-verify exclude each other; choose one")


def comparison_images(info: WeightsInfo, folder: Path | None, size: tuple[int, int] | None) -> list[ComparisonImage]:
    """The images of a folder, or of the run where none is named.

    Raises:
        DataError: The run's images are not there.
    """
    from etnet.errors import DataError
    from etnet.export.images import load_folder, load_run_images, open_run_images

    if folder is not None:
        tell_regions(folder, info.contract)
        return load_folder(folder, info.contract, size)
    try:
        found: RunImages = open_run_images(info)
    except DataError as error:
        raise DataError(
            f"{error}; name some images to compare on with --verify DIR, or leave the comparison out with --no-verify"
        ) from error
    if found.kind == "training":
        warn("nothing was held out in this run; the comparison is on images that it was trained on")
    return load_run_images(found, info.contract, size, ignore_index=info.recipe.data.ignore_index)


def tell_regions(folder: Path, contract: Contract) -> None:
    """Say how images without masks are taken by a network that segments a region of interest."""
    if contract.roi is not None:
        note(
            f"The network segments regions of interest, and the images of {folder} have no masks to find them by: each "
            f"image is taken as such a region, cut already, and resized to {contract.roi.size}x{contract.roi.size}"
        )


def calibration_images(info: WeightsInfo, folder: Path | None, size: tuple[int, int] | None) -> list[Any]:
    """The images that int8 takes its ranges from."""
    from etnet.export.images import load_folder

    if folder is None:
        return []
    tell_regions(folder, info.contract)
    images = load_folder(folder, info.contract, size)
    note(f"Calibrating with {len(images)} images of {folder}")
    return [item.image for item in images]


def _where_compared(images: list[ComparisonImage]) -> str:
    return f" and comparing it with PyTorch on {len(images)} images" if images else " without comparing it"


def _as_values(sidecar: Sidecar) -> dict[str, Any]:
    import json

    values: dict[str, Any] = json.loads(sidecar.to_json())
    return values


def _print_summary(sidecar: Sidecar, comparison: Comparison | None) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1, 0, 0))
    size = sidecar.input.size
    multiple = sidecar.contract.size_multiple
    table.add_row("Input", f"{size[0]}x{size[1]}" if size else f"any size (padded to multiples of {multiple})")
    table.add_row("Precision", sidecar.precision)
    table.add_row("File", f"{(sidecar.file_bytes or 0) / 1e6:.1f} MB")
    for name, value in figures(comparison):
        table.add_row(name, value)
    output().print(table)


def figures(comparison: Comparison | None) -> list[tuple[str, str]]:
    """Rows of a summary that say how far two networks are from each other."""
    if comparison is None:
        return [("Compared", "no (--no-verify)")]
    rows = [
        ("Compared", f"{comparison.candidate} with {comparison.reference} on {comparison.images} images"),
        ("Labels that differ", f"{100 * comparison.differing_labels:.4f} %"),
    ]
    if comparison.reference_dice is not None and comparison.candidate_dice is not None:
        dice = f"{comparison.candidate_dice:.4f}, PyTorch {comparison.reference_dice:.4f}"
        rows.append(("Mean foreground Dice", dice))
    else:
        rows.append(("Dice between the two", f"{1 - comparison.dice_drop:.4f} (no ground truth)"))
    if comparison.mean_edge_difference is not None:
        rows.append(
            (
                "Edge difference",
                f"mean {comparison.mean_edge_difference / 255:.5f}, "
                f"largest {(comparison.largest_edge_difference or 0) / 255:.3f} of the probability",
            )
        )
    return rows
