"""`etnet evaluate`: scores of trained weights on labelled images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
from rich.console import Console

from etnet.cli.console import closing_lines, counted, infer_or_bundle, newest_model, note, output, progress_bar, warn
from etnet.cli.refinement_options import RefinementChoice, refinement_options, settings
from etnet.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from etnet.config.schema import Recipe
    from etnet.data.dataset import SegmentationDataset
    from etnet.inference.evaluate_regions import RegionEvaluation
    from etnet.inference.predictor import ImagePredictor, Predictor
    from etnet.inference.two_stage import TwoStagePredictor
    from etnet.manifest import WeightsInfo
    from etnet.metrics.report import EvaluationReport
    from etnet.types import Contract

RUNS = Path("runs/evaluate")
SPLITS = ("test", "validation", "train", "all")

HOLD_OUT_KEYS = ("validation_fraction", "fold")
"""Keys of a recipe's data section that, with the seed, say which images are held out."""

Split = Literal["train", "validation", "test", "all"]


SECTIONS = {
    "Images": ("--data", "--recipe", "--split"),
    "Machine": ("--device",),
    "Large images and mirror images": ("--tile", "--overlap", "--tta"),
    "Masks": ("--threshold", "--largest-component", "--min-area", "--fill-holes", "--postprocess"),
    "Results": ("--output", "--overwrite", "--json"),
}


