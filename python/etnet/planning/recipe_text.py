"""A recipe as a file that people read: sections, values, and the reason of each choice beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import yaml

from etnet.planning.decisions import Decision

_COLUMN = 40
_LONGEST = 120


def recipe_text(name: str, head: Iterable[str], decisions: Sequence[Decision]) -> str:
    """YAML text of a recipe.

    Args:
        name: Of the recipe.
        head: Lines of the comment above it.
        decisions: Keys of the form `section.key`; sections come in the order of their first key.
    """
    lines = [*(f"# {line}".rstrip() for line in head), f"name: {_flow(name)}"]
    sections: dict[str, list[Decision]] = {}
    for decision in decisions:
        sections.setdefault(decision.key.partition(".")[0], []).append(decision)
    for section, members in sections.items():
        lines.append(f"{section}:")
        for member in members:
            lines += _lines(member)
    return "\n".join(lines) + "\n"


def _lines(decision: Decision) -> list[str]:
    """The key with its reason beside it, or above it where the line would be too long."""
    text = f"  {decision.key.partition('.')[2]}: {_flow(decision.value)}"
    if not decision.reason:
        return [text]
    beside = f"{text:{_COLUMN}}  # {decision.reason}"
    return [beside] if len(beside) <= _LONGEST else [f"  # {decision.reason}", text]


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.strip().removesuffix("...").strip()
