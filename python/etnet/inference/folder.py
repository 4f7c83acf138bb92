"""Prediction of many inputs: one bad file stops no other, no file is ever half written, and a run can go on.

Images are read in displayed geometry (EXIF orientation applied) and results have that geometry. A volume is predicted
slice by slice, and its mask and edges are volumes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etnet.errors import EnvironmentFault
from etnet.inference.inputs import InputItem, Inputs
from etnet.inference.journal import Journal, part_suffix, read_journal, run_key
from etnet.inference.measurements import MeasuredImage, Measurements, write_measurements
from etnet.inference.pipeline import Pipeline, Step, Work
from etnet.inference.predictor import ImagePredictor
from etnet.inference.result_files import OutputChoice, ResultWriter
from etnet.inference.results import RESULT_FOLDERS, Failure, ImageResult, Result
from etnet.output import LEFTOVER, write_csv

FAILED_COLUMNS = ("file", "reason")

RESULTS_VERSION = 1
"""Raised when results of a new version of etnet must not stand beside those of an old one."""


@dataclass(frozen=True)
class Resumption:
    """What becomes of results that are in the output folder already.

    Attributes:
        keeps: Keep those that are complete; otherwise they are removed first.
        part: (number from 0, count): segment only each count-th input, beside other runs in the same folder; None for
            all.
        settings: What beside model and output choice decides how results look, for the journal's run key.
        source: `source_key` of what is segmented, noted in the journal.
    """

    keeps: bool = False
    part: tuple[int, int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class FolderOutcome:
    """What a run did.

    Attributes:
        journal: All results, also those of earlier runs that were kept.
        unreadable: (folder, reason) of folders that could not be listed.
        done: Inputs with a mask.
        failed: Inputs without one, and unreadable folders.
        kept: Of `done`, those of earlier runs.
        seconds: Time that this run took.
        part: Number and count of the part that was segmented; None for a whole run.
    """

    journal: Path
    unreadable: tuple[tuple[str, str], ...]
    done: int
    failed: int
    kept: int
    seconds: float
    part: tuple[int, int] | None = None

    def results(self) -> Iterator[Result]:
        """All results in the order of the inputs, read from the journal."""
        return read_journal(self.journal)

    def images(self) -> Iterator[ImageResult]:
        """The inputs with a mask."""
        return (result for result in self.results() if isinstance(result, ImageResult))

    def failures(self) -> Iterator[tuple[str, str]]:
        """(file, reason) of what could not be segmented."""
        yield from self.unreadable
        yield from ((result.file, result.reason) for result in self.results() if isinstance(result, Failure))


class StepSource(Protocol):
    """What segments inputs: `Pipeline`, or one that spreads them over machines."""

    def run(self, items: Iterable[InputItem]) -> Generator[Step, None, None]:
        """See `Pipeline.run`."""


def predict_folder(
    predictor: ImagePredictor,
    inputs: Inputs,
    output: Path,
    *,
    choice: OutputChoice | None = None,
    work: Work | None = None,
    resumption: Resumption | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    source: Callable[[Journal], StepSource] | None = None,
) -> FolderOutcome:
    """Write masks and what else is asked for, `measurements.csv`, `failed.csv` and the journal.

    Args:
        predictor: Network with its contract.
        inputs: What `find_inputs` found.
        output: Existing folder for the results.
        choice: What is written beside masks.
        work: How the work is spread.
        resumption: What becomes of results that are there already, and which part of the inputs this run takes.
        on_step: Told of each input when it is done or has failed.
        on_note: Told in a sentence what the user should know at the start.
        source: Makes what segments the inputs and writes their files; None takes a `Pipeline` in this process.

    Raises:
        UsageError: Another run is writing here.
        EnvironmentFault: The disk refuses to write or the device fails; what is complete stays, and a later run can
            keep it.
    """
    choice, work, resumption = choice or OutputChoice(), work or Work(), resumption or Resumption()
    part = resumption.part
    items = inputs.items if part is None else inputs.items[part[0] :: part[1]]
    # Folders that cannot be listed are told once, by the first part.
    unreadable = inputs.unreadable if part is None or part[0] == 0 else ()
    start, kept = time.perf_counter(), 0
    key = _key(predictor, choice, work, resumption.settings)
    with Journal(output, key=key, part=part, source=resumption.source) as journal:
        if not resumption.keeps:
            journal.clear()
        elif journal.others and on_note is not None:
            on_note(_others_sentence(journal))
        if part is None:
            _remove_outdated(output)
        try:
            with closing(_source(predictor, journal, choice, work, source).run(items)) as steps:
                kept = _note_steps(steps, journal, on_step)
        except BaseException:
            # On a full disk the first error is the one to report.
            with contextlib.suppress(EnvironmentFault):
                _write_tables(journal, unreadable, output, part)
            raise
        journal.finish(item.id for item in items)
        done, failed = _write_tables(journal, unreadable, output, part)
        if part is None:
            # Once more: other machines may have been killed meanwhile.
            _remove_outdated(output)
        seconds = time.perf_counter() - start
        return FolderOutcome(journal.path, unreadable, done, failed, kept, seconds, part)


def _note_steps(steps: Iterable[Step], journal: Journal, on_step: Callable[[Step], None] | None) -> int:
    """Write the journal as steps come, and count the results that were kept."""
    kept = 0
    for step in steps:
        if step.is_new:
            journal.append(step.result)
        kept += not step.is_new
        if on_step is not None:
            on_step(step)
    return kept


def _source(
    predictor: ImagePredictor,
    journal: Journal,
    choice: OutputChoice,
    work: Work,
    source: Callable[[Journal], StepSource] | None,
) -> StepSource:
    if source is not None:
        return source(journal)
    writer = ResultWriter(journal.folder, predictor.contract, choice)
    return Pipeline(predictor, writer, work, finished=journal.finished)


def _key(predictor: ImagePredictor, choice: OutputChoice, work: Work, settings: Mapping[str, Any]) -> str:
    description = predictor.description.to_dict() if predictor.description else {}
    decisive = {
        "model": description.get("sha256"),
        "contract": asdict(predictor.contract),
        "version": RESULTS_VERSION,
        "outputs": vars(choice),
        "plane": work.plane,
        **settings,
    }
    return run_key(decisive)


def _others_sentence(journal: Journal) -> str:
    return (
        f"{journal.others} of {len(journal)} results in {journal.folder} were made with another model or other "
        "settings and are made again"
    )


def _write_tables(
    journal: Journal, unreadable: Iterable[tuple[str, str]], output: Path, part: tuple[int, int] | None
) -> tuple[int, int]:
    """Write both tables, and count what is done and what failed."""
    failures = [*unreadable]
    listed = len(failures)
    failures += [(result.file, result.reason) for result in journal.results() if isinstance(result, Failure)]

    def rows() -> Iterator[MeasuredImage]:
        for result in journal.results():
            if isinstance(result, ImageResult):
                about: Measurements = {
                    "boundary_uncertainty": result.uncertainty,
                    "quality_flags": " ".join(result.quality_flags),
                }
                yield MeasuredImage(result.file, result.height, result.width, about | result.measurements)

    write_csv(output / f"failed{part_suffix(part)}.csv", FAILED_COLUMNS, failures)
    write_measurements(output / f"measurements{part_suffix(part)}.csv", rows)
    return len(journal) - (len(failures) - listed), len(failures)


def _remove_outdated(output: Path) -> None:
    """Remove what is written anew at the end, tables of parts, and temporary files of killed processes."""
    names = ("report.html", "summary.json", "failed.part-*.csv", "measurements.part-*.csv", "summary.part-*.json")
    outdated = [path for name in names for path in output.glob(name)]
    outdated += [path for path in output.glob(".*.part*") if LEFTOVER.fullmatch(path.name)]
    for folder in RESULT_FOLDERS:
        outdated += [path for path in (output / folder).rglob(".*.part*") if LEFTOVER.fullmatch(path.name)]
    for path in outdated:
        path.unlink(missing_ok=True)
