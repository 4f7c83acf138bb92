"""`etnet plan`: a recipe for one's own images."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import closing_lines, counted, messages, note, output

if TYPE_CHECKING:
    from etnet.planning.planning import Plan, PlannedRecipe
    from etnet.planning.survey import Survey

_FEW = 20
_FOLDS = 5


@click.command("plan")
@click.argument("root", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--output",
    "recipe_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Recipe to write [default: <name of DIR>.yaml].",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing recipe.")
@click.option("--classes", metavar="NAMES", help="Classes, the background first: background,exudate,haemorrhage.")
@click.option(
    "--minutes", type=click.FloatRange(min=1), metavar="N", help="How long training may take on this machine."
)
@click.option("--from-scratch", is_flag=True, help="Start the encoder at random, which needs no download.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to train.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found and chosen as JSON to stdout.")
def command(
    root: Path,
    recipe_file: Path | None,
    overwrite: bool,
    classes: str | None,
    minutes: float | None,
    from_scratch: bool,
    device: str,
    as_json: bool,
) -> None:
    """Make a recipe for the images and masks in DIR, which holds the folders images/ and masks/.

    \b
    etnet plan my_folder/
    etnet plan my_folder/ --minutes 60 --classes background,exudate,haemorrhage

    Looks at sizes, values, structures and names, measures how fast this machine trains, and writes a recipe with the
    reason of every choice beside it. Where all structures are one small spot, there are two recipes: one network finds
    it, one segments the square around it. No image and no mask is changed.
    """
    from etnet.inference.backends.torch_backend import resolve_device
    from etnet.output import json_text, write_text
    from etnet.planning.planning import make_plan
    from etnet.planning.recipe_text import recipe_text

    _require_own_folder(root)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("-._") or "plan"
    path = recipe_file or Path(f"{name}.yaml")
    paths = {name: path, f"{name}-localizer": path.with_stem(f"{path.stem}-localizer")}
    _require_free(paths.values(), overwrite=overwrite)
    with messages().status("") as status:
        plan = make_plan(
            root,
            name=name,
            device=resolve_device(device),
            class_names=None if classes is None else [part.strip() for part in classes.split(",")],
            minutes=minutes,
            from_scratch=from_scratch,
            progress=status.update,
        )
    texts = {
        one.recipe.name: recipe_text(one.recipe.name, _head(root, plan, one), one.decisions) for one in plan.recipes
    }
    for part, text in texts.items():
        write_text(paths[part], text)
    if as_json:
        click.echo(json_text(_as_json(plan, paths)))
    else:
        _print_survey(plan.survey)
        for text in texts.values():
            output().print(f"\n{text}", markup=False, soft_wrap=True, end="")
        output().print()
    _advise_on_folds(plan.survey)
    where = [] if device == "auto" else ["--device", device]
    lines = [["etnet", "train", "--recipe", str(paths[part]), "--data", str(root), *where] for part in texts]
    if plan.localizer is not None:
        lines.append(_bundle_command(plan.survey, tuple(texts), f"{name}-bundle"))
    closing_lines(path, " && ".join(map(shlex.join, lines)), to_stderr=as_json)


def _advise_on_folds(survey: Survey) -> None:
    folds = min(_FOLDS, survey.patients or survey.pairs)
    if survey.pairs < _FEW and folds > 1:
        note(f"{survey.pairs} images are few: --fold 1/{folds} to {folds}/{folds} of etnet train show how scores vary.")


def _require_free(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse files that could not be written, before minutes of measuring."""
    from etnet.errors import DiskFault, UsageError

    for path in paths:
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; name another file with --output, or add --overwrite")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it, or name another file with --output")
        if not os.access(path.parent, os.W_OK):
            raise DiskFault(f"{path}: the folder {path.parent} may not be written; name another file with --output")


