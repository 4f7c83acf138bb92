"""The end of `etnet infer`: summary.json, the report, what the terminal says, and the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from etnet.cli.console import closing_lines, counted, output, warn
from etnet.cli.refinement_options import settings

if TYPE_CHECKING:
    from pathlib import Path

    from etnet.cli.infer_run import FolderRun
    from etnet.inference.folder import FolderOutcome

_LOST = frozenset({"blank", "too_dark", "too_bright"})
"""Quality flags of an image whose grey values lie outside the window."""


def close_run(run: FolderRun, outcome: FolderOutcome, *, ran_on: str, as_json: bool) -> None:
    """Write what sums up a run, and tell of it.

    Args:
        run: What was to be done.
        outcome: What was done.
        ran_on: The device or devices, in words.
        as_json: Whether stdout takes summary.json and nothing else.

    Raises:
        SomeFilesFailed: An input could not be segmented, and others were tried.
        DataError: The only input could not be segmented.
    """
    from etnet.output import json_text

    summary = _write_summary(run, outcome, ran_on)
    if run.choice.report and run.choice.part is None:
        _write_report(run, outcome, summary)
    if as_json:
        click.echo(json_text(summary))
    else:
        _print_counts(run, outcome)
    closing_lines(run.target, _next_command(run), to_stderr=as_json)
    _report_failures(run, outcome)


def _write_summary(run: FolderRun, outcome: FolderOutcome, ran_on: str) -> dict[str, Any]:
    from etnet.environment.versions import versions
    from etnet.inference.folder import FAILED_COLUMNS
    from etnet.inference.journal import part_suffix
    from etnet.output import write_json

    inputs, description = run.inputs, run.predictor.description
    summary = {
        "settings": {**_options(run), **run.choice.settings(), **settings(run.refinement)},
        "model": description.to_dict() if description else {},
        "ran_on": ran_on,
        "versions": versions(),
        "counts": {
            "found": len(inputs.items) + len(inputs.unreadable),
            "done": outcome.done,
            "failed": outcome.failed,
            "skipped_other_files": inputs.skipped,
        },
        "journal": outcome.journal.name,
        "failed": [dict(zip(FAILED_COLUMNS, row, strict=True)) for row in outcome.failures()],
        "this_run": {"seconds": round(outcome.seconds, 3), "kept": outcome.kept},
    }
    write_json(run.target / f"summary{part_suffix(outcome.part)}.json", summary)
    return summary


def _options(run: FolderRun) -> dict[str, Any]:
    """What the user chose, or did not change."""
    options = click.get_current_context().params
    names = ("recursive", "plane", "intensity_window", "device", "backend", "threads")
    return {"input": str(run.source), **{name: options[name] for name in names}}


def _write_report(run: FolderRun, outcome: FolderOutcome, summary: Mapping[str, Any]) -> None:
    from etnet.inference.folder_report import write_folder_report

    work = run.choice.work(run.plane)
    write_folder_report(
        outcome,
        run.inputs,
        run.target,
        contract=run.predictor.contract,
        summary=summary,
        plane=work.plane,
        threads=work.threads,
    )


def _print_counts(run: FolderRun, outcome: FolderOutcome) -> None:
    from etnet.inference.measurements import CUT_OFF

    handled = outcome.done + outcome.failed - outcome.kept
    rate = f", {outcome.seconds / handled:.2f} s per image" if handled else ""
    kept = f", {outcome.kept} of them kept from an earlier run" if outcome.kept else ""
    skipped = f", {counted(run.inputs.skipped, 'other file')} skipped" if run.inputs.skipped else ""
    total = counted(outcome.done + outcome.failed, "image")
    output().print(
        f"{outcome.done} of {total} segmented in {outcome.seconds:.1f} s{rate}{kept}{skipped}", soft_wrap=True
    )
    cut_off = [image.file for image in outcome.images() if image.measurements.get(CUT_OFF)]
    if cut_off:
        warn(
            f"in {counted(len(cut_off), 'image')} the optic disc is cut off by the region of interest or by the image, "
            f"so there is no cup-to-disc ratio ({', '.join(cut_off[:3])}); see {CUT_OFF} in measurements.csv"
        )
    _advise_on_window(run, outcome)


def _advise_on_window(run: FolderRun, outcome: FolderOutcome) -> None:
    """Name the remedy where images of more than 8 bits have lost their grey values on the way to the network."""
    paths = {item.id: item.path for item in run.inputs.items}
    lost = [image.file for image in outcome.images() if _LOST.intersection(image.quality_flags)]
    lost = [file for file in lost if file in paths]
    if not lost or not _has_more_than_8_bits(paths[lost[0]]):
        return
    window = run.predictor.contract.intensity_window
    shown = "the whole range of the file's type" if window is None else "{:g} to {:g}".format(*window)
    warn(
        f"{counted(len(lost), 'image')} came out blank, dark or bright ({', '.join(lost[:3])}): of more than 8 bits, "
        f"the network was shown {shown}; if that is not where the image is, give --intensity-window LOW HIGH"
    )


def _has_more_than_8_bits(path: Path) -> bool:
    """Whether a file may hold such values; volumes and DICOM are not opened once more for it."""
    from etnet.data.io import read_stored
    from etnet.errors import EtnetError
    from etnet.inference.inputs import is_medical

    try:
        return is_medical(path) or read_stored(path).pixels.dtype.itemsize > 1
    except EtnetError:
        return False


def _next_command(run: FolderRun) -> str:
    opened, model = run.opened, shlex.quote(str(run.model))
    again = f"etnet infer {shlex.quote(str(run.source))} --model {model}"
    if run.choice.part is not None:
        return f"{again} --output {shlex.quote(str(run.target))} --continue"
    if run.choice.overlay and (opened.suffix == ".safetensors" or opened.is_dir()):
        # An ONNX file does not say how its data are read.
        recipe = " --recipe RECIPE" if (opened / "segmenter.onnx").is_file() else ""
        return f"etnet evaluate {model} --data LABELLED_DATA{recipe}"
    return f"{again} --overlay"


def _report_failures(run: FolderRun, outcome: FolderOutcome) -> None:
    from etnet.errors import DataError, SomeFilesFailed
    from etnet.inference.journal import part_suffix

    if not outcome.failed:
        return
    first = next(outcome.failures())[1]
    if len(run.inputs.items) == 1 and run.inputs.items[0].path == run.source:
        raise DataError(first)
    table = run.target / f"failed{part_suffix(outcome.part)}.csv"
    total = counted(outcome.done + outcome.failed, "image")
    raise SomeFilesFailed(
        f"{outcome.failed} of {total} could not be segmented; {table} gives the reason for each, the first is: {first}"
    )
