"""What a suite is told, and one of the commands that it consists of."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.state import PRODUCT, ROOT, SCRIPTS

BENCHMARKS = ROOT / "benchmarks"

PARTS = ("build", "tests", "ops", "infer", "train", "accuracy", "peers")
"""In the order in which they run."""

UNFINISHED = 75
"""Exit code of a step that wants to be given again: what it did is kept, and more time would complete it."""


@dataclass(frozen=True)
class Settings:
    """The command line.

    Attributes:
        out: Where everything goes.
        device: `cpu` or `cuda`.
        smoke: Whether sizes are tiny: that everything works, not how fast.
        minutes: Time in all.
        parts: Those that run.
        data: Folder with DRIVE/, Drishti-GS/ and Montgomery/, or some of them.
        packages: Folder of wheels that this machine lacks.
        encoder_weights: File of an encoder's weights to begin trainings with.
    """

    out: Path
    device: str
    smoke: bool
    minutes: float
    parts: tuple[str, ...]
    data: Path | None = None
    packages: Path | None = None
    encoder_weights: Path | None = None

    @property
    def cuda(self) -> bool:
        """Whether a GPU is measured."""
        return self.device == "cuda"

    @property
    def site(self) -> Path:
        """Where the product is installed that was built here."""
        return self.out / "site"

    @property
    def wheels(self) -> Path:
        """Where the packages of `packages` are installed."""
        return self.out / "packages"

    @property
    def inputs(self) -> Path:
        """What was made to measure on."""
        return self.out / "inputs"

    @property
    def network(self) -> Path:
        """Run folder of the briefly trained network."""
        return self.inputs / "60_steps"

    def environment(self) -> dict[str, str]:
        """Variables of every command: its Python finds what was installed for it."""
        folders = [str(self.site), str(self.wheels), str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
        smoke = {"ETNET_SUITE_SMOKE": "1"} if self.smoke else {}
        return {"PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1", **smoke}

    def to_dict(self) -> dict[str, Any]:
        """For the suite's state."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Step:
    """One command, which is bounded in time and writes `<out>/<name>.json`.

    Attributes:
        name: Also the kind of its result.
        part: The part that it belongs to.
        command: Its words.
        expected: Seconds that it should take on a quiet machine, from which the time of others is told.
        result: Whether it writes a result.
        needs: Sources on which its figures depend.
        left_out: Why it cannot run here; None where it can.
        environment: Variables of its own.
        goes_on: Whether it builds on the result that an earlier attempt left.
    """

    name: str
    part: str
    command: tuple[str, ...]
    expected: float
    result: bool = True
    needs: tuple[str, ...] = (*PRODUCT, *SCRIPTS)
    left_out: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    goes_on: bool = False

    @property
    def least(self) -> float:
        """Seconds under which it is not begun."""
        return self.expected / 3


def script(name: str, *words: object, python: str | Path = sys.executable) -> tuple[str, ...]:
    """The words that run a script of `benchmarks/`."""
    return (str(python), str(BENCHMARKS / name), *map(str, words))


def time_for(step: Step, later: Sequence[Step], left: float) -> float:
    """Seconds for a step of what is left: all that later ones do not need, and at least what it takes.

    Where time is too short for all, the last ones have none, rather than each too little: the next call has theirs.

    >>> one, two = (Step(name, "ops", (), 60) for name in ("one", "two"))
    >>> time_for(one, [two], 200), time_for(one, [two], 90), time_for(two, [], 30)
    (140, 60, 30)
    """
    after = sum(other.expected for other in later)
    return max(left - after, min(step.expected, left))
