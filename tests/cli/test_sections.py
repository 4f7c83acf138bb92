from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from etnet.cli.main import COMMANDS, main
from etnet.cli.sections import SectionedCommand

LOADED = {name: main.get_command(click.Context(main), name) for name in COMMANDS}
SECTIONED = [name for name, command in LOADED.items() if isinstance(command, SectionedCommand)]
MANY = 15


def test_commands_with_many_options_have_sections() -> None:
    options = {
        name: sum(isinstance(parameter, click.Option) for parameter in command.params)
        for name, command in LOADED.items()
        if command is not None
    }
    assert {name for name, count in options.items() if count >= MANY} <= set(SECTIONED)


@pytest.mark.parametrize("name", SECTIONED)
def test_every_option_is_in_one_section_and_listed_once(name: str) -> None:
    command = LOADED[name]
    assert isinstance(command, SectionedCommand)
    named = [option for options in command.sections.values() for option in options]
    assert sorted(named) == sorted({option.opts[0] for option in command.params if isinstance(option, click.Option)})
    text = CliRunner().invoke(main, [name, "--help"]).output
    headings = re.findall(r"^([A-Z][^\n]*):$", text, flags=re.MULTILINE)
    assert headings == [*command.sections, "Other"]
    listed = re.findall(r"^  (--[a-z0-9-]+)", text, flags=re.MULTILINE)
    assert listed == named
    assert re.search(r"^Other:\n  -h, --help ", text, flags=re.MULTILINE)
