"""`etnet measure`: a table of measurements of masks that were made elsewhere."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import closing_lines, counted, output, progress_bar

if TYPE_CHECKING:
    from etnet.config.schema import Recipe
    from etnet.inference.mask_folder import MeasuredMasks, MeasuringSettings
    from etnet.metrics.optic_nerve import Eye
    from etnet.metrics.scale import Scale

RUNS = Path("runs/measure")
TABLE = "measurements.csv"


@click.command("measure", short_help="Measure the structures in masks.")
@click.argument("masks", type=click.Path(path_type=Path))
@click.option("--recursive", is_flag=True, help="Also take the folders below MASKS.")
@click.option("--recipe", "recipe_source", metavar="NAME|FILE", help="Names, groups and values of the classes.")
@click.option("--classes", metavar="A,B,...", help="Names of the classes instead, the background first.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any recipe key, for instance --set data.mask_values='{0: 0, 255: 1}'. May be repeated.",
)
@click.option("--spacing", metavar="R,C", help="Distance between rows and between columns in mm [default: unknown].")
@click.option("--eye", type=click.Choice(("left", "right")), help="Which eye all masks show [default: unknown].")
@click.option(
    "--field-of-view",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Mask of where vessels can be seen: one for all, or a folder with NAME or NAME_mask for each.",
)
@click.option(
    "--output",
    "table",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help=f"File for the table [default: {RUNS}/NAME/{TABLE}].",
)
@click.option("--overwrite", is_flag=True, help="Replace an --output file, and its ..._failed.csv, that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print settings and values to stdout, and nothing else there.")
def command(
    masks: Path,
    recursive: bool,
    recipe_source: str | None,
    classes: str | None,
    overrides: tuple[str, ...],
    spacing: str | None,
    eye: Eye | None,
    field_of_view: Path | None,
    table: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure the structures in the mask files of the folder MASKS (or in one file).

    \b
    etnet measure runs/infer/eyes/masks --recipe drishti_gs --eye right
    etnet measure my_masks/ --classes background,vessel --spacing 0.01,0.01 --output vessels.csv

    Masks hold class indices, or the values of data.mask_values. Every structure: area, perimeter, equivalent diameter,
    solidity, centroid and bounding box. optic_disc with optic_cup: diameters, cup-to-disc ratios, rim widths, warnings.
    vessel: density, skeleton length, branch points, fractal dimension, tortuosity. lung: area of either side and their
    ratio. Columns end with their unit; mm needs --spacing. Undefined values are empty cells. Files that cannot be read
    are listed in a table beside it (..._failed.csv), and the others are still done.
    """
    from etnet.inference.inputs import find_inputs
    from etnet.inference.mask_folder import MeasuringSettings, measure_masks
    from etnet.output import json_text

    recipe = _recipe(recipe_source, classes, overrides)
    settings = MeasuringSettings(recipe=recipe, scale=_scale(spacing), eye=eye, field_of_view=field_of_view)
    inputs = find_inputs(masks, recursive=recursive)
    if table is not None:
        _check_table(table, overwrite=overwrite)
    with progress_bar(unit="masks") as bar:
        task = bar.add_task("Measuring", total=len(inputs.items))
        outcome = measure_masks(inputs, settings, on_mask=lambda _: bar.advance(task))
    written = _write(outcome, masks, table)
    if as_json:
        click.echo(json_text({"settings": _settings(masks, settings), **outcome.to_dict()}))
    else:
        total = counted(len(inputs.items), "mask")
        output().print(f"{len(outcome.done)} of {total} measured", soft_wrap=True)
    closing_lines(written, _next_command(masks, settings, recipe_source), to_stderr=as_json)
    _report_failures(outcome, masks, written)


def _recipe(source: str | None, classes: str | None, overrides: tuple[str, ...]) -> Recipe:
    """What the masks show: a recipe, or the recipe of a plain folder with the names that were given."""
    from etnet.config.load import builtin_recipes, load_recipe
    from etnet.errors import UsageError

    if (source is None) == (classes is None):
        given = "neither was" if source is None else "both were"
        raise UsageError(
            f"--recipe or --classes has to say what the values in the masks mean, and {given} given; give one, for "
            f"instance --classes background,vessel, or a recipe out of {', '.join(builtin_recipes())}"
        )
    if source is not None:
        return load_recipe(source, overrides)
    names = [name.strip() for name in (classes or "").split(",")]
    if not all(names):
        raise UsageError(f"--classes {classes}: holds an empty name; expected names with commas between them")
    return load_recipe("folder", [f"data.class_names={_yaml_list(names)}", *overrides])


