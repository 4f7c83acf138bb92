"""`etnet infer`: masks, measurements and a report for every image of a folder, also for runs that take days."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import newest_model, note, warn, was_given
from etnet.cli.folder_options import FolderChoice, folder_options
from etnet.cli.infer_run import FolderRun, ray_cluster, ray_pipeline, segment
from etnet.cli.infer_summary import close_run
from etnet.cli.infer_target import RUNS, create_target, earlier_results
from etnet.cli.refinement_options import RefinementChoice, refinement_options
from etnet.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from etnet.data.volumes import Plane
    from etnet.inference.inputs import Inputs
    from etnet.inference.predictor import ImagePredictor, Predictor
    from etnet.inference.refinement import Refinement
    from etnet.inference.two_stage import TwoStagePredictor


SECTIONS = {
    "Input": ("--recursive", "--plane", "--intensity-window"),
    "Model and machine": ("--model", "--device", "--backend", "--threads", "--batch-size", "--jobs"),
    "Large images and mirror images": ("--tile", "--overlap", "--tta"),
    "Masks": ("--threshold", "--largest-component", "--min-area", "--fill-holes", "--postprocess"),
    "Results": (
        *("--output", "--overlay", "--save-edges", "--save-probabilities"),
        *("--no-report", "--overwrite", "--json"),
    ),
    "Long and shared runs": ("--continue", "--num-parts", "--part-id", "--ray"),
}


@click.command("infer", cls=SectionedCommand, sections=SECTIONS, short_help="Segment every image of a folder.")
@click.argument("folder", metavar="INPUT", type=click.Path(path_type=Path))
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
@click.option("--recursive", is_flag=True, help="Also take the folders below INPUT.")
@click.option(
    "--plane",
    type=click.Choice(("axial", "coronal", "sagittal")),
    default="axial",
    show_default=True,
    help="How volumes are cut into slices.",
)
@click.option(
    "--intensity-window",
    type=(float, float),
    metavar="LOW HIGH",
    help="Values shown as black and as white in images of more than 8 bits [default: as trained].",
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
@refinement_options(by_default=True)
@folder_options
@click.option("--json", "as_json", is_flag=True, help="Print summary.json to stdout, and nothing else there.")
def command(
    folder: Path,
    model: Path | None,
    output_folder: Path | None,
    recursive: bool,
    plane: Plane,
    intensity_window: tuple[float, float] | None,
    device: str,
    backend: str,
    threads: int | None,
    as_json: bool,
    choice: RefinementChoice,
    folder_choice: FolderChoice,
) -> None:
    """Segment images and volumes with trained weights.

    INPUT is a folder, one file, a quoted pattern, or a table with the columns id,path[,spacing_row,spacing_col].

    \b
    etnet infer my_images/ --model runs/train/drive --overlay
    etnet infer 'scans/**/*.nii.gz' --model runs/train/lung_ct --plane axial
    etnet infer my_images/ --model runs/train/drive --continue

    Pictures are png, jpg, tif, bmp, gif and webp; with etnet[medical] also DICOM files with one frame, and NIfTI and
    MetaImage volumes, whose masks are volumes in the same place. Names of patients are never taken out of a file.

    Writes masks/ (class indices as 8-bit palette PNG, in the geometry of the image as displayed), measurements.csv,
    failed.csv, journal.jsonl (a line per image), summary.json and report.html. A file that cannot be read, or in which
    a bundle does not find its structure, is listed in failed.csv, and the others are still done (exit code 6).

    Masks are the network's own unless --threshold, --largest-component, --min-area, --fill-holes or the model's recipe
    (section postprocess) say otherwise; measurements are of the masks that are written.
    """
    from etnet.inference.inputs import find_inputs

    folder_choice.require_sense(output_folder)
    _require_window(intensity_window)
    inputs = find_inputs(folder, recursive=recursive)
    _note_what_has_no_effect(folder, inputs, output_folder)
    earlier = earlier_results(folder, output_folder, folder_choice)
    chosen = model or newest_model()
    opened, network = _open(chosen, backend=backend, device=device, threads=threads)
    refinement = replace(
        choice.refinement(network.contract, batch_size=folder_choice.batch_size), intensity_window=intensity_window
    )
    _warn_of_another_window(intensity_window, network.contract.intensity_window)
    predictor = _refined(network, refinement)
    note(f"Segmenting with {opened} on {predictor.runs_on}")
    if predictor.contract.training_range is None:
        note("The model does not say how its training images looked: only blank, black and white images are flagged")
    with network, ray_cluster(folder_choice.ray, device):
        target = create_target(folder, earlier or output_folder)
        run = FolderRun(folder, inputs, chosen, opened, predictor, refinement, target, folder_choice, plane)
        cluster = ray_pipeline(run, backend=backend, device=device, threads=threads)
        outcome = segment(run, cluster)
    ran_on = (cluster.ran_on if cluster else None) or predictor.runs_on
    close_run(run, outcome, ran_on=ran_on, as_json=as_json)


def _note_what_has_no_effect(source: Path, inputs: Inputs, output_folder: Path | None) -> None:
    """Tell of options that change nothing here: whoever gives one expects that it does."""
    from etnet.data.volumes import volume_suffix

    if was_given("plane") and not any(volume_suffix(item.path) for item in inputs.items):
        note("--plane has no effect: none of the files is a volume")
    if was_given("recursive") and not source.is_dir():
        note("--recursive has no effect: INPUT is no folder")
    if was_given("overwrite") and output_folder is None:
        note("--overwrite has no effect without --output: the results have a new folder")


def _require_window(window: tuple[float, float] | None) -> None:
    from etnet.errors import UsageError

    if window is not None and not -math.inf < window[0] < window[1] < math.inf:
        raise UsageError(f"--intensity-window {window[0]:g} {window[1]:g}: expected LOW below HIGH, both finite")


def _warn_of_another_window(window: tuple[float, float] | None, trained: tuple[float, float] | None) -> None:
    if window is None or window == trained:
        return
    former = "the whole range of the file's type" if trained is None else "{:g} to {:g}".format(*trained)
    warn(
        f"--intensity-window {window[0]:g} {window[1]:g} shows images of more than 8 bits otherwise than the network's "
        f"training did ({former}); look at the overlays before you use the masks"
    )


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
        return refine(
            network,
            refinement,
            on_smaller_batch=lambda size: warn(f"the device has too little memory; going on with batches of {size}"),
        )
    except UsageError:
        network.close()
        raise
