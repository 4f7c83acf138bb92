"""`etnet bundle`: a network that finds a structure and one that segments the region around it, in one folder."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import closing_lines, note, print_rows, progress_bar

if TYPE_CHECKING:
    from etnet.inference.bundle import BundleDescription
    from etnet.inference.compare import Comparison, ComparisonImage
    from etnet.manifest import WeightsInfo


@click.command("bundle", short_help="Join a localizer and a segmenter of its region.")
@click.argument("localizer", type=click.Path(path_type=Path))
@click.argument("segmenter", type=click.Path(path_type=Path))
@click.option(
    "--output", "output_folder", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Folder to make."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(("weights", "onnx")),
    help="Kind of both models; onnx exports weights and compares with PyTorch [default: as they are].",
)
@click.option(
    "--structure",
    metavar="NAME",
    help="Class or group of the localizer whose centre is taken [default: its only class].",
)
@click.option(
    "--min-area",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Smallest area that counts as found, as a share of the image's [default: 0.002].",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    metavar="DROP",
    default=0.005,
    show_default=True,
    help="Largest loss of mean foreground Dice against PyTorch with --format onnx.",
)
@click.option("--no-verify", is_flag=True, help="Do not compare exported models with PyTorch.")
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where PyTorch runs to compare."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the bundle's description to stdout, and nothing else there."
)
def command(
    localizer: Path,
    segmenter: Path,
    output_folder: Path,
    kind: str | None,
    structure: str | None,
    min_area: float | None,
    max_drop: float,
    no_verify: bool,
    device: str,
    as_json: bool,
) -> None:
    """Join LOCALIZER and SEGMENTER (run directories, weights or ONNX files) into one folder.

    \b
    etnet bundle runs/train/disc_localizer runs/train/drishti_gs --output glaucoma
    etnet infer fundus_images/ --model glaucoma

    The localizer segments the whole image roughly; the segmenter sees the square around the centre of what it found.
    Images in which the structure is missing, too small, or there twice are reported and not guessed. The folder holds
    copies of both models and bundle.json with their SHA-256; with --format onnx it runs without PyTorch.
    """
    from etnet.environment.versions import versions
    from etnet.inference.bundle import check_stages, choose_structure, require_free, write_bundle
    from etnet.inference.localize import MIN_AREA, LocalizationRule
    from etnet.inference.model_file import ModelDescription
    from etnet.manifest import resolve_model
    from etnet.output import json_text

    require_free(output_folder)
    models = [resolve_model(model) for model in (localizer, segmenter)]
    finds, segments = (ModelDescription.of_file(_require_wanted_kind(model, kind)) for model in models)
    check_stages(finds, segments)
    rule = LocalizationRule(choose_structure(finds, structure), MIN_AREA if min_area is None else min_area)
    with tempfile.TemporaryDirectory(prefix="etnet-bundle-") as drafts:
        if kind == "onnx":
            models = [
                _as_onnx(model, Path(drafts) / f"{stage}.onnx", max_drop=max_drop, verify=not no_verify, device=device)
                for stage, model in zip(("localizer", "segmenter"), models, strict=True)
            ]
        described = write_bundle(models[0], models[1], output_folder, rule=rule, versions=versions())
    if as_json:
        click.echo(json_text(described.to_dict()))
    else:
        print_rows(_rows(described))
    next_command = f"etnet infer YOUR_IMAGES --model {shlex.quote(str(output_folder))} --overlay"
    closing_lines(output_folder, next_command, to_stderr=as_json)


def _require_wanted_kind(model: Path, kind: str | None) -> Path:
    from etnet.errors import UsageError
    from etnet.inference.bundle import require_kind

    require_kind(model)
    if kind == "weights" and model.suffix.lower() == ".onnx":
        raise UsageError(
            f"{model}: is an ONNX file, and --format weights was asked for; give the run or weights that it was "
            "exported from, or leave --format out"
        )
    return model


def _as_onnx(model: Path, target: Path, *, max_drop: float, verify: bool, device: str) -> Path:
    """The model itself where it is an ONNX file, or the file exported from it and compared with PyTorch."""
    if model.suffix.lower() == ".onnx":
        return model
    from etnet.cli.export import require_exporter
    from etnet.export.checked import ExportRequest, export_checked
    from etnet.inference.preprocess import plan, region_contract
    from etnet.manifest import read_weights_info

    require_exporter()
    info = read_weights_info(model)
    contract = region_contract(info.contract)
    # Images keep their own sizes where the contract names none, and those of a folder differ.
    size = None if contract.image_size is None else plan(contract.image_size, contract).padded
    images = _comparison_images(info, size) if verify else []
    note(f"Exporting {model}" + (f" and comparing it with PyTorch on {len(images)} images" if images else ""))
    with progress_bar() as bar:
        task = bar.add_task("Comparing with PyTorch", total=len(images), visible=bool(images))
        request = ExportRequest(model, target, size=size)
        _, comparison = export_checked(
            request, images, max_drop=max_drop, device=device, progress=lambda _: bar.advance(task)
        )
    _tell(comparison)
    return target


def _comparison_images(info: WeightsInfo, size: tuple[int, int] | None) -> list[ComparisonImage]:
    from etnet.errors import DataError
    from etnet.export.images import load_run_images, open_run_images

    try:
        found = open_run_images(info)
        return load_run_images(found, info.contract, size, ignore_index=info.recipe.data.ignore_index)
    except DataError as error:
        raise DataError(
            f"{error}; leave the comparison out with --no-verify, or export each model with etnet export --verify DIR "
            "and give the ONNX files to etnet bundle"
        ) from error


def _tell(comparison: Comparison | None) -> None:
    from etnet.cli.export import figures

    for name, value in figures(comparison):
        note(f"  {name}: {value}")


def _rows(described: BundleDescription) -> list[tuple[str, str]]:
    rule, segments = described.bundle.rule, described.contract
    rows = []
    for name, stage, model in (
        ("Localizer", described.bundle.localizer, described.localizer),
        ("Segmenter", described.bundle.segmenter, described.segmenter),
    ):
        rows.append((name, f"{stage.file}, {model.precision}, recipe {stage.recipe}, epoch {stage.epoch}"))
    rows.append(("Centre of", f"{rule.structure}, at least {rule.min_area:.2%} of the image"))
    if segments.roi is not None:
        rows.append(("Region", f"{segments.roi.side:g} of the image's width, seen at {segments.roi.size} pixels"))
    rows.append(("Classes", ", ".join(segments.class_names)))
    return rows
