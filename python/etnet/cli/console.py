"""What all commands share on the terminal: results on stdout, the rest on stderr, bars only where someone looks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from etnet.types import Contract


def output() -> Console:
    """The console of stdout: results and closing lines."""
    return Console(highlight=False)


def messages() -> Console:
    """The console of stderr: what is being done, warnings, bars."""
    return Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """Print one line about what is being done, on stderr, exactly as given."""
    messages().print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print one warning on stderr."""
    messages().print(Text.assemble(("Warning: ", "yellow"), text), soft_wrap=True)


def was_given(option: str) -> bool:
    """Whether an option of the command that runs, by the name of its parameter, stands on the command line."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def newest_model() -> Path:
    """The newest run directory, for commands that were given none; says which it is.

    Raises:
        UsageError: There is no run.
    """
    from etnet.errors import UsageError
    from etnet.manifest import newest_run

    run = newest_run()
    if run is None:
        raise UsageError(
            "no model was given and runs/train holds no trained run; train one with "
            "'etnet plan YOUR_DATA' and the command that it prints, or try 'etnet demo' first"
        )
    note(f"Model: {run} (the newest run; name another to choose it)")
    return run


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns on stdout; long values are not broken, so that paths can be copied."""
    filled = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in filled), default=0)
    for name, value in filled:
        output().print(Text.assemble((name.ljust(width + 2), "bold"), value), soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def infer_or_bundle(model: Path, contract: Contract, *, overlay: bool = True) -> str:
    """The command that uses a model: one that segments a region of interest needs another that finds it."""
    name = shlex.quote(str(model))
    if contract.roi is not None:
        return f"etnet bundle LOCALIZER {name} --output BUNDLE"
    return f"etnet infer YOUR_IMAGES --model {name}{' --overlay' if overlay else ''}"


def closing_lines(results: Path, next_command: str, *, to_stderr: bool = False) -> None:
    """End a command: where its results are and what to run next.

    Args:
        results: Folder that was written.
        next_command: The command line that usually follows.
        to_stderr: Keep stdout clean for `--json`.
    """
    console = messages() if to_stderr else output()
    # Unwrapped: both lines are made to be copied.
    console.print(Text.assemble(("Results: ", "bold"), str(results)), soft_wrap=True)
    console.print(Text.assemble(("Next: ", "bold"), next_command), soft_wrap=True)


class _Rate(ProgressColumn):
    """How many are done per second, or how many seconds one takes."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


def progress_bar(*, unit: str = "images", rate: bool = False) -> Progress:
    """A progress bar on stderr that shows nothing unless stderr is a terminal.

    Args:
        unit: What is counted.
        rate: Also show the speed and the task's field `failed`.
    """
    console = messages()
    long_run = (_Rate(), TextColumn("[red]{task.fields[failed]}")) if rate else ()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        *long_run,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
