"""Options of `etnet infer` that say what is written, and how a long run is spread and resumed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etnet.errors import UsageError

if TYPE_CHECKING:
    from etnet.inference.pipeline import Work
    from etnet.inference.result_files import OutputChoice, ProbabilityFormat

Command = Callable[..., Any]


@dataclass(frozen=True)
class FolderChoice:
    """What the user chose; see the options."""

    overlay: bool
    edges: bool
    probabilities: ProbabilityFormat | None
    report: bool
    batch_size: int
    jobs: int | None
    keeps: bool
    overwrite: bool
    num_parts: int
    part_id: int | None
    ray: str | None = None

    @property
    def part(self) -> tuple[int, int] | None:
        """Number and count of the part; None for a whole run."""
        return None if self.part_id is None else (self.part_id, self.num_parts)

    def outputs(self) -> OutputChoice:
        """What is written beside masks."""
        from etnet.inference.result_files import OutputChoice

        return OutputChoice(overlay=self.overlay, edges=self.edges, probabilities=self.probabilities)

    def work(self, plane: Any) -> Work:
        """How the work is spread."""
        from etnet.inference.pipeline import Work

        return Work(self.batch_size, self.jobs, plane, probabilities=self.probabilities is not None)

    def settings(self) -> dict[str, Any]:
        """The choice for `summary.json`."""
        return {
            "overlay": self.overlay,
            "save_edges": self.edges,
            "save_probabilities": self.probabilities,
            "batch_size": self.batch_size,
            "jobs": self.jobs,
            "part": self.part,
        }

    def require_sense(self, output: Path | None) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: They do.
        """
        if self.keeps and self.overwrite:
            raise UsageError("--continue keeps results and --overwrite removes them; give one of the two")
        if (self.part_id is None) != (self.num_parts == 1):
            raise UsageError(
                "--num-parts and --part-id: expected both or neither, for instance --num-parts 4 --part-id 0"
            )
        if self.part_id is not None and self.part_id >= self.num_parts:
            raise UsageError(
                f"--part-id {self.part_id}: parts are counted from 0; expected 0 to {self.num_parts - 1} of "
                f"--num-parts {self.num_parts}"
            )
        if self.part_id is not None and output is None:
            raise UsageError("--part-id: all parts write into one folder; name it with --output")


def folder_options(command: Command) -> Command:
    """Give a command these options; it receives them as `folder_choice`, a `FolderChoice`."""

    @functools.wraps(command)
    def with_choice(
        *arguments: Any,
        overlay: bool,
        save_edges: bool,
        save_probabilities: ProbabilityFormat | None,
        no_report: bool,
        batch_size: int,
        jobs: int | None,
        keeps: bool,
        overwrite: bool,
        num_parts: int,
        part_id: int | None,
        ray: str | None,
        **others: Any,
    ) -> Any:
        choice = FolderChoice(
            overlay=overlay,
            edges=save_edges,
            probabilities=save_probabilities,
            report=not no_report,
            batch_size=batch_size,
            jobs=jobs,
            keeps=keeps,
            overwrite=overwrite,
            num_parts=num_parts,
            part_id=part_id,
            ray=ray,
        )
        return command(*arguments, folder_choice=choice, **others)

    decorated: Any = with_choice
    for option in reversed(list(_options())):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _options() -> Iterable[Callable[[Command], Command]]:
    yield click.option("--overlay", is_flag=True, help="Also draw the classes over each image.")
    yield click.option("--save-edges", is_flag=True, help="Also write the probability of a boundary, times 255.")
    yield click.option(
        "--save-probabilities",
        type=click.Choice(("png", "npz")),
        help="Also write class probabilities: 16-bit PNGs (times 65535) or NumPy files; of volumes the latter.",
    )
    yield click.option("--no-report", is_flag=True, help="Leave out report.html.")
    yield click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Images per network run.",
    )
    yield click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads that read, and as many that write [default: half of the processors, at most 8].",
    )
    yield click.option(
        "--continue",
        "keeps",
        is_flag=True,
        help="Go on with a run: keep what is complete by its journal, in --output or the newest folder of this name.",
    )
    yield click.option("--overwrite", is_flag=True, help="Replace the results in an --output folder.")
    yield click.option(
        "--num-parts",
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        help="Share the images among N runs with one --output; join them with a last run with --continue.",
    )
    yield click.option("--part-id", type=click.IntRange(min=0), metavar="K", help="Which of them this is, from 0.")
    yield click.option(
        "--ray",
        is_flag=False,
        flag_value="local",
        metavar="[ADDRESS]",
        help="Segment on a Ray cluster: auto for this machine's, HOST:PORT of its head, or local (also without a "
        "value, as the last option) for one that is started here and ended with the run.",
    )
