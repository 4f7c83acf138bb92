"""`etnet infer`: masks, measurements and a report for every image of a folder, also for runs that take days."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etnet.cli.console import closing_lines, counted, newest_model, note, output, progress_bar, warn
from etnet.cli.folder_options import FolderChoice, folder_options
from etnet.cli.refinement_options import RefinementChoice, refinement_options, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etnet.data.volumes import Plane
    from etnet.inference.folder import FolderOutcome
    from etnet.inference.inputs import Inputs
    from etnet.inference.pipeline import Work
    from etnet.inference.predictor import ImagePredictor, Predictor
    from etnet.inference.ray_cluster import RayPipeline
    from etnet.inference.ray_worker import ModelChoice
    from etnet.inference.refinement import Refinement
    from etnet.inference.two_stage import TwoStagePredictor

RUNS = Path("runs/infer")


@click.command("infer", short_help="Segment every image of a folder.")
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
    from etnet.inference.ray_worker import ModelChoice
    from etnet.output import json_text

    folder_choice.require_sense(output_folder)
    inputs = find_inputs(folder, recursive=recursive)
    earlier = _earlier_results(folder, output_folder, folder_choice)
    opened, network = _open(model or newest_model(), backend=backend, device=device, threads=threads)
    refinement = choice.refinement(network.contract, batch_size=folder_choice.batch_size)
    predictor = _refined(network, refinement)
    note(f"Segmenting with {opened} on {predictor.runs_on}")
    if predictor.contract.training_range is None:
        note("The model does not say how its training images looked: only blank, black and white images are flagged")
    chosen = {**_settings(folder), **folder_choice.settings(), **settings(refinement)}
    with network, _cluster(folder_choice.ray, device):
        target = _target(earlier, output_folder, _results_name(folder))
        model_choice = ModelChoice(opened, backend, device, refinement)
        cluster = _ray_pipeline(model_choice, threads, target, folder_choice, plane)
        outcome = _predict(predictor, inputs, target, folder_choice, plane, settings(refinement), cluster, folder)
    ran_on = (cluster.ran_on if cluster else None) or predictor.runs_on
    summary = _write_summary(outcome, inputs, predictor, target, chosen=chosen, ran_on=ran_on)
    if folder_choice.report and folder_choice.part is None:
        _write_report(outcome, inputs, target, predictor, summary, folder_choice.work(plane))
    click.echo(json_text(summary)) if as_json else _print_counts(outcome, inputs)
    closing_lines(target, _next_command(folder, opened, target, folder_choice), to_stderr=as_json)
    _report_failures(outcome, inputs, folder=folder, target=target)


def _earlier_results(source: Path, output_folder: Path | None, choice: FolderChoice) -> Path | None:
    """The folder with results to go on with, if any; one that must not be touched is refused."""
    from etnet.errors import UsageError
    from etnet.inference.journal import journal_name
    from etnet.output import check_output_folder

    folder = output_folder or (_newest_results(source) if choice.keeps else None)
    if folder is None:
        return None
    has_own, has_whole = ((folder / journal_name(part)).exists() for part in (choice.part, None))
    has_parts = any(folder.glob("journal.part-*.jsonl"))
    if choice.keeps and (has_own or has_whole or has_parts):
        return folder
    if choice.part is not None and has_parts and not has_own and not has_whole:
        return folder
    if not choice.overwrite and (has_own or has_whole or has_parts):
        raise UsageError(
            f"{folder}: holds the results of an earlier run; go on with it by --continue, remove its results by "
            "--overwrite, or choose another --output"
        )
    check_output_folder(folder, overwrite=choice.overwrite)
    return folder


def _newest_results(source: Path) -> Path | None:
    """The newest numbered folder with results of this input; another input of the same name has its own."""
    from etnet.inference.journal import journal_name, journal_source, source_key
    from etnet.output import numbered_folders

    wanted = source_key(source)
    found = numbered_folders(RUNS, _results_name(source))
    return next((folder for folder in found if journal_source(folder / journal_name()) == wanted), None)


def _target(earlier: Path | None, output_folder: Path | None, name: str) -> Path:
    from etnet.output import create_output_folder

    return create_output_folder(earlier or output_folder, parent=RUNS, name=name)


def _predict(
    predictor: ImagePredictor,
    inputs: Inputs,
    target: Path,
    choice: FolderChoice,
    plane: Plane,
    refined_by: Mapping[str, Any],
    cluster: RayPipeline | None,
    source: Path,
) -> FolderOutcome:
    from etnet.inference.folder import Resumption, predict_folder
    from etnet.inference.journal import source_key
    from etnet.inference.pipeline import Step
    from etnet.inference.results import Failure

    failed = 0
    with progress_bar(rate=True) as bar:
        total = len(inputs.items[choice.part_id or 0 :: choice.num_parts])
        task = bar.add_task("Segmenting", total=total, failed="")

        def show(step: Step) -> None:
            nonlocal failed
            failed += isinstance(step.result, Failure)
            bar.update(task, advance=1, failed=f"{failed} failed" if failed else "")

        with _stoppable(target):
            return predict_folder(
                predictor,
                inputs,
                target,
                choice=choice.outputs(),
                work=choice.work(plane),
                resumption=Resumption(choice.keeps, choice.part, dict(refined_by), source_key(source)),
                on_step=show,
                on_note=warn,
                source=cluster.keeping if cluster else None,
            )


@contextmanager
def _stoppable(target: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run inside the block with a word on how to go on, and exit code 130."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        folder = shlex.quote(str(target))
        note(f"Stopped; finished images are kept. Go on with the same command and: --output {folder} --continue")
        click.get_current_context().exit(130)
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def _cluster(address: str | None, device: str) -> Iterator[None]:
    """The Ray cluster of a run with --ray."""
    if address is None:
        yield
        return
    from etnet.inference.ray_cluster import check_address, connected

    check_address(address, device=device)
    # Ray tells of dead workers on stdout, which belongs to the results.
    with redirect_stdout(sys.stderr), connected(address):
        yield


def _ray_pipeline(
    model: ModelChoice, threads: int | None, target: Path, choice: FolderChoice, plane: Plane
) -> RayPipeline | None:
    from etnet.inference.ray_cluster import RayPipeline
    from etnet.inference.ray_worker import WorkerSetup

    if choice.ray is None:
        return None
    setup = WorkerSetup(model, threads, target, choice.outputs(), choice.work(plane), Path.cwd())
    return RayPipeline(setup, address=choice.ray, on_note=warn)


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


def _report_failures(outcome: FolderOutcome, inputs: Inputs, *, folder: Path, target: Path) -> None:
    from etnet.errors import DataError, SomeFilesFailed
    from etnet.inference.journal import part_suffix

    if not outcome.failed:
        return
    first = next(outcome.failures())[1]
    if len(inputs.items) == 1 and inputs.items[0].path == folder:
        raise DataError(first)
    table = target / f"failed{part_suffix(outcome.part)}.csv"
    total = counted(outcome.done + outcome.failed, "image")
    raise SomeFilesFailed(
        f"{outcome.failed} of {total} could not be segmented; {table} gives the reason for each, the first is: {first}"
    )


def _results_name(source: Path) -> str:
    from etnet.inference.inputs import fixed_folder, output_stem

    if source.is_file():
        return source.stem if source.suffix.lower() == ".csv" else output_stem(source.name)
    return fixed_folder(source).resolve().name or "images"


def _settings(source: Path) -> dict[str, Any]:
    """What the user chose, or did not change, for `summary.json`."""
    options = click.get_current_context().params
    names = ("recursive", "plane", "device", "backend", "threads")
    return {"input": str(source), **{name: options[name] for name in names}}


def _write_summary(
    outcome: FolderOutcome,
    inputs: Inputs,
    predictor: ImagePredictor,
    target: Path,
    *,
    chosen: dict[str, Any],
    ran_on: str,
) -> dict[str, Any]:
    from etnet.environment.versions import versions
    from etnet.inference.folder import FAILED_COLUMNS
    from etnet.inference.journal import part_suffix
    from etnet.output import write_json

    summary = {
        "settings": chosen,
        "model": predictor.description.to_dict() if predictor.description else {},
        "ran_on": ran_on,
        "versions": versions(),
        "counts": {
            "found": len(inputs.items) + len(inputs.unreadable),
            "done": outcome.done,
            "failed": outcome.failed,
            "skipped_other_files": inputs.skipped,
        },
        "journal": outcome.journal.name,
        "failed": [dict(zip(FAILED_COLUMNS, row, strict=True)) for row in outcome.failures()],
        "this_run": {"seconds": round(outcome.seconds, 3), "kept": outcome.kept},
    }
    write_json(target / f"summary{part_suffix(outcome.part)}.json", summary)
    return summary


def _write_report(
    outcome: FolderOutcome,
    inputs: Inputs,
    target: Path,
    predictor: ImagePredictor,
    summary: Mapping[str, Any],
    work: Work,
) -> None:
    from etnet.inference.folder_report import write_folder_report

    write_folder_report(
        outcome,
        inputs,
        target,
        contract=predictor.contract,
        summary=summary,
        plane=work.plane,
        threads=work.threads,
    )


def _print_counts(outcome: FolderOutcome, inputs: Inputs) -> None:
    from etnet.inference.measurements import CUT_OFF

    handled = outcome.done + outcome.failed - outcome.kept
    rate = f", {outcome.seconds / handled:.2f} s per image" if handled else ""
    kept = f", {outcome.kept} of them kept from an earlier run" if outcome.kept else ""
    skipped = f", {counted(inputs.skipped, 'other file')} skipped" if inputs.skipped else ""
    total = counted(outcome.done + outcome.failed, "image")
    output().print(
        f"{outcome.done} of {total} segmented in {outcome.seconds:.1f} s{rate}{kept}{skipped}", soft_wrap=True
    )
    cut_off = [image.file for image in outcome.images() if image.measurements.get(CUT_OFF)]
    if cut_off:
        warn(
            f"in {counted(len(cut_off), 'image')} the optic disc is cut off by the region of interest or by the image, "
            f"so there is no cup-to-disc ratio ({', '.join(cut_off[:3])}); see {CUT_OFF} in measurements.csv"
        )


def _next_command(folder: Path, opened: Path, target: Path, choice: FolderChoice) -> str:
    model = shlex.quote(str(opened))
    again = f"etnet infer {shlex.quote(str(folder))} --model {model}"
    if choice.part is not None:
        return f"{again} --output {shlex.quote(str(target))} --continue"
    if choice.overlay and (opened.suffix == ".safetensors" or opened.is_dir()):
        # An ONNX file does not say how its data are read.
        recipe = " --recipe RECIPE" if (opened / "segmenter.onnx").is_file() else ""
        return f"etnet evaluate {model} --data LABELLED_DATA{recipe}"
    return f"{again} --overlay"
