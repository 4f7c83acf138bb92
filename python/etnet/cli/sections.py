"""Help that lists many options under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from typing_extensions import override


class SectionedCommand(click.Command):
    """A command whose help lists its options by section.

    Args:
        args: As for `click.Command`.
        sections: Headings in their order, each with its options, such as `--model`; what none names comes last.
        kwargs: As for `click.Command`.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every section."""
        left = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        for heading, names in self.sections.items():
            _write(ctx, formatter, heading, [next(option for option in left if name in option.opts) for name in names])
            left = [option for option in left if not set(option.opts) & set(names)]
        _write(ctx, formatter, "Other", left)


def _write(ctx: click.Context, formatter: click.HelpFormatter, heading: str, options: Sequence[click.Option]) -> None:
    rows = [row for row in (option.get_help_record(ctx) for option in options) if row is not None]
    with formatter.section(heading):
        formatter.write_dl(rows)
