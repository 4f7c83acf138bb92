import importlib

import click
import pytest
from click.testing import CliRunner

from etnet import __version__
from etnet.cli.main import COMMANDS, main
from etnet.errors import DataError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")
    # Options are named in words, not by the types of click.
    assert not [line for line in result.output.splitlines() if " RANGE" in line or " Default: " in line]
    assert isinstance(importlib.import_module(f"etnet.cli.{name.replace('-', '_')}").command, click.Command)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--help"], "Retinal vessels:      etnet train --recipe drive --data DRIVE/"),
        (["train", "--help"], "etnet train --recipe drive --data DRIVE/"),
        (["evaluate", "--help"], "etnet evaluate runs/train/drive --data DRIVE/"),
        (["infer", "--help"], "etnet infer my_images/ --model runs/train/drive --overlay"),
        (["build-engine", "--help"], "etnet build-engine runs/train/drive --fp16 --backend tensorrt-rtx"),
        (["compare", "--help"], "etnet compare runs/evaluate/first runs/evaluate/second"),
        (["inspect", "--help"], "etnet inspect runs/train/drive/model-fp16.engine"),
    ],
    ids=["etnet", "train", "evaluate", "infer", "build-engine", "compare", "inspect"],
)
def test_help_shows_an_example_on_a_line_of_its_own(words: list[str], line: str) -> None:
    shown = CliRunner().invoke(main, words).output.splitlines()
    assert f"  {line}" in shown
    assert not [text for text in shown if "\\b" in text]


def test_help_lists_the_commands_in_the_order_of_a_first_visit() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    positions = [output.index(f"\n  {name} ") for name in COMMANDS]
    assert positions == sorted(positions)


def test_version_is_the_packages() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_an_error_of_etnet_becomes_its_exit_code_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise DataError("a.png: is no image")

    monkeypatch.setattr(importlib.import_module("etnet.cli.infer"), "command", failing)
    result = CliRunner().invoke(main, ["infer"])
    assert result.exit_code == 3
    assert result.stderr == "Error: a.png: is no image\n"
    assert result.stdout == ""
