"""`etnet reproduce`: the paper's tables, trained and scored here, beside the paper's numbers."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import click
from rich.text import Text

from etnet.cli.console import closing_lines, counted, note, warn
from etnet.errors import DataError, EnvironmentFault, SomeFilesFailed, UsageError

if TYPE_CHECKING:
    from etnet.cli.train import TrainingDisplay
    from etnet.reproduce.plan import Plan, Run
    from etnet.reproduce.results import TableResult
    from etnet.reproduce.runner import Progress

OUTPUT = Path("runs/reproduce")
SEEDS, QUICK_SEEDS = 3, 1

_Parameters = ParamSpec("_Parameters")


def _stoppable(function: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Ends at Ctrl-C in order too where no run is under way: while the data are read, or the table is written."""

    @functools.wraps(function)
    def until_stopped(*args: _Parameters.args, **options: _Parameters.kwargs) -> None:
        try:
            function(*args, **options)
        except KeyboardInterrupt:
            note("Stopped; what was saved before stays, and the same command goes on from there.")
            click.get_current_context().exit(128 + signal.SIGINT)

    return until_stopped


@click.command(short_help="Train and score what stands in the paper's tables.")
@click.argument("table", type=click.Choice(("table1", "table2", "table3")))
@click.option(
    "--data-root",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with one folder per data set: DRIVE/, Drishti-GS/, Montgomery/, REFUGE/, LUNA/.",
)
@click.option("--only", metavar="NAME,...", help="Data sets to train on, for instance drishti_gs [default: all].")
@click.option("--methods", metavar="NAME,...", help="Rows to train, for instance etnet,unet [default: all].")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Runs per cell [default: {SEEDS}; with --quick {QUICK_SEEDS}].",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images [default: the recipe's]."
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to train.")
@click.option(
    "--quick", is_flag=True, help="Minutes on a CPU: small encoder, few epochs. Shows that it works, no more."
)
@click.option("--small", is_flag=True, help="Small networks that train without a GPU, where there is a recipe.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=OUTPUT,
    show_default=True,
    metavar="DIR",
    help="Folder of runs and tables; what is there is reused.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any recipe key, for every run; for instance --set model.encoder_weights=none. May be repeated.",
)
@click.option(
    "--set-localizer",
    "localizer_overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="The same for the network that finds the optic disc (recipe disc_localizer).",
)
@click.option("--dry-run", is_flag=True, help="List what would be trained, and write nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print table.json (or the dry run) to stdout, nothing else there."
)
@click.pass_context
@_stoppable
def command(
    ctx: click.Context,
    table: str,
    data_root: Path,
    only: str | None,
    methods: str | None,
    seeds: int | None,
    epochs: int | None,
    device: str,
    quick: bool,
    small: bool,
    output: Path,
    overrides: tuple[str, ...],
    localizer_overrides: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train and score the cells of one of the paper's tables, and set them beside the paper's numbers.

    \b
    etnet reproduce table3 --data-root DATA/ --quick
    etnet reproduce table2 --data-root DATA/ --small
    etnet reproduce table2 --data-root DATA/ --only drive,montgomery --methods etnet,unet

    Optic discs are found by a network that is trained first, as `etnet bundle` joins it with each method.
    Runs that are complete are reused and interrupted ones go on, so the same command continues after Ctrl-C or a crash.
    Tables share their runs. Writes table.md, table.csv, table.json and pictures/.
    """
    from etnet.reproduce.plan import Request, make_plan
    from etnet.reproduce.profiles import check_overrides
    from etnet.reproduce.tables import TABLES, chosen

    asked = TABLES[table]
    check_overrides(overrides, localizer_overrides=localizer_overrides)
    if quick and small:
        raise UsageError("--quick and --small are both given; choose one")
    runnable = tuple(method.key for method in asked.methods if method.not_run is None)
    request = Request(
        table=asked,
        data_root=data_root,
        output=output,
        datasets=chosen(only, tuple(dataset.key for dataset in asked.datasets), option="--only"),
        methods=asked.quick_methods if quick and methods is None else chosen(methods, runnable, option="--methods"),
        seeds=seeds or (QUICK_SEEDS if quick else SEEDS),
        device=device,
        profile="quick" if quick else "small" if small else "paper",
        epochs=epochs,
        overrides=overrides,
        localizer_overrides=localizer_overrides,
    )
    plan = make_plan(request)
    if dry_run:
        _show_plan(plan, as_json=as_json)
    else:
        _reproduce(ctx, plan, as_json=as_json)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    from etnet.cli.reproduce_tables import plan_table, plan_values
    from etnet.output import json_text

    if as_json:
        click.echo(json_text(plan_values(plan)))
        return
    from etnet.cli.console import output
    from etnet.reproduce.report import command_line

    _tell_missing(plan)
    output().print(Text(plan.request.table.title, style="bold"))
    output().print(plan_table(plan))
    output().print(Text.assemble(("Next: ", "bold"), command_line(plan.request)), soft_wrap=True)


def _reproduce(ctx: click.Context, plan: Plan, *, as_json: bool) -> None:
    from etnet.cli.console import output
    from etnet.cli.reproduce_tables import result_tables
    from etnet.inference.backends.torch_backend import resolve_device
    from etnet.output import json_text
    from etnet.reproduce.pictures import draw_pictures
    from etnet.reproduce.profiles import BANNERS
    from etnet.reproduce.report import write_report
    from etnet.reproduce.results import collect
    from etnet.reproduce.runner import work_off

    resolve_device(plan.request.device)
    _tell_missing(plan)
    if plan.request.profile in BANNERS:
        warn(BANNERS[plan.request.profile])
    progress = work_off(plan, display=_RunDisplay())
    result = collect(plan)
    # First without pictures: an image that cannot be read any more must not cost the figures.
    write_report(result)
    write_report(result, pictures=draw_pictures(result))
    if as_json:
        click.echo(json_text(result.to_dict()))
    else:
        for shown in result_tables(result):
            output().print(shown)
    _close(ctx, result, progress, as_json=as_json)


def _tell_missing(plan: Plan) -> None:
    from etnet.reproduce.plan import NO_DATA

    for sentence in (*plan.broken.values(), *chain.from_iterable(plan.incomplete.values())):
        warn(sentence)
    missing = {cell.dataset.title: cell.dataset for cell in plan.cells if cell.wanted and cell.absence == NO_DATA}
    for title, dataset in missing.items():
        note(f"No data: {title}; expected {plan.request.data_root / dataset.folders[0]} or the like")


def _close(ctx: click.Context, result: TableResult, progress: Progress, *, as_json: bool) -> None:
    """Counts, where the table is, the next command, and the exit code."""
    from etnet.reproduce.report import command_line

    request = result.plan.request
    reused, finished, failed = len(progress.reused), len(progress.finished), len(progress.failures)
    note(f"{counted(finished, 'run')} trained and scored, {reused} reused, {failed} failed")
    if progress.signal_number is not None:
        note("Stopped; everything so far is saved, and the same command goes on from here.")
        closing_lines(request.folder, command_line(request), to_stderr=as_json)
        ctx.exit(128 + progress.signal_number)
    closing_lines(request.folder, _next_command(result, progress), to_stderr=as_json)
    problems = [f"{title}: {error}" for title, error in progress.failures.items()]
    problems += [sentence for key, sentence in result.plan.broken.items() if key in request.datasets]
    if not problems:
        return
    sentence = f"{counted(len(problems), 'run')} of the table failed, the others are in it; the first is {problems[0]}"
    errors = list(progress.failures.values())
    if len(errors) == len(problems) and all(isinstance(error, EnvironmentFault) for error in errors):
        raise EnvironmentFault(f"{sentence}; where the disk is full, free space, then repeat the command")
    raise SomeFilesFailed(sentence)


def _next_command(result: TableResult, progress: Progress) -> str:
    """Use the network of the last complete cell, which is the paper's own in every table; without one, go on."""
    import shlex

    from etnet.reproduce.report import command_line

    done = [cell for cell in result.cells if cell.scored]
    if not done:
        request = result.plan.request
        unusable = set(result.plan.broken) & set(request.datasets)
        if unusable or any(isinstance(error, DataError) for error in progress.failures.values()):
            return f"etnet data check {shlex.quote(str(request.data_root))}"
        return command_line(request)
    run = done[-1].scored[0]
    network = shlex.quote(str(run.job.train_folder))
    if run.localizer is None:
        return f"etnet infer YOUR_IMAGES --model {network} --overlay"
    localizer = shlex.quote(str(run.localizer.job.train_folder))
    return f"etnet bundle {localizer} {network} --output {shlex.quote(str(run.folder / 'bundle'))}"


class _RunDisplay:
    """Each run under a line of its own, with the bar of `etnet train`."""

    @contextmanager
    def on_run(self, run: Run, *, number: int, total: int) -> Iterator[TrainingDisplay]:
        """Name the run and show its progress."""
        from etnet.cli.train import TrainingDisplay

        note(f"\n[{number}/{total}] {run.title}")
        with TrainingDisplay() as display:
            yield display

    def on_failure(self, run: Run, error: str) -> None:
        """Say what went wrong at once; the table repeats it."""
        warn(f"{run.title}: {error}")
