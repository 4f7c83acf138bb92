"""What every benchmark shares: contestants in turns, rows that compare ours with a rival, and the file of a result.

A script here measures, prints and calls `write_result`; `report.py` renders the files, `compare.py` holds two of them
against each other.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from etnet.environment.versions import versions
from etnet.export.benchmark import environment
from etnet.output import write_json

Better = Literal["lower", "higher"]
Task = Callable[[], object]

SMOKE = "ETNET_SUITE_SMOKE"
"""Variable that is set while sizes are tiny: results then say so, and are not reported."""

_STARTED = time.perf_counter()

_ROOT = Path(__file__).resolve().parents[1]
_OF_THIS_MACHINE = {str(_ROOT), tempfile.gettempdir(), os.environ.get("HOME", "/")} - {"", "/"}


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison.

    Attributes:
        name: What ran, with its options: "etnet, exact (sort)", "segmentation_models_pytorch".
        value: Median over the rounds, in the comparison's unit.
        version: Of the rival's package; None for etnet and for code of this repository.
    """

    name: str
    value: float
    version: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Ours beside a rival, measured in turns in one run.

    Attributes:
        subject: What was done: "Lovasz-Softmax, loss and gradient".
        case: On what: "16x2x512x512, float32, random scores".
        unit: Of both values: "ms", "images/s", "MiB".
        better: Which way is better.
        ours: What etnet took.
        theirs: What the rival took.
        ratio: How many times better ours is; below 1 the rival is.
        rounds: Rounds that the medians are of.
        result: How far both computed the same: "equal", "differ by at most 2e-7", "other networks".
        target: Ratio that ours is meant to reach; None without one.
    """

    subject: str
    case: str
    unit: str
    better: Better
    ours: Contestant
    theirs: Contestant
    ratio: float
    rounds: int
    result: str
    target: float | None = None

    @staticmethod
    def of_rounds(
        ours: tuple[str, Sequence[float]],
        theirs: tuple[str, Sequence[float]],
        *,
        version: str | None = None,
        better: Better = "lower",
        **described: Any,
    ) -> Comparison:
        """Medians of both sides, and the median of the rounds' ratios, which a slow moment of the machine moves least.

        Args:
            ours: Name and value of every round.
            theirs: The same of the rival, whose values come from the same rounds.
            version: Of the rival's package.
            better: Which way is better.
            described: The other attributes.

        Raises:
            ValueError: The sides have no rounds, or not the same number.
        """
        (our_name, own), (their_name, other) = ours, theirs
        pairs = list(zip(own, other, strict=True))
        ratios = [rival / mine if better == "lower" else mine / rival for mine, rival in pairs]
        return Comparison(
            better=better,
            ours=Contestant(our_name, statistics.median(own)),
            theirs=Contestant(their_name, statistics.median(other), version),
            ratio=statistics.median(ratios),
            rounds=len(pairs),
            **described,
        )


@dataclass(frozen=True)
class Target:
    """What a figure of ours is meant to reach that is no ratio to a rival; ratios have theirs in the comparison.

    Attributes:
        figure: What it is, with its unit: "memory, samples/s".
        bound: What it is meant to reach.
        value: What was measured; None where it could not be.
        at_least: Whether more is better; otherwise the bound is the most that it may be.
    """

    figure: str
    bound: float
    value: float | None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def to_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {**asdict(self), "met": self.met}


def take_turns(
    tasks: Mapping[str, Task], *, rounds: int, warm_up: int = 1, change_first: bool = False
) -> dict[str, list[float]]:
    """Milliseconds of every task in every round; each round runs all of them, one after the other.

    Args:
        tasks: By name. A task waits for its device before it returns.
        rounds: Rounds that count.
        warm_up: Rounds before them that do not.
        change_first: Whether each round begins with another task: for tasks so short that it matters whether the one
            before left the caches warm.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for number in range(warm_up + rounds):
        first = number % len(names) if change_first else 0
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            tasks[name]()
            if number >= warm_up:
                times[name].append(1000 * (time.perf_counter() - begin))
    return times


def show(comparisons: Iterable[Comparison], targets: Iterable[Target] = ()) -> None:
    """A line for each row and each target."""
    for row in comparisons:
        target = (
            "" if row.target is None else f", target {row.target:g} {'met' if row.ratio >= row.target else 'missed'}"
        )
        print(
            f"{row.subject}, {row.case}: {row.ours.name} {row.ours.value:.4g} {row.unit}, {row.theirs.name} "
            f"{row.theirs.version or ''} {row.theirs.value:.4g} {row.unit}: {row.ratio:.2f}x{target} ({row.result})"
        )
    for aim in targets:
        verdict = {True: "met", False: "missed", None: "not measured"}[aim.met]
        value = "" if aim.value is None else f" {aim.value:.4g}"
        print(f"{aim.figure}:{value}, target {'at least' if aim.at_least else 'at most'} {aim.bound:.4g}: {verdict}")


def write_result(
    path: Path,
    *,
    benchmark: str,
    what: str,
    figures: Mapping[str, Any],
    comparisons: Sequence[Comparison] = (),
    targets: Sequence[Target] = (),
    packages: tuple[str, ...] = (),
) -> None:
    """Write one result file with everything that someone else needs to repeat it.

    Args:
        path: A JSON file; its folder is made.
        benchmark: What kind of result it is: "ops", "peers". The newest file of a kind and machine is reported.
        what: One sentence on what was measured.
        figures: All of them, and the settings: `device` (cpu or cuda), `threads`, `data`. Where a kind is measured on
            several subjects, `variant` tells them apart.
        comparisons: Rows with a rival.
        targets: Those that are no ratios.
        packages: Distributions whose versions matter beside those that are always told.

    Raises:
        DiskFault: The disk refuses.
    """
    described = environment()
    described["versions"] |= versions(packages)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "benchmark": benchmark,
            "what": what,
            "command": command_line(),
            "commit": commit(),
            "seconds": round(time.perf_counter() - _STARTED, 1),
            **described,
            **without_folders(dict(figures)),
            **({"smoke": True} if os.environ.get(SMOKE) else {}),
            "comparisons": [asdict(row) for row in comparisons],
            "targets": [target.to_dict() for target in targets],
        },
    )


def command_line() -> str:
    """How this process was started, without the folders of this machine."""
    parts = Path(sys.argv[0]).parts
    # From the folder benchmarks on, wherever the repository lies; its scripts may be in folders of their own.
    below = parts[len(parts) - parts[::-1].index("benchmarks") :] if "benchmarks" in parts else parts[-1:]
    words = ["python", "/".join(("benchmarks", *below)), *sys.argv[1:]]
    return shlex.join(map(without_folder, words))


def without_folder(word: str) -> str:
    """A word of a command line, whose absolute path is cut to its last part.

    >>> without_folder("/home/me/DRIVE/"), without_folder("model.encoder_weights=/home/me/w.pth"), without_folder("a/b")
    ('DRIVE', 'model.encoder_weights=w.pth', 'a/b')
    """
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else word


def without_folders(value: Any) -> Any:
    """Figures whose texts, such as the reason of a failure, do not say where this machine keeps its files."""
    if isinstance(value, str):
        # The longest first: one may lie in another.
        for folder in sorted(_OF_THIS_MACHINE, key=len, reverse=True):
            value = value.replace(f"{folder}/", "")
        return value
    if isinstance(value, Mapping):
        return {key: without_folders(inner) for key, inner in value.items()}
    return [without_folders(inner) for inner in value] if isinstance(value, list | tuple) else value


def commit() -> str | None:
    """The commit of this repository, with a `+` where tracked files differ from it; None outside of git."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
