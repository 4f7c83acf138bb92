"""`etnet plan`: a recipe for one's own images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import closing_lines, messages, note, output

if TYPE_CHECKING:
    from etnet.planning.planning import Plan
    from etnet.planning.survey import Survey


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
@click.option("--minutes", type=click.FloatRange(min=1), help="How long training may take on this machine.")
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
    reason of every choice beside it. Nothing in DIR is changed.
    """
    from etnet.errors import UsageError
    from etnet.inference.backends.torch_backend import resolve_device
    from etnet.output import json_text, write_text
    from etnet.planning.planning import make_plan
    from etnet.planning.recipe_text import recipe_text

    _require_own_folder(root)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("-._") or "plan"
    path = recipe_file or Path(f"{name}.yaml")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already; name another file with --output, or add --overwrite")
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
    text = recipe_text(name, _head(root, plan), plan.decisions)
    write_text(path, text)
    following = ["etnet", "train", "--recipe", str(path), "--data", str(root)]
    command_line = shlex.join([*following, *([] if device == "auto" else ["--device", device])])
    if as_json:
        click.echo(json_text(_as_json(plan, path)))
    else:
        _print_survey(plan.survey)
        output().print(f"\n{text}", markup=False, soft_wrap=True)
        for advice in plan.survey.advice():
            note(advice)
    closing_lines(path, command_line, to_stderr=as_json)


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


def _head(root: Path, plan: Plan) -> list[str]:
    return [
        f"Made by etnet plan for {plan.survey.pairs} images in {root.resolve().name}. Change what you know better.",
        f"Training takes about {_duration(plan.minutes)} where it was made, at {plan.images_per_second:.1f} images/s, "
        "and scoring beside it.",
    ]


def _duration(minutes: float) -> str:
    """Minutes, or hours with one digit.

    >>> _duration(12.3), _duration(150)
    ('12 minutes', '2.5 hours')
    """
    return f"{max(1, round(minutes))} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def _print_survey(survey: Survey) -> None:
    from rich.table import Table

    (height, width), *others = survey.sizes
    many = f" and {len(others)} other sizes" if others else ""
    kinds = ", ".join(f"{kind} ({count})" if len(survey.kinds) > 1 else kind for kind, count in survey.kinds.items())
    output().print(f"{survey.pairs} images with masks, {width}x{height} pixels{many}, {kinds}", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("structure", "in masks", "% of pixels", "width px", "extent px", "pieces", "holes"):
        table.add_column(heading, justify="left" if heading == "structure" else "right")
    for one in survey.structures:
        table.add_row(
            one.name,
            f"{one.images} of {survey.surveyed}",
            f"{100 * one.share:.2g}",
            str(one.width_px),
            f"{one.extent_px:.0f}",
            "-".join(dict.fromkeys(map(str, one.components))),
            "yes" if one.holes else "no",
        )
    output().print(table)


def _as_json(plan: Plan, path: Path) -> dict[str, object]:
    survey = plan.survey
    return {
        "recipe": str(path),
        "images": survey.pairs,
        "surveyed": survey.surveyed,
        "sizes": [
            {"height": height, "width": width, "images": count} for (height, width), count in survey.sizes.items()
        ],
        "kinds": dict(survey.kinds),
        "structures": [vars(one) for one in survey.structures],
        "decisions": [vars(one) for one in plan.decisions],
        "images_per_second": plan.images_per_second,
        "training_minutes": plan.minutes,
    }
