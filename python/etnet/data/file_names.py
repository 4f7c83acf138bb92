"""Names of files: their natural order, and what operating systems do to them."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
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


_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of Unicode that no line of text holds: control characters, bytes that are no text, ends of lines."""

MOST_NAME_BYTES = 240
"""Length of the longest name for results: file systems take 255, and a suffix such as `.nii.gz` follows."""


def visible_name(name: str) -> str:
    r"""A name as a line of text, with escapes in place of control characters and of bytes that are no text.

    >>> visible_name("a" + chr(10) + "b.png") == r"a\x0ab.png"
    True
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(
        _escaped(character) if unicodedata.category(character) in _NO_TEXT else character for character in name
    )


def _escaped(character: str) -> str:
    raw = os.fsencode(character)
    return "".join(f"\\x{byte:02x}" for byte in raw)


def same_name_key(name: str) -> str:
    """Equal for names that are one name to the file systems of macOS or Windows: letter case, composed accents.

    >>> same_name_key("Caf\u00e9.png") == same_name_key("cafe\u0301.PNG")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


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
