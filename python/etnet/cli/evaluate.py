"""`etnet evaluate`: scores of trained weights on labelled images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from etnet.cli.console import closing_lines, counted, note, output, progress_bar, warn

if TYPE_CHECKING:
    from etnet.config.schema import Recipe
    from etnet.data.dataset import SegmentationDataset
    from etnet.inference.predictor import Predictor
    from etnet.manifest import WeightsInfo
    from etnet.metrics.report import EvaluationReport

RUNS = Path("runs/evaluate")
SPLITS = ("test", "validation", "train", "all")

Split = Literal["train", "validation", "test", "all"]


@click.command("evaluate", short_help="Score trained weights on labelled images.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the data set.")
@click.option(
    "--recipe",
    "recipe_source",
    metavar="NAME|FILE",
    help="Recipe that says how to read the data [default: the one in the weights].",
)
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Which images to score.")
@click.option(
    "--output",
    "output_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Folder for results [default: {RUNS}/RUN].",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to run.")
@click.option("--overwrite", is_flag=True, help="Write into an --output folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json to stdout, and nothing else there.")
def command(
    model: Path,
    data: Path,
    recipe_source: str | None,
    split: str,
    output_folder: Path | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score MODEL (a run directory or weights file) against the ground truth of a data set.

    \b
    etnet evaluate runs/train/drive --data DRIVE/

    Each image is scored at its own size. "Pooled" counts the pixels of all images together; "image mean" scores every
    image and averages; both have 95 % bootstrap intervals over images. Data sets with a field of view are scored over
    the whole image and inside it. Boundaries are scored in pixels; classes named optic_disc, optic_cup, vessel or lung
    also by what is measured on them. Writes metrics.json, per_image.csv and overlays/ of the worst and best images.
    """
    from etnet.data.datasets import open_dataset
    from etnet.inference.evaluate import write_per_image
    from etnet.inference.extremes import write_extremes
    from etnet.inference.predictor import Predictor
    from etnet.manifest import read_weights_info, resolve_model
    from etnet.output import check_output_folder, create_output_folder, json_text, run_name, write_json

    weights = resolve_model(model)
    info = read_weights_info(weights)
    recipe = _recipe(recipe_source, info)
    if output_folder is not None:
        check_output_folder(output_folder, overwrite=overwrite)
    dataset = open_dataset(recipe.data, data, cast(Split, split), seed=info.recipe.training.seed)
    if split == "validation":
        _require_held_out(dataset.ids, info)
    predictor = Predictor.load(weights, backend="torch", device=device)
    if split in ("train", "all"):
        warn(f"--split {split} scores images that the network may have been trained on")
    note(f"Scoring {counted(len(dataset), 'image')} of {data} ({split}) with {weights} on {predictor.backend.name}")
    report = _score(predictor, dataset, recipe)
    target = create_output_folder(output_folder, parent=RUNS, name=run_name(weights))
    metrics = _metrics(report, info, recipe, data=data, split=split, ran_on=predictor.backend.name)
    write_json(target / "metrics.json", metrics)
    write_per_image(report, target / "per_image.csv")
    write_extremes(report, predictor, dataset, target / "overlays", ignore_index=recipe.data.ignore_index)
    if as_json:
        click.echo(json_text(metrics))
    else:
        print_report(report)
    next_command = f"etnet infer YOUR_IMAGES --model {shlex.quote(str(model))} --overlay"
    closing_lines(target, next_command, to_stderr=as_json)


def _score(predictor: Predictor, dataset: SegmentationDataset, recipe: Recipe) -> EvaluationReport:
    from etnet.inference.evaluate import evaluate

    with progress_bar() as bar:
        task = bar.add_task("Scoring", total=len(dataset))
        return evaluate(
            predictor,
            dataset,
            class_names=recipe.data.class_names,
            class_groups=recipe.contract().class_groups,
            ignore_index=recipe.data.ignore_index,
            progress=lambda _: bar.advance(task),
        )


def print_report(report: EvaluationReport) -> None:
    """Print the tables of a report on stdout."""
    from etnet.cli.evaluate_table import report_tables

    console = output()
    for table in report_tables(report):
        console.print(table)


def _recipe(source: str | None, info: WeightsInfo) -> Recipe:
    from etnet.config.load import load_recipe
    from etnet.errors import ModelFileError, UsageError

    if source is None:
        note(f"Data: read as '{info.recipe.data.dataset}' by the recipe in the weights; choose another with --recipe")
        return info.recipe
    recipe = load_recipe(source)
    # Before any image is opened: the answer needs none.
    if recipe.data.class_names != info.contract.class_names:
        raise ModelFileError(
            f"{info.path}: a weights file for other classes; it was trained for "
            f"{', '.join(info.contract.class_names)}, recipe {source} has {', '.join(recipe.data.class_names)}"
        )
    if recipe.data.intensity_window != info.contract.intensity_window:
        raise UsageError(
            f"recipe {source} has data.intensity_window {recipe.data.intensity_window}, but {info.path} was trained "
            f"with {info.contract.intensity_window}; give the recipe the same window"
        )
    # Another fraction (or seed) would hold out other images, some of which the network was trained on.
    same_hold_out = {"validation_fraction": info.recipe.data.validation_fraction}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=same_hold_out)})


def _require_held_out(ids: Sequence[str], info: WeightsInfo) -> None:
    """Refuse to score training images as held out: the hold-out moves when images join or leave the folder."""
    from etnet.errors import DataError

    known = sorted(set(ids) & set(info.training_state.get("training_ids", ())))
    if known:
        raise DataError(
            f"{info.path}: was trained on {len(known)} of the images that are now held out ({', '.join(known[:3])}); "
            "the data folder changed since, so put new images into test/ and use --split test, or train again"
        )


def _metrics(
    report: EvaluationReport, info: WeightsInfo, recipe: Recipe, *, data: Path, split: str, ran_on: str
) -> dict[str, Any]:
    from etnet import __version__

    return {
        "etnet_version": __version__,
        "model": {"path": str(info.path), "sha256": info.sha256, "recipe": info.recipe.name, "epoch": info.epoch},
        "data": {"root": str(data), "dataset": recipe.data.dataset, "split": split},
        "ran_on": ran_on,
        **report.to_dict(),
    }