@click.command(
    "evaluate", cls=SectionedCommand, sections=SECTIONS, short_help="Score trained weights on labelled images."
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
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
@refinement_options(by_default=False)
@click.option("--overwrite", is_flag=True, help="Write into an --output folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json to stdout, and nothing else there.")
def command(
    model: Path | None,
    data: Path,
    recipe_source: str | None,
    split: str,
    output_folder: Path | None,
    device: str,
    overwrite: bool,
    as_json: bool,
    choice: RefinementChoice,
) -> None:
    """Score MODEL (a run directory, weights file or bundle; without it the newest run) on labelled images.

    \b
    etnet evaluate runs/train/drive --data DRIVE/
    etnet evaluate runs/train/drive --data DRIVE/ --tta flips

    Each image is scored at its own size. "Pooled" counts the pixels of all images together; "image mean" scores every
    image and averages; both have 95 % bootstrap intervals over images. Data sets with a field of view are scored over
    the whole image and inside it. Boundaries are scored in pixels; classes named optic_disc, optic_cup, vessel or lung
    also by what is measured on them. Prints a summary; writes metrics.json, tables.txt (all scores), per_image.csv and
    overlays/ of the worst and best images.

    A network that segments a region of interest is scored around the true centres. A bundle is scored around the
    centres that it finds, with its localization error, and around the true ones; images in which it finds none count
    as background and are listed.

    Scored are the masks of the network alone. With --tile auto --postprocess they are those that etnet infer writes.
    """
    from etnet.cli.evaluate_summary import summary
    from etnet.inference.refinement import refine
    from etnet.output import check_output_folder, create_output_folder, json_text, write_json

    model = model or newest_model()
    subject = _open_subject(model, recipe_source)
    recipe = subject.recipe
    if output_folder is not None:
        check_output_folder(output_folder, overwrite=overwrite)
    dataset = _open_data(subject, data, cast(Split, split))
    network = subject.load(device)
    refinement = choice.refinement(network.contract, batch_size=1)
    predictor = refine(network, refinement)
    images = f"{counted(len(dataset), 'image')} of {data} ({split})"
    note(f"Scoring {images} with {subject.path} on {predictor.runs_on}{_which_centers(predictor)}")
    evaluation = _score(predictor, dataset, recipe)
    target = create_output_folder(output_folder, parent=RUNS, name=subject.name)
    scored = {"root": str(data), "dataset": recipe.data.dataset, "split": split}
    metrics = _metrics(evaluation, subject, data=scored, prediction=settings(refinement), ran_on=predictor.runs_on)
    write_json(target / "metrics.json", metrics)
    _write_tables(evaluation, target)
    _draw_extremes(evaluation, predictor, dataset, target / "overlays", recipe.data.ignore_index)
    if as_json:
        click.echo(json_text(metrics))
    else:
        output().print(summary(evaluation))
    # A bundle finds the region of interest by itself.
    needed = replace(predictor.contract, roi=None) if not predictor.needs_center else predictor.contract
    closing_lines(target, infer_or_bundle(model, needed), to_stderr=as_json)


@dataclass(frozen=True)
class _Subject:
    """What MODEL stands for.

    Attributes:
        path: Weights file, or folder of a bundle.
        name: What its results are called.
        recipe: How the data are read.
        trained: Headers of its weights.
        described: What `metrics.json` says about it.
        untold: Its ONNX files, which do not say what images they were trained on.
    """

    path: Path
    name: str
    recipe: Recipe
    trained: tuple[WeightsInfo, ...]
    described: dict[str, Any]
    untold: tuple[Path, ...] = ()

    def load(self, device: str) -> Predictor | TwoStagePredictor:
        from etnet.inference.predictor import Predictor
        from etnet.inference.two_stage import TwoStagePredictor

        if self.path.is_dir():
            return TwoStagePredictor.load(self.path, device=device)
        return Predictor.load(self.path, backend="torch", device=device)


def _open_subject(model: Path, recipe_source: str | None) -> _Subject:
    from etnet.inference.bundle import is_bundle
    from etnet.manifest import read_weights_info, resolve_model
    from etnet.output import run_name

    if is_bundle(model):
        return _open_bundle(model, recipe_source)
    weights = resolve_model(model)
    info = read_weights_info(weights)
    described = {"path": str(info.path), "sha256": info.sha256, "recipe": info.recipe.name, "epoch": info.epoch}
    return _Subject(weights, run_name(weights), _recipe(recipe_source, info), (info,), described)


def _open_bundle(folder: Path, recipe_source: str | None) -> _Subject:
    from etnet.errors import UsageError
    from etnet.inference.bundle import read_bundle
    from etnet.manifest import read_weights_info

    bundle = read_bundle(folder)
    stages = (bundle.segmenter, bundle.localizer)
    trained = tuple(read_weights_info(model.path) for model in stages if model.sidecar is None)
    untold = tuple(model.path for model in stages if model.sidecar is not None)
    name = folder.absolute().resolve().name
    if bundle.segmenter.sidecar is None:
        return _Subject(folder, name, _recipe(recipe_source, trained[0]), trained, bundle.to_dict(), untold)
    if recipe_source is None:
        raise UsageError(
            f"{bundle.segmenter.path}: an ONNX file does not say how its data are read; name the recipe, for instance "
            f"with --recipe {bundle.segmenter.source.recipe}"
        )
    recipe = _fitting_recipe(recipe_source, bundle.segmenter.path, bundle.contract)
    return _Subject(folder, name, recipe, trained, bundle.to_dict(), untold)


def _open_data(subject: _Subject, data: Path, split: Split) -> SegmentationDataset:
    """The images to score; ends or warns where the network may know them."""
    from etnet.data.datasets import open_dataset

    dataset = open_dataset(subject.recipe.data, data, split, seed=subject.recipe.training.seed)
    if split == "validation":
        for info in subject.trained:
            _require_held_out(dataset.ids, info)
        for path in subject.untold:
            warn(f"{path} does not say what it was trained on; the held-out images may be among it")
    if split in ("train", "all"):
        warn(f"--split {split} scores images that the network may have been trained on")
    return dataset


def _which_centers(predictor: ImagePredictor) -> str:
    if predictor.contract.roi is None:
        return ""
    return ", around the true centres" if predictor.needs_center else ", around the centres it finds and the true ones"


def _score(
    predictor: ImagePredictor, dataset: SegmentationDataset, recipe: Recipe
) -> EvaluationReport | RegionEvaluation:
    from etnet.inference.evaluate import evaluate
    from etnet.inference.evaluate_regions import evaluate_regions

    regional = predictor.contract.roi is not None
    with progress_bar() as bar:
        passes = 1 if predictor.needs_center or not regional else 2
        task = bar.add_task("Scoring", total=passes * len(dataset))
        return (evaluate_regions if regional else evaluate)(
            predictor,
            dataset,
            class_names=recipe.data.class_names,
            class_groups=recipe.contract().class_groups,
            ignore_index=recipe.data.ignore_index,
            progress=lambda _: bar.advance(task),
        )


def _write_tables(evaluation: EvaluationReport | RegionEvaluation, target: Path) -> None:
    from etnet.cli.evaluate_summary import TABLES
    from etnet.inference.evaluate import write_per_image
    from etnet.inference.evaluate_regions import RegionEvaluation
    from etnet.output import write_text

    write_text(target / TABLES, _all_tables(evaluation))
    if not isinstance(evaluation, RegionEvaluation):
        write_per_image(evaluation, target / "per_image.csv")
        return
    write_per_image(evaluation.report, target / "per_image.csv")
    if evaluation.localization is not None:
        write_per_image(evaluation.true_centers, target / "per_image_true_centers.csv")
        evaluation.localization.write_csv(target / "localization.csv")


def _draw_extremes(
    evaluation: EvaluationReport | RegionEvaluation,
    predictor: ImagePredictor,
    dataset: SegmentationDataset,
    folder: Path,
    ignore_index: int | None,
) -> None:
    from etnet.inference.evaluate_regions import RegionEvaluation, prediction_of
    from etnet.inference.extremes import write_extremes

    report, predict = evaluation, None
    if isinstance(report, RegionEvaluation):
        report, predict = report.report, prediction_of(predictor, ignore_index=ignore_index)
    write_extremes(report, predictor, dataset, folder, ignore_index=ignore_index, predict=predict)


def _all_tables(evaluation: EvaluationReport | RegionEvaluation) -> str:
    """All tables of a report as text in 80 columns, and for a region of interest what centres it is around."""
    from etnet.cli.evaluate_table import centers_text, report_tables
    from etnet.inference.evaluate_regions import RegionEvaluation

    # No colours, though FORCE_COLOR asks for them: this is a file.
    page = Console(file=io.StringIO(), width=80, highlight=False, color_system=None)
    report = evaluation.report if isinstance(evaluation, RegionEvaluation) else evaluation
    for table in report_tables(report):
        page.print(table)
    if isinstance(evaluation, RegionEvaluation):
        page.print(centers_text(evaluation))
    return cast(io.StringIO, page.file).getvalue()


def _recipe(source: str | None, info: WeightsInfo) -> Recipe:
    if source is None:
        note(f"Data: read as '{info.recipe.data.dataset}' by the recipe in the weights; choose another with --recipe")
        return info.recipe
    recipe = _fitting_recipe(source, info.path, info.contract)
    # Another fraction or seed would hold out other images, some of which the network was trained on.
    data = recipe.data.model_copy(update={key: getattr(info.recipe.data, key) for key in HOLD_OUT_KEYS})
    training = recipe.training.model_copy(update={"seed": info.recipe.training.seed})
    return recipe.model_copy(update={"data": data, "training": training})


def _fitting_recipe(source: str, model: Path, contract: Contract) -> Recipe:
    """The recipe of that name, which must be for the model's classes and pixels."""
    from etnet.config.load import load_recipe
    from etnet.errors import ModelFileError, UsageError

    recipe = load_recipe(source)
    # Before any image is opened: the answer needs none.
    if recipe.data.class_names != contract.class_names:
        raise ModelFileError(
            f"{model}: a model for other classes; it was trained for {', '.join(contract.class_names)}, "
            f"recipe {source} has {', '.join(recipe.data.class_names)}"
        )
    if recipe.data.intensity_window != contract.intensity_window:
        raise UsageError(
            f"recipe {source} has data.intensity_window {recipe.data.intensity_window}, but {model} was trained "
            f"with {contract.intensity_window}; give the recipe the same window"
        )
    return recipe


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
    evaluation: EvaluationReport | RegionEvaluation,
    subject: _Subject,
    *,
    data: dict[str, str],
    prediction: dict[str, Any],
    ran_on: str,
) -> dict[str, Any]:
    from etnet import __version__

    return {
        "etnet_version": __version__,
        "model": subject.described,
        "data": data,
        "prediction": prediction,
        "ran_on": ran_on,
        **evaluation.to_dict(),
    }