def _bundle_command(survey: Survey, recipes: tuple[str, ...], name: str) -> list[str]:
    """What joins the runs that training by these recipes will make."""
    from etnet.inference.localize import MIN_AREA
    from etnet.output import numbered_folders
    from etnet.training.run_folder import RUNS

    made = {recipe: len(numbered_folders(RUNS, recipe)) for recipe in recipes}
    runs = [str(RUNS / (f"{recipe}-{earlier + 1}" if earlier else recipe)) for recipe, earlier in made.items()]
    # As far below the smallest spot as the default is below the smallest optic disc.
    smallest = f"{(survey.spot_area or 1.0) / 10:.2g}"
    sought = ["--min-area", smallest] if float(smallest) < MIN_AREA else []
    return ["etnet", "bundle", *runs, *sought, "--output", name]


def _require_own_folder(root: Path) -> None:
    """Refuse a known data set, which has a recipe of its own."""
    from etnet.data.check import recognise
    from etnet.data.file_tree import list_files
    from etnet.errors import UsageError

    dataset = recognise(list_files(root))
    if dataset != "folder":
        raise UsageError(
            f"{root}: is the data set {dataset}, for which there is a recipe already; train with "
            f"etnet train --recipe {dataset} --data {shlex.quote(str(root))}"
        )


def _head(root: Path, plan: Plan, part: PlannedRecipe) -> list[str]:
    role = ""
    if plan.localizer is not None:
        share = 100 * (plan.survey.spot or 0.0)
        does = "finds it." if part is plan.localizer else "segments the square around it."
        role = f"The structures are one spot of at most {share:.0f} % of the width. Of two networks, this one {does}"
    images = counted(plan.survey.pairs, "image")
    return [
        f"Made by etnet plan for {images} in {root.resolve().name}. Change what you know better.",
        *([role] if role else []),
        f"Training takes about {_duration(part.minutes)} where it was made, at {part.images_per_second:.1f} images/s, "
        "and scoring beside it.",
    ]


def _duration(minutes: float) -> str:
    """Minutes, or hours with one digit.

    >>> _duration(0.9), _duration(12.3), _duration(150)
    ('1 minute', '12 minutes', '2.5 hours')
    """
    return counted(max(1, round(minutes)), "minute") if minutes < 100 else f"{minutes / 60:.1f} hours"


def _print_survey(survey: Survey) -> None:
    from rich.table import Table
    from rich.text import Text

    from etnet.planning.survey import WIDTHS

    (height, width), *others = survey.sizes
    many = f" and {counted(len(others), 'other size')}" if others else ""
    kinds = ", ".join(f"{kind} ({count})" if len(survey.kinds) > 1 else kind for kind, count in survey.kinds.items())
    found = f"{counted(survey.pairs, 'image')} with masks, {width}x{height} pixels{many}, {kinds}"
    output().print(found, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("structure", "in masks", "% of pixels", "width px", "extent px", "pieces", "holes"):
        table.add_column(heading, justify="left" if heading == "structure" else "right")
    for one in survey.structures:
        table.add_row(
            Text(one.name),
            f"{one.images} of {survey.surveyed}",
            f"{100 * one.share:.2g}",
            f"over {WIDTHS[-2]}" if one.width_px == WIDTHS[-1] else str(one.width_px),
            f"{one.extent_px:.0f}",
            "-".join(dict.fromkeys(map(str, one.components))),
            "yes" if one.holes else "no",
        )
    output().print(table)


def _as_json(plan: Plan, paths: dict[str, Path]) -> dict[str, object]:
    survey = plan.survey
    return {
        "images": survey.pairs,
        "surveyed": survey.surveyed,
        "sizes": [
            {"height": height, "width": width, "images": count} for (height, width), count in survey.sizes.items()
        ],
        "kinds": dict(survey.kinds),
        "structures": [vars(one) for one in survey.structures],
        "recipes": [
            {
                "file": str(paths[part.recipe.name]),
                "decisions": [vars(one) for one in part.decisions],
                "images_per_second": part.images_per_second,
                "training_minutes": part.minutes,
            }
            for part in plan.recipes
        ],
    }
