"""`etnet data`: which data sets are known, whether a folder is in order, and what training will see of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import closing_lines, counted, note, output, progress_bar

if TYPE_CHECKING:
    from etnet.config.schema import Recipe

DATASETS = ("auto", "folder", "drive", "chase_db1", "stare", "drishti_gs", "refuge", "montgomery", "lung_ct")
DATA_EXIT_CODE = 3

_dataset_option = click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    default="auto",
    show_default=True,
    help="Which data set it is; auto tells it from the names of files and folders.",
)
_recipe_option = click.option(
    "--recipe",
    "recipe_source",
    metavar="NAME|FILE",
    help="How the data is read [default: the built-in recipe of the data set].",
)
_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any recipe key, for instance --set data.mask_values='{0: 0, 255: 1}'. May be repeated.",
)


@click.group("data")
def command() -> None:
    """List known data sets, check a data folder, and see what training will see.

    \b
    etnet data list
    etnet data check DRIVE/
    etnet data preview DRIVE/ --output sheet.png
    """


@command.command("list", short_help="List the data sets that etnet reads as they are downloaded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else there.")
def list_command(as_json: bool) -> None:
    """List the data sets that etnet reads as they are downloaded: content, layout, source, terms.

    Nothing is ever downloaded. The recipe of a data set has its name: etnet train --recipe drive --data DRIVE/
    """
    from dataclasses import asdict

    from etnet.cli.data_report import print_card
    from etnet.data.catalog import CATALOG
    from etnet.output import json_text

    if as_json:
        click.echo(json_text({"datasets": [asdict(card) for card in CATALOG.values()]}))
        return
    for card in CATALOG.values():
        print_card(card)
    output().print(
        "Your own images: a folder with images/ and masks/ of the same names; etnet plan makes the recipe",
        soft_wrap=True,
    )


@command.command("check", short_help="Check a data folder before training on it.")
@click.argument("root", type=click.Path(path_type=Path), metavar="DIR")
@_dataset_option
@_recipe_option
@_set_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON to stdout, and nothing else there.")
@click.pass_context
def check_command(
    ctx: click.Context,
    root: Path,
    dataset: str,
    recipe_source: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check the data folder DIR before training on it.

    Every file is read once. An error is something that training or evaluation refuses, in the same words, or that makes
    a score worthless, such as an image in both parts; a warning is something that may make results misleading. Nothing
    in DIR is changed.

    Exit code: 0 without errors, 3 with errors.
    """
    from etnet.cli.data_report import print_report
    from etnet.data.check import check_dataset
    from etnet.output import json_text

    recipe = _recipe(recipe_source, dataset, overrides)
    with progress_bar(unit="pairs") as bar:
        task = bar.add_task("Checking", total=None)
        report = check_dataset(root, recipe, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        click.echo(json_text(report.to_dict()))
    else:
        print_report(report, recipe_source or report.recipe)
    if report.errors:
        ctx.exit(DATA_EXIT_CODE)


def _recipe(source: str | None, dataset: str, overrides: tuple[str, ...]) -> Recipe | None:
    """The recipe that was asked for; None leaves the choice to the recognised data set."""
    from etnet.config.load import load_recipe
    from etnet.errors import UsageError

    if source is None and dataset == "auto":
        if overrides:
            raise UsageError("--set changes a recipe; name one with --recipe, or the data set with --dataset")
        return None
    recipe = load_recipe(source or dataset, overrides)
    if dataset not in ("auto", recipe.data.dataset):
        raise UsageError(
            f"--dataset {dataset} contradicts recipe {source}, which reads {recipe.data.dataset}; leave one of the two "
            f"away, or add --set data.dataset={dataset}"
        )
    return recipe


@command.command("preview", short_help="Draw images, masks, edges and augmented versions.")
@click.argument("root", type=click.Path(path_type=Path), metavar="DIR")
@_dataset_option
@_recipe_option
@_set_option
@click.option(
    "--output",
    "picture",
    type=click.Path(path_type=Path),
    default="data_preview.png",
    show_default=True,
    metavar="FILE",
    help="PNG to write; an existing one is replaced.",
)
@click.option(
    "--rows", type=click.IntRange(1, 20), metavar="N", default=4, show_default=True, help="Images to show, at most."
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Which images and changes."
)
def preview_command(
    root: Path,
    dataset: str,
    recipe_source: str | None,
    overrides: tuple[str, ...],
    picture: Path,
    rows: int,
    seed: int,
) -> None:
    """Draw a sheet of what training sees of DIR: image, mask, edge ground truth and augmented versions.

    \b
    etnet data preview DRIVE/ --output sheet.png
    """
    from etnet.data.check import locate
    from etnet.data.contact_sheet import contact_sheet
    from etnet.data.datasets import open_dataset
    from etnet.data.file_tree import list_files
    from etnet.data.io import write_png

    home, recipe = locate(list_files(root), _recipe(recipe_source, dataset, overrides))
    samples = open_dataset(recipe.data, home, "all")
    write_png(picture, contact_sheet(samples, recipe, rows=rows, seed=seed))
    note(f"Drew {counted(min(rows, len(samples)), 'image')} of {len(samples)} as recipe {recipe.name} reads them.")
    closing_lines(picture, f"etnet train --recipe {recipe_source or recipe.name} --data {shlex.quote(str(home))}")
