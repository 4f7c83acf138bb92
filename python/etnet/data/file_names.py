"""Names of files: their natural order, and what operating systems do to them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_COPY_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<name>.+?) ?\([0-9]+\)",  # browsers, Windows
        r"(?P<name>.+?)(?: [-\u2013])? (?:copy|kopie|copie|copia)(?: \(?[0-9]+\)?)?",  # Windows, macOS
        r"(?P<name>.+?) \((?:copy|another copy|[0-9]+(?:st|nd|rd|th) copy|kopie|copie|copia)(?: [0-9]+)?\)",  # Linux
        r"(?:copy(?: \([0-9]+\))? of|kopie von|copie de|copia de) (?P<name>.+)",  # Google Drive, older systems
    )
)


def natural_key(name: str) -> tuple[object, ...]:
    """Sorting key under which `image_2` comes before `image_10`.

    Example:
        >>> sorted(["b10", "b9", "a"], key=natural_key)
        ['a', 'b9', 'b10']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if position % 2 else (1, part) for position, part in enumerate(parts))


def original_stem(stem: str) -> str | None:
    """The name without what an operating system or browser adds to a copy; None for an ordinary name.

    >>> original_stem("g0001 (1)"), original_stem("Kopie von im0077"), original_stem("im0077.ah")
    ('g0001', 'im0077', None)
    """
    for pattern in _COPY_PATTERNS:
        match = pattern.fullmatch(stem)
        if match is not None:
            return original_stem(match["name"]) or match["name"]
    return None


def how_to_rename(path: Path) -> str:
    """The command that gives a file its original name back, for the end of a sentence."""
    original = path.with_name((original_stem(path.stem) or path.stem) + path.suffix)
    command = f"mv -n {shlex.quote(str(path))} {shlex.quote(str(original))}"
    return f"the operating system seems to have renamed a file; run: {command}"
