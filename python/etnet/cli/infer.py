"""`etnet infer`: masks, edges and overlays for every image of a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etnet.cli.console import closing_lines, counted, newest_model, note, output, progress_bar, warn
from etnet.cli.refinement_options import RefinementChoice, refinement_options, settings

if TYPE_CHECKING:
    from etnet.data.volumes import Plane
    from etnet.inference.folder import FolderOutcome
    from etnet.inference.inputs import Inputs
    from etnet.inference.predictor import ImagePredictor, Predictor
    from etnet.inference.refinement import Refinement
    from etnet.inference.two_stage import TwoStagePredictor

RUNS = Path("runs/infer")


@click.command("infer", short_help="Segment every image of a folder.")
@click.argument("folder", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--recursive", is_flag=True, help="Also take the folders below INPUT.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Run directory, weights file, ONNX file, engine or bundle [default: the newest run].",
)
@click.option(
    "--output",
    "output_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Folder for results [default: {RUNS}/NAME].",
)
@click.option("--overlay", is_flag=True, help="Also draw the classes over each image.")
@click.option(
    "--plane",
    type=click.Choice(("axial", "coronal", "sagittal")),
    default="axial",
    show_default=True,
    help="How volumes are cut into slices.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to run.")
@click.option(
    "--backend",
    type=click.Choice(("auto", "torch", "onnxruntime", "openvino", "tensorrt")),
    default="auto",
    show_default=True,
    help="What runs the network; auto chooses by the kind of MODEL.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Processor threads [default: the backend's choice]."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images per network run.")
@refinement_options
@click.option("--overwrite", is_flag=True, help="Write into an --output folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json to stdout, and nothing else there.")
def command(
    folder: Path,
    recursive: bool,
    model: Path | None,
    output_folder: Path | None,
    overlay: bool,
    plane: Plane,
    device: str,
    backend: str,
    threads: int | None,
    batch_size: int,
    overwrite: bool,
    as_json: bool,
    choice: RefinementChoice,
) -> None:
    """Segment images and volumes with trained weights.

    INPUT is a folder, one file, a quoted pattern, or a table with the columns id,path[,spacing_row,spacing_col].

    \b
    etnet infer my_images/ --model runs/train/drive --overlay
    etnet infer 'scans/**/*.nii.gz' --model runs/train/lung_ct --plane axial

    Pictures are png, jpg, tif, bmp, gif and webp; with etnet[medical] also DICOM files with one frame, and NIfTI and
    MetaImage volumes, whose masks are volumes in the same place. Names of patients are never taken out of a file.

    Writes masks/ (class indices as 8-bit palette PNG), edges/ (probability of a boundary times 255), overlays/ with
    --overlay, measurements.csv (areas in pixels and, of optic disc and cup, vertical diameters and their ratio),
    summary.json and failed.csv. Every mask has the size of its image as displayed: the orientation that a camera noted
    (EXIF) is applied. Files that cannot be read, and with a bundle those in which the structure was not found, are
    listed in failed.csv, and the others are still done.

    Masks are the network's own unless --threshold, --largest-component, --min-area, --fill-holes or the model's recipe
    (section postprocess) say otherwise; measurements are of the masks that are written.
    """
    from etnet.inference.folder import predict_folder
    from etnet.inference.inputs import find_inputs
    from etnet.output import check_output_folder, create_output_folder, json_text, write_json

    inputs = find_inputs(folder, recursive=recursive)
    if output_folder is not None:
        check_output_folder(output_folder, overwrite=overwrite)
    opened, network = _open(model or newest_model(), backend=backend, device=device, threads=threads)
    refinement = choice.refinement(network.contract, batch_size=batch_size)
    predictor = _refined(network, refinement)
    note(f"Segmenting with {opened} on {predictor.runs_on}")
    target = create_output_folder(output_folder, parent=RUNS, name=_results_name(folder))
    (target / "summary.json").unlink(missing_ok=True)
    with network, progress_bar() as bar:
        task = bar.add_task("Segmenting", total=len(inputs.items))
        outcome = predict_folder(
            predictor,
            inputs,
            target,
            overlay=overlay,
            batch_size=batch_size,
            plane=plane,
            on_image=lambda _: bar.advance(task),
        )
    summary = _summary(outcome, inputs, predictor, chosen={**_settings(folder), **settings(refinement)})
    write_json(target / "summary.json", summary)
    click.echo(json_text(summary)) if as_json else _print_counts(outcome, inputs)
    closing_lines(target, _next_command(folder, opened, overlay=overlay), to_stderr=as_json)
    _report_failures(outcome, inputs, folder=folder, target=target)


def _open(model: Path, *, backend: str, device: str, threads: int | None) -> tuple[Path, Predictor | TwoStagePredictor]:
    """The file or bundle that MODEL stands for, opened."""
    from etnet.errors import UsageError
    from etnet.inference.bundle import is_bundle
    from etnet.inference.two_stage import open_predictor
    from etnet.manifest import resolve_model

    path = model if is_bundle(model) else resolve_model(model)
    predictor = open_predictor(path, backend=backend, device=device, threads=threads)
    if predictor.needs_center:
        predictor.close()
        raise UsageError(
            f"{path}: segments a region of interest and does not find it; join it with a network that does: etnet "
            f"bundle LOCALIZER {shlex.quote(str(model))} --output DIR"
        )
    return path, predictor


def _refined(network: Predictor | TwoStagePredictor, refinement: Refinement) -> ImagePredictor:
    """The network with what is done around it; it is closed where that cannot be."""
    from etnet.errors import UsageError
    from etnet.inference.refinement import refine

    try:
        return refine(network, refinement)
    except UsageError:
        network.close()
        raise


def _report_failures(outcome: FolderOutcome, inputs: Inputs, *, folder: Path, target: Path) -> None:
    from etnet.errors import DataError, SomeFilesFailed

    if outcome.failed and len(inputs.items) == 1 and inputs.items[0].path == folder:
        raise DataError(outcome.failed[0][1])
    if outcome.failed:
        total = len(inputs.items) + len(inputs.unreadable)
        raise SomeFilesFailed(
            f"{len(outcome.failed)} of {counted(total, 'image')} could not be segmented; "
            f"{target / 'failed.csv'} gives the reason for each, the first is: {outcome.failed[0][1]}"
        )


def _results_name(source: Path) -> str:
    from etnet.inference.inputs import fixed_folder, output_stem

    if source.is_file():
        return source.stem if source.suffix.lower() == ".csv" else output_stem(source.name)
    return fixed_folder(source).resolve().name or "images"


def _settings(source: Path) -> dict[str, Any]:
    """What the user chose, or did not change, for `summary.json`."""
    options = click.get_current_context().params
    names = ("recursive", "plane", "overlay", "device", "backend", "threads", "batch_size")
    return {"input": str(source), **{name: options[name] for name in names}}


def _summary(
    outcome: FolderOutcome, inputs: Inputs, predictor: ImagePredictor, *, chosen: dict[str, Any]
) -> dict[str, Any]:
    from etnet.environment.versions import versions

    results = outcome.to_dict()
    counts = {"found": len(inputs.items), **results.pop("counts"), "skipped_other_files": inputs.skipped}
    return {
        "settings": chosen,
        "model": predictor.description.to_dict() if predictor.description else {},
        "ran_on": predictor.runs_on,
        "versions": versions(),
        "counts": counts,
        **results,
    }


def _print_counts(outcome: FolderOutcome, inputs: Inputs) -> None:
    from etnet.inference.measurements import CUT_OFF

    done = len(outcome.done)
    handled = done + len(outcome.failed)
    rate = f", {outcome.seconds / handled:.2f} s per image" if handled else ""
    skipped = f", {counted(inputs.skipped, 'other file')} skipped" if inputs.skipped else ""
    output().print(
        f"{done} of {counted(len(inputs.items), 'image')} segmented in {outcome.seconds:.1f} s{rate}{skipped}",
        soft_wrap=True,
    )
    cut_off = [item.file for item in outcome.done if item.measurements.get(CUT_OFF)]
    if cut_off:
        warn(
            f"in {counted(len(cut_off), 'image')} the optic disc is cut off by the region of interest or by the image, "
            f"so there is no cup-to-disc ratio ({', '.join(cut_off[:3])}); see {CUT_OFF} in measurements.csv"
        )


def _next_command(folder: Path, opened: Path, *, overlay: bool) -> str:
    model = shlex.quote(str(opened))
    if overlay and (opened.suffix == ".safetensors" or opened.is_dir()):
        # An ONNX file does not say how its data are read.
        recipe = " --recipe RECIPE" if (opened / "segmenter.onnx").is_file() else ""
        return f"etnet evaluate {model} --data LABELLED_DATA{recipe}"
    return f"etnet infer {shlex.quote(str(folder))} --model {model} --overlay"
