"""Result files: which there are, which are the newest, and how others join them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIRED = ("benchmark", "what", "date", "machine", "versions", "comparisons")
"""Keys without which a file is no result."""

SUITE_STATE = "suite.json"
"""What the suite keeps beside its results."""


class NoResult(ValueError):
    """A file is no result that could be reported; the text says why."""


@dataclass(frozen=True)
class Result:
    """One result file.

    Attributes:
        content: All of it.
    """

    content: dict[str, Any]

    @staticmethod
    def read(path: Path) -> Result:
        """A file that `write_result` wrote, or one with the same keys.

        Raises:
            NoResult: It is something else, or comes from a smoke test.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise NoResult(f"{path}: is not JSON ({error})") from error
        missing = [key for key in REQUIRED if not isinstance(content, dict) or key not in content]
        if missing:
            raise NoResult(f"{path}: is no result of a benchmark, it has no {', '.join(missing)}")
        if content.get("smoke"):
            raise NoResult(f"{path}: comes from a smoke test, which measures nothing")
        return Result(content)

    @property
    def kind(self) -> str:
        """Which benchmark wrote it."""
        return str(self.content["benchmark"])

    @property
    def gpu(self) -> str | None:
        """Name of the GPU that did the work; None where the processor did."""
        names = [gpu["name"] for gpu in self.content.get("gpus", [])]
        device = self.content.get("device", "cuda" if names else "cpu")
        if device == "cpu":
            return None
        return names[0] if names else str(device)

    @property
    def machine(self) -> str:
        """Processor and cores, with the GPU first where it did the work."""
        machine = self.content["machine"]
        cores = machine["cores"]
        processor = f"{machine['processor']}, {cores} core{'s' * (cores != 1)}"
        return processor if self.gpu is None else f"{self.gpu} ({processor})"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Comparisons with a rival."""
        return list(self.content["comparisons"])

    @property
    def identity(self) -> tuple[str, str, str]:
        """Files that share it are measurements of the same, of which the newest counts."""
        return self.kind, str(self.content.get("variant", "")), self.machine

    @property
    def file_name(self) -> str:
        """Its name in the folder of results."""
        words = (self.kind, self.content.get("variant", ""), self.gpu or self.machine, self.content["date"])
        return "_".join(slug(str(word)) for word in words if word) + ".json"


def slug(text: str) -> str:
    """Lower case, with hyphens for what a file name should not have.

    >>> slug("NVIDIA H200, 2 cores"), slug("peers_smp")
    ('nvidia-h200-2-cores', 'peers_smp')
    """
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def read_all(folder: Path) -> list[Result]:
    """The newest result of each benchmark, subject and machine, in the order of their names.

    Raises:
        NoResult: A file is none.
    """
    newest: dict[tuple[str, str, str], Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = Result.read(path)
        held = newest.get(result.identity)
        if held is None or held.content["date"] <= result.content["date"]:
            newest[result.identity] = result
    return sorted(newest.values(), key=lambda result: result.identity)


def add(source: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """Copies the results of a folder under their standard names; one of the same day is replaced, others stay.

    Returns:
        The copies, and for each file that is no result why it was refused.
    """
    copies, refused = [], []
    for path in sorted(source.glob("*.json")):
        if path.name == SUITE_STATE:
            continue
        try:
            result = Result.read(path)
        except NoResult as reason:
            refused.append(str(reason))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copyfile(path, folder / result.file_name)))
    return copies, refused
