"""What is wrong with a data folder, in sentences that `etnet data check` collects and training refuses with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etnet.errors import DataError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class PartMissing(DataError):
    """A folder holds no file at all of the part that was asked for: it was not downloaded, or lies elsewhere."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: `error`: training or evaluation refuses, or a score would be worthless; `warning`: results may be
            misleading; `note`: nothing to do.
        rule: Short name of what was looked for, stable for programs that read the JSON report.
        sentence: What, where, got, expected, what to do.
        files: Every file that it is about.
        recipe_lines: Lines of a recipe that would settle it.
    """

    severity: Severity
    rule: str
    sentence: str
    files: tuple[Path, ...] = ()
    recipe_lines: tuple[str, ...] = ()


Report = Callable[[Finding], None]
"""Takes findings while a folder is looked through: a list's `append` to collect them, or `refuse`."""


def refuse(finding: Finding) -> None:
    """Stops at an error; what is used when a data set is opened to be trained on.

    Raises:
        DataError: The finding is an error.
    """
    if finding.severity == "error":
        raise DataError(finding.sentence)


def counted_of(files: Sequence[object], total: int) -> str:
    """How many of how many, for sentences that name one file of several.

    >>> counted_of(["a", "b"], 20)
    '2 of 20'
    """
    return f"{len(files)} of {total}"


def such_files(count: int) -> str:
    """How many files a sentence about the first of them speaks of.

    >>> such_files(1), such_files(12)
    ('1 such file', '12 such files')
    """
    return f"{count} such file" if count == 1 else f"{count} such files"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
