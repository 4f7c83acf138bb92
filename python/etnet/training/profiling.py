"""Where the time of a training step goes: `etnet train --profile`.

A profile is a short run of its own that leaves no weights. As a part of a normal run its steps would spoil that run's
speeds, its trace would have to wait for the run's end, and nobody waits for 300 epochs to learn that four more workers
were missing. The steps themselves are those of training, through the same code.

It has three phases, because what describes a step must not slow the step that is timed: steps that fill caches and
choose algorithms; steps that are timed stage by stage, without the profiler; steps that the profiler records.
"""

from __future__ import annotations

import gzip
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from etnet.config.schema import Recipe
from etnet.data.loader import Batch, resolve_workers
from etnet.data.sample_cache import removed_at_the_end
from etnet.models import load_encoder_weights
from etnet.output import disk_faults, replacing, write_json
from etnet.training.determinism import reproducible
from etnet.training.distributed import ALONE
from etnet.training.run_folder import CACHE
from etnet.training.schedule import poly_learning_rate
from etnet.training.stages import STAGES, StageClock, recording, stage
from etnet.training.tracking import Observer, SilentObserver
from etnet.training.trainer import TrainingRun

TRACE = "trace.json.gz"
OTHER = "other"


@dataclass(frozen=True)
class Phases:
    """How many steps each phase has at most, and how long the first two may take.

    A phase that is out of time ends early, but not before three steps: the network of the paper takes a minute per
    step on a small CPU.
    """

    warmup: int = 10
    measured: int = 25
    traced: int = 3
    seconds: float = 60.0

    @property
    def total(self) -> int:
        """Steps of all phases."""
        return self.warmup + self.measured + self.traced


@dataclass(frozen=True)
class Profile:
    """Where the time went.

    Attributes:
        folder: Where `trace.json.gz` and `profile.json` are.
        warmup: Steps before the first that was timed.
        measured: Steps that were timed.
        traced: Steps in the trace.
        step: Milliseconds of a step, the mean.
        stages: Milliseconds per step of every stage of `STAGES`, and of `other`, what no stage covers.
        images_per_second: Samples per second.
        device: Where the steps ran.
        precision: Number format of the forward pass.
        workers: Loader processes.
    """

    folder: Path
    warmup: int
    measured: int
    traced: int
    step: float
    stages: dict[str, float]
    images_per_second: float
    device: str
    precision: str
    workers: int

    def share(self, name: str) -> float:
        """Share of a stage in the step, 0..1."""
        return self.stages[name] / self.step

    @property
    def bottleneck(self) -> str:
        """The stage to work on: the longest, or the data wait if a tenth of the step goes into it, doing nothing."""
        if self.share("data wait") >= 0.1:
            return "data wait"
        return max(self.stages, key=lambda name: self.stages[name])

    def advice(self) -> str:
        """One sentence: what the bottleneck is and what to do about it."""
        name = self.bottleneck
        return f"{name.capitalize()} takes {100 * self.share(name):.0f} % of a step: {self._remedy(name)}."

    def _remedy(self, name: str) -> str:
        if name == "data wait":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            if self.workers < cores - 1:
                return f"raise data.workers (now {self.workers}; there are {cores} cores)"
            return (
                f"all {cores} cores read already, so use a machine with more of them, images of fewer pixels or fewer "
                "augmentations"
            )
        if name in ("forward", "backward"):
            if self.device == "cpu":
                return "the network itself sets the pace; train on a GPU, or with a smaller crop or encoder"
            faster = "training.precision=bfloat16, " if self.precision == "float32" else ""
            return (
                f"the network itself sets the pace, as it should; only {faster}a smaller model.encoder or "
                "data.crop_size makes it faster"
            )
        return {
            "copy to device": "see in the trace whether the copies wait for the step before, and lower data.crop_size "
            "if they do not",
            "loss": "set loss.method=histogram, which sorts nothing",
            "optimizer": "raise training.batch_size, so that there are fewer updates per image",
            OTHER: "see in the trace what runs between the stages",
        }[name]


