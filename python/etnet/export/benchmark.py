"""One network in many formats: size, scores, labels that differ, time and memory (the table of `etnet benchmark`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import numpy as np

from etnet.environment.hardware import machine
from etnet.environment.versions import versions
from etnet.errors import EtnetError
from etnet.export.formats import ModelFiles
from etnet.inference.compare import ComparisonImage
from etnet.inference.measure import ContestantFailed, Latency, Runner, take_turns
from etnet.metrics.overlap import OverlapScores, confusion_matrix
from etnet.trt.driver import ask_driver
from etnet.types import UInt8Array

Progress = Callable[[str], None]


@dataclass
class Row:
    """What was measured of one format; everything but the name is empty where `reason` says why it did not run.

    Attributes:
        name: The format.
        reason: Why it did not run, or stopped running; None when all was measured.
        ran_on: Runtime, device and precision as the back-end names them.
        file_bytes: Size of the file it runs.
        mean_dice: Mean foreground Dice over the pooled pixels of the labelled images; None without masks, and
            where neither they nor the labels show any foreground.
        mean_iou: Mean IoU over all classes, pooled; None without masks.
        differing_labels: Share of the pixels, 0..1, labelled otherwise than by the first format that ran.
        latencies: One for each batch size.
        peak_bytes: `host`, the process's peak of resident memory, and `device` where there is one.
    """

    name: str
    reason: str | None = None
    ran_on: str | None = None
    file_bytes: int | None = None
    mean_dice: float | None = None
    mean_iou: float | None = None
    differing_labels: float | None = None
    latencies: list[Latency] = field(default_factory=list)
    peak_bytes: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON; times in milliseconds."""
        return {**vars(self), "latencies": [latency.to_dict() for latency in self.latencies]}


@dataclass(frozen=True)
class BenchmarkPlan:
    """What is measured on what.

    Attributes:
        formats: Names of formats; the first that runs is what the others' labels are compared with.
        images: Images, with masks where there are some; the first one is timed.
        class_names: Classes in index order.
        ignore_index: Value of the masks without a label.
        batches: Batch sizes that are timed.
        runs: Timed runs of each format and batch size.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Processor threads of each runtime; None leaves it to them.
        real_images: Whether labels on these images mean anything; noise is only timed.
    """

    formats: Sequence[str]
    images: Sequence[ComparisonImage]
    class_names: tuple[str, ...]
    ignore_index: int | None = None
    batches: Sequence[int] = (1,)
    runs: int = 20
    device: str = "auto"
    threads: int | None = None
    real_images: bool = True


def run_benchmark(plan: BenchmarkPlan, files: ModelFiles, *, progress: Progress = lambda _: None) -> list[Row]:
    """Measure every format; one that cannot run costs its row, not the others.

    Args:
        plan: What is measured.
        files: Makes and holds the files of the formats.
        progress: Called with a few words when a step begins.

    Returns:
        One row per format, in the order of the plan.
    """
    rows = {name: Row(name) for name in plan.formats}
    with ExitStack() as stack:
        runners = {}
        for name, row in rows.items():
            progress(f"preparing {name}")
            try:
                contestant = files.contestant(name)
                runner = Runner(contestant, device=plan.device, threads=plan.threads)
            except EtnetError as error:
                row.reason = str(error)
                continue
            runners[name] = stack.enter_context(runner)
            row.ran_on = runner.ran_on
            row.file_bytes = contestant.model.stat().st_size
        if plan.real_images:
            _score(plan, runners, rows, progress)
        for batch in plan.batches:
            progress(f"timing batches of {batch}")
            _time(plan, {name: runner for name, runner in runners.items() if rows[name].reason is None}, rows, batch)
    return list(rows.values())


def _score(plan: BenchmarkPlan, runners: Mapping[str, Runner], rows: Mapping[str, Row], progress: Progress) -> None:
    """Labels of every format on every image: scores, and what differs from the first format."""
    reference: list[UInt8Array] | None = None
    for name, runner in runners.items():
        progress(f"scoring {name}")
        try:
            labels = [runner.labels(item.image) for item in plan.images]
        except ContestantFailed as failure:
            rows[name].reason = str(failure)
            continue
        if reference is None:
            reference = labels
        pixels = sum(item.size for item in labels)
        differing = sum(np.count_nonzero(ours != theirs) for ours, theirs in zip(labels, reference, strict=True))
        rows[name].differing_labels = float(differing / pixels)
        rows[name].mean_dice, rows[name].mean_iou = _overlap(plan, labels)


def _overlap(plan: BenchmarkPlan, labels: Sequence[UInt8Array]) -> tuple[float | None, float | None]:
    """Mean foreground Dice and mean IoU of the images that have masks; None without any or without any class."""
    classes = len(plan.class_names)
    matrices = [
        confusion_matrix(predicted, item.mask, num_classes=classes, ignore_index=plan.ignore_index)
        for predicted, item in zip(labels, plan.images, strict=True)
        if item.mask is not None
    ]
    if not matrices:
        return None, None
    scores = OverlapScores.from_confusion(np.sum(matrices, axis=0), plan.class_names)
    return _defined(scores.mean_dice), _defined(scores.mean_iou)


def _defined(score: float) -> float | None:
    return None if math.isnan(score) else score


def _time(plan: BenchmarkPlan, runners: Mapping[str, Runner], rows: Mapping[str, Row], batch: int) -> None:
    timed = take_turns(list(runners.values()), plan.images[0].image, batch=batch, runs=plan.runs)
    for runner, outcome in timed:
        row = rows[runner.contestant.name]
        if isinstance(outcome, ContestantFailed):
            row.reason = str(outcome)
            continue
        row.latencies.append(outcome)
        try:
            row.peak_bytes = runner.peak_memory()
        except ContestantFailed as failure:
            row.reason = str(failure)


def environment() -> dict[str, Any]:
    """Machine and versions under which the figures hold."""
    described = asdict(machine())
    del described["available_memory_bytes"]
    gpus = [vars(gpu) for gpu in ask_driver().gpus]
    return {"date": date.today().isoformat(), "machine": described, "gpus": gpus, "versions": versions()}