def _yaml_list(names: list[str]) -> str:
    """Names as a list that YAML reads back as they are.

    >>> _yaml_list(["background", "no"])
    '["background", "no"]'
    """
    import json

    return json.dumps(names, ensure_ascii=False)


def _scale(spacing: str | None) -> Scale:
    from etnet.errors import DataError, UsageError
    from etnet.metrics.scale import PIXELS, millimetres

    if spacing is None:
        return PIXELS
    try:
        row, column = (float(part) for part in spacing.split(","))
    except ValueError:
        raise UsageError(
            f"--spacing {spacing}: expected two numbers in mm with a comma between them, the distance between rows and "
            "between columns, for instance --spacing 0.5,0.5"
        ) from None
    try:
        return millimetres(row, column, source=f"--spacing {spacing}")
    except DataError as error:
        raise UsageError(str(error)) from None


def _check_table(table: Path, *, overwrite: bool) -> None:
    from etnet.errors import UsageError

    if table.is_dir():
        raise UsageError(f"{table}: is a folder; --output expects a file, for instance {table / TABLE}")
    for path in (table, _failed_table(table)):
        # The second is replaced or removed, and may be somebody else's.
        if os.path.lexists(path) and not overwrite:
            raise UsageError(f"{path}: exists, so nothing was written; choose another --output, or add --overwrite")
    if _failed_table(table).is_dir():
        raise UsageError(f"{_failed_table(table)}: is a folder, where failed masks are listed; choose another --output")


def _write(outcome: MeasuredMasks, masks: Path, table: Path | None) -> Path:
    from etnet.inference.folder import FAILED_COLUMNS
    from etnet.inference.measurements import write_measurements
    from etnet.output import create_output_folder, disk_faults, write_csv

    if table is None:
        absolute = masks.absolute()
        name = (absolute.stem if masks.is_file() else absolute.resolve().name) or "masks"
        table = create_output_folder(None, parent=RUNS, name=name) / TABLE
    failed = _failed_table(table)
    with disk_faults(table):
        table.parent.mkdir(parents=True, exist_ok=True)
        failed.unlink(missing_ok=True)
    write_measurements(table, lambda: outcome.done)
    if outcome.failed:
        write_csv(failed, FAILED_COLUMNS, outcome.failed)
    return table


def _failed_table(table: Path) -> Path:
    return table.with_name(f"{table.stem}_failed.csv")


def _settings(masks: Path, settings: MeasuringSettings) -> dict[str, object]:
    scale, data = settings.scale, settings.recipe.data
    return {
        "input": str(masks),
        "class_names": list(data.class_names),
        "class_groups": {name: list(members) for name, members in data.class_groups.items()},
        "spacing_mm": [scale.row, scale.column] if scale.unit == "mm" else None,
        "eye": settings.eye,
        "field_of_view": None if settings.field_of_view is None else str(settings.field_of_view),
    }


def _next_command(masks: Path, settings: MeasuringSettings, recipe_source: str | None) -> str:
    from etnet.metrics.clinical import CUP

    names = settings.recipe.data.class_names
    chosen = f"--recipe {shlex.quote(recipe_source)}" if recipe_source else f"--classes {shlex.quote(','.join(names))}"
    below = " --recursive" if click.get_current_context().params["recursive"] else ""
    again = f"etnet measure {shlex.quote(str(masks))}{below} {chosen}"
    if settings.scale.unit == "px":
        return f"{again} --spacing ROW_MM,COLUMN_MM"
    return f"{again} --eye left|right" if CUP in names and settings.eye is None else f"{again} --json"


def _report_failures(outcome: MeasuredMasks, masks: Path, table: Path) -> None:
    from etnet.errors import DataError, SomeFilesFailed

    if outcome.failed and masks.is_file():
        raise DataError(outcome.failed[0][1])
    if outcome.failed:
        total = len(outcome.done) + len(outcome.failed)
        raise SomeFilesFailed(
            f"{len(outcome.failed)} of {counted(total, 'mask')} could not be measured; {_failed_table(table)} gives "
            f"the reason for each, the first is: {outcome.failed[0][1]}"
        )