def profile_training(
    recipe: Recipe,
    *,
    data_root: Path,
    folder: Path,
    device: torch.device,
    observer: Observer,
    phases: Phases = Phases(),
) -> Profile:
    """Run some steps of a training and see where their time goes.

    Args:
        recipe: All choices, as for training.
        data_root: Folder of the data set.
        folder: An existing folder for the trace; no weights are written.
        device: Where to run.
        observer: Told about progress.
        phases: How many steps.

    Returns:
        Where the time went; also written as `profile.json`, and the trace beside it for Perfetto or chrome://tracing.

    Raises:
        EtnetError: As for training.
    """
    with reproducible(recipe.training.deterministic), removed_at_the_end(folder / CACHE):
        run = TrainingRun(recipe, data_root=data_root, run=folder, device=device, observer=observer, group=ALONE)
        load_encoder_weights(run.network, recipe.model.encoder_weights)
        run.network.train()
        observer.on_start(done=0, total=phases.total)
        steps = _Steps(run, phases.total)
        try:
            warmup = steps.take(phases.warmup, seconds=phases.seconds)
            with recording(device) as clock:
                measured = steps.take(phases.measured, seconds=phases.seconds, clock=clock)
                rows = clock.milliseconds()
                traced = _trace(steps, phases.traced, folder / TRACE)
        finally:
            steps.close()
    step = statistics.fmean(row["step"] for row in rows)
    stages: dict[str, float] = {name: statistics.fmean(row.get(name, 0.0) for row in rows) for name in STAGES}
    stages[OTHER] = max(0.0, step - sum(stages.values()))
    result = Profile(
        folder,
        warmup,
        measured,
        traced,
        step,
        stages,
        1000 * recipe.training.batch_size / step,
        device.type,
        run.stepper.precision,
        resolve_workers(recipe.data.workers),
    )
    write_json(folder / "profile.json", _as_json(result))
    return result


def images_per_second(
    recipe: Recipe, *, data_root: Path, folder: Path, device: torch.device, steps: int = 10, seconds: float = 15.0
) -> float:
    """How many images a training by this recipe takes per second, by a few steps after a few to warm up.

    The encoder starts at random, which changes no time and needs no download.

    Args:
        recipe: All choices, as for training.
        data_root: Folder of the data set.
        folder: An existing folder for temporary files.
        device: Where to run.
        steps: Steps that are timed at most.
        seconds: How long warming up and timing each take at most, but for three steps.

    Raises:
        EtnetError: As for training.
    """
    with reproducible(recipe.training.deterministic), removed_at_the_end(folder / CACHE):
        observer = SilentObserver()
        run = TrainingRun(recipe, data_root=data_root, run=folder, device=device, observer=observer, group=ALONE)
        run.network.train()
        steps_of_run = _Steps(run, 2 * steps)
        try:
            steps_of_run.take(steps, seconds=seconds)
            began = time.perf_counter()
            taken = steps_of_run.take(steps, seconds=seconds)
            return recipe.training.batch_size * taken / (time.perf_counter() - began)
        finally:
            steps_of_run.close()


class _Steps:
    """The steps of a run, as many at a time as a phase asks for."""

    def __init__(self, run: TrainingRun, total: int) -> None:
        self._run, self._total, self._done = run, total, 0
        self._batches: Iterator[Batch] = iter(run.batches(0, total))
        self._told = time.perf_counter()

    def take(self, count: int, *, seconds: float = float("inf"), clock: StageClock | None = None) -> int:
        """Do up to `count` steps, at least three of them within the time; returns how many."""
        began = time.perf_counter()
        for done in range(count):
            if done >= 3 and time.perf_counter() - began > seconds:
                count = done
                break
            if clock is None:
                self._step()
            else:
                with clock.step():
                    self._step()
        self._tell(wait=True)
        return count

    def _step(self) -> None:
        run = self._run
        settings = run.recipe.optimizer
        rate = poly_learning_rate(
            self._done, total=max(run.total, self._total), base_lr=settings.base_lr, power=settings.poly_power
        )
        with stage("data wait"):
            batch = next(self._batches)
        run.step(batch, rate, self._done)
        self._done += 1
        self._tell(wait=False)

    def _tell(self, *, wait: bool) -> None:
        run = self._run
        steps = list(run.stepper.finished(wait=wait))
        now = time.perf_counter()
        for step in steps:
            run.observer.on_step(
                iteration=step.iteration + 1,
                loss=step.result.loss,
                learning_rate=step.learning_rate,
                images_per_second=run.batch_size * len(steps) / (now - self._told),
            )
        if steps:
            self._told = now

    def close(self) -> None:
        """End the workers now, and not when the collector of cycles finds them."""
        del self._batches


def _trace(steps: _Steps, count: int, path: Path) -> int:
    """Record steps into a gzipped trace."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    # Otherwise the profiler's library reports its own steps on stderr, and a machine without a GPU as an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=activities) as profiler:
        steps.take(count)
    with disk_faults(path), tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        with replacing(path) as partial:
            partial.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    return count


def _as_json(result: Profile) -> dict[str, object]:
    return {
        "device": result.device,
        "precision": result.precision,
        "workers": result.workers,
        "steps": {"warmup": result.warmup, "measured": result.measured, "traced": result.traced},
        "images_per_second": result.images_per_second,
        "milliseconds_per_step": {"step": result.step, **result.stages},
        "bottleneck": result.bottleneck,
    }
