"""The `etnet` command: finds a command by name and imports only that one, so that help appears at once."""

from __future__ import annotations

import difflib
import importlib
from typing import IO, Any

import click
from typing_extensions import override

from etnet import __version__
from etnet.errors import EtnetError

COMMANDS = {
    "demo": "Train, evaluate and predict on generated images in about two minutes.",
    "data": "List known data sets, check a data folder, preview it.",
    "plan": "Make a recipe for your own images and the time you have.",
    "train": "Train a network on a data set or on your own folder.",
    "evaluate": "Score a trained network on labelled images.",
    "compare": "Compare two evaluations image by image.",
    "bundle": "Join a network that finds a structure with one that segments it.",
    "infer": "Segment an image or a folder of images.",
    "measure": "Measure masks: areas, cup-to-disc ratio, vessels, lungs.",
    "export": "Make an ONNX file that runs without PyTorch.",
    "build-engine": "Build a TensorRT engine.",
    "benchmark": "Compare formats: size, scores, latency, memory.",
    "reproduce": "Train and score what stands in the paper's tables, beside the paper's numbers.",
    "inspect": "Show what a model file is and whether it runs here.",
    "doctor": "Show what is installed, what works and what is missing.",
}
"""Commands in the order of a first visit, each with its line in the help; `etnet.cli.<name>` holds it."""


class _Reported(click.ClickException):
    """An `EtnetError` as Click shows it: one sentence on stderr and the error's own exit code."""

    def __init__(self, error: EtnetError) -> None:
        super().__init__(str(error))
        # Click reads the exit code from the exception.
        vars(self)["exit_code"] = error.exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.format_message()}", file=file, err=file is None)


class LazyGroup(click.Group):
    """A group that knows its commands by name and loads one when it is called."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"etnet.cli.{cmd_name.replace('-', '_')}").command
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does, but name the nearest command when there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Commands are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of etnet become one sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except EtnetError as error:
            _leave_the_telling_to_another(str(error), error.exit_code)
            raise _Reported(error) from error
        except click.ClickException as error:
            _leave_the_telling_to_another(error.format_message(), error.exit_code)
            raise


def _leave_the_telling_to_another(sentence: str, exit_code: int) -> None:
    """Of several processes that `torchrun` started, one says what all of them found."""
    from etnet.training.launch import leave_the_telling_to_another

    leave_the_telling_to_another(sentence, exit_code=exit_code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="etnet")
def main() -> None:
    """ET-Net: segmentation of medical images with edge guidance.

    \b
    First time here:      etnet demo
    Retinal vessels:      etnet train --recipe drive --data DRIVE/
    Your own images:      etnet plan my_folder/   (with images/ and masks/), then the command it prints
    Something is missing: etnet doctor

    Exit codes: 0 done, 2 wrong usage, 3 data, 4 environment, 5 a check failed, 6 some files failed.
    """
