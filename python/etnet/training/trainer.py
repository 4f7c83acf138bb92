"""The training loop, top to bottom (paper Sec. 2.3).

The run is one stream of samples: iteration i takes the stream's positions i*B .. i*B+B-1, so that the number of
iterations is the paper's num_images * epochs / batch_size, every batch is full, and the iteration alone says where a
run stands. An epoch ends with the iteration that completes another pass over the images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from etnet.config.schema import Recipe
from etnet.data.datasets import open_training_splits
from etnet.data.image_statistics import measure_training_range
from etnet.data.io import write_png
from etnet.data.loader import Batch, TrainingLoader, build_training_loader
from etnet.data.preview import training_preview
from etnet.data.roi import true_center
from etnet.data.sample_cache import removed_at_the_end
from etnet.errors import DataError, DiskFault
from etnet.manifest import encode_header, read_weights_info
from etnet.models import EncoderWeightsReport, SegmentationNetwork, build_model, load_encoder_weights
from etnet.training.announcement import what_is_trained
from etnet.training.averaging import WeightAverage
from etnet.training.checkpoint import restore_training, save_weights, training_tensors
from etnet.training.determinism import reproducible
from etnet.training.disk_refusals import DiskRefusals
from etnet.training.distributed import ALONE, ProcessGroup, synchronize_batch_norm
from etnet.training.interruption import StopRequest, catch_stop_signals
from etnet.training.nonfinite import keep_for_inspection
from etnet.training.optimizer import build_optimizer
from etnet.training.progress import Progress
from etnet.training.records import MetricsLog
from etnet.training.requirements import (
    require_epochs_left,
    require_finite_weights,
    require_same_images,
    require_structures,
)
from etnet.training.result import TrainingResult
from etnet.training.run_folder import CACHE, exclusive, write_recipe, write_run_description
from etnet.training.schedule import poly_learning_rate, total_iterations
from etnet.training.stages import stage
from etnet.training.step import NotFinite, Stepper
from etnet.training.tracking import Observer
from etnet.training.validation import validate
from etnet.types import TrainingRange


def train(
    recipe: Recipe,
    *,
    data_root: Path,
    run: Path,
    device: torch.device,
    observer: Observer,
    resume: bool = False,
    group: ProcessGroup = ALONE,
) -> TrainingResult:
    """Train a network and leave everything about it in a run folder.

    Args:
        recipe: All choices.
        data_root: Folder of the data set.
        run: An existing folder, empty unless `resume`.
        device: Where to train.
        observer: Told about progress.
        resume: Continue from `weights/last.safetensors`; on a CPU the result equals that of an uninterrupted run
            bit for bit, for the same number of threads. With other `training.epochs` than before, the learning
            rate goes on from the same iteration as that of a run of the new length.
        group: The processes that train together; each calls this function with the same arguments.

    Returns:
        How the run ended; a stop by Ctrl-C or SIGTERM is a normal end with `last` saved.

    Raises:
        EtnetError: See `etnet.errors`; data, recipe, disk or a loss that is not finite.
    """
    with reproducible(recipe.training.deterministic), exclusive(run) if group.is_main else nullcontext():
        job = TrainingRun(
            recipe, data_root=data_root, run=run, device=group.own_device(device), observer=observer, group=group
        )
        if resume:
            job.restore()
        else:
            job.start_anew()
        return job.execute()


class TrainingRun:
    """The parts of one run, made once, and the loop over them."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        data_root: Path,
        run: Path,
        device: torch.device,
        observer: Observer,
        group: ProcessGroup,
    ) -> None:
        self.recipe, self.run, self.device, self.observer = recipe, run, device, observer
        self.data_root, self.group = data_root, group
        group.share_of(recipe.training.batch_size, parts=recipe.training.accumulate)
        seed = recipe.training.seed
        torch.manual_seed(seed)
        self.training_set, self.validation_set = open_training_splits(recipe.data, data_root, seed=seed)
        for index in range(len(self.validation_set)):
            # Decoded once now: a damaged held-out image must not end the run at its first validation.
            true_center(self.validation_set.load(index), recipe.data.roi, ignore_index=recipe.data.ignore_index)
        if not len(self.training_set):
            raise DataError(
                f"{data_root}: no images are left to train on; lower data.validation_fraction or add images"
            )
        if recipe.data.roi is not None:
            require_structures(self.training_set, ignore_index=recipe.data.ignore_index)
        self.batch_size = recipe.training.batch_size
        self.total = total_iterations(
            num_images=len(self.training_set), epochs=recipe.training.epochs, batch_size=self.batch_size
        )
        network = build_model(recipe.model, len(recipe.data.class_names))
        synchronize_batch_norm(network, group, device)
        # Moved before the optimizer is made: it must hold the parameters on the device.
        self.network = network.to(device=device).to(memory_format=torch.channels_last)
        # A copy of the bare network: the stepper wraps it where processes train together. All keep it: all validate.
        decay = recipe.training.ema_decay
        self.average = None if decay is None else WeightAverage(self.network, decay=decay)
        self.optimizer = build_optimizer(self.network, recipe.optimizer)
        self.stepper = Stepper(
            self.network,
            recipe=recipe,
            optimizer=self.optimizer,
            device=device,
            group=group,
            report=observer.on_message,
        )
        self.progress, self.start = Progress(), 0
        self.training_range: TrainingRange | None = None
        self.refusals = DiskRefusals(observer.on_message)

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run continues from."""
        return self.run / "weights" / "last.safetensors"

    def start_anew(self) -> None:
        """Load the encoder's weights and describe the run in its folder."""
        report = load_encoder_weights(self.network, self.recipe.model.encoder_weights)
        self.group.start_alike(self.network)
        if self.group.is_main:
            self._describe(report)
        # Nobody goes on to the first exchange meanwhile, which would not wait so long.
        self.group.wait()

    def _describe(self, report: EncoderWeightsReport) -> None:
        """Measure the images, tell what is trained, and write what the folder of a run begins with."""
        self.training_range = measure_training_range(self.training_set)
        about = what_is_trained(
            self.recipe, self.training_set, held_out=len(self.validation_set), device=self.device, run=self.run
        )
        for sentence in (*about, report.summary()):
            self.observer.on_message(sentence)
        write_run_description(
            self.run,
            self.recipe,
            data_root=self.data_root,
            training_ids=self.training_set.ids,
            validation_ids=self.validation_set.ids,
            by_patient=bool(self.training_set.patients),
        )
        picture = training_preview(self.training_set, self.recipe)
        self.refusals.attempt("preview", lambda: write_png(self.run / "training_samples.png", picture), again=False)

    def restore(self) -> None:
        """Take up the run where `last` left it."""
        info = read_weights_info(self.last)
        average = None if self.average is None else self.average.network
        restore_training(self.last, self.network, self.optimizer, average=average)
        state = dict(info.training_state)
        require_same_images(info, state.pop("training_ids"), self.training_set)
        # Empty when the run was started without loss scaling, for instance on a CPU.
        if scaler := state.pop("scaler"):
            self.stepper.scaler.load_state_dict(scaler)
        self.progress, self.start = Progress(**state), info.iteration
        self.training_range = info.contract.training_range
        if self.training_range is None and self.group.is_main:
            # Begun before the range was stored.
            self.training_range = measure_training_range(self.training_set)
        self.group.wait()
        require_epochs_left(
            self.run, done=self.start, total=self.total, recipe=self.recipe, images=len(self.training_set)
        )
        if self.group.is_main:
            self.refusals.attempt("recipe", lambda: write_recipe(self.run, self.recipe), again=False)
        self.observer.on_message(f"continuing {self.run} after iteration {self.start} of {self.total}")

    def execute(self) -> TrainingResult:
        """Train to the end of the recipe, or to a signal."""
        keep = self._epoch(self.start)
        main = self.group.is_main
        records = MetricsLog(self.run, keep_until_epoch=keep, refusals=self.refusals) if main else nullcontext()
        self.observer.on_start(done=self.start, total=self.total)
        cache = removed_at_the_end(self.run / CACHE) if self.group.is_main else nullcontext()
        with records as log, catch_stop_signals() as stop, cache:
            iteration = self.start if self._has_stalled else self._loop(log, stop)
        # A signal may have reached another process only.
        signal_number = self.group.largest(stop.signal_number or 0, self.device)
        if signal_number:
            self.observer.on_stop(signal_number=signal_number)
        return TrainingResult(
            self.run,
            self.data_root,
            iterations=iteration,
            total=self.total,
            best_score=self.progress.best_score,
            best_epoch=self.progress.best_epoch,
            highest_epoch=self.progress.highest_epoch,
            signal_number=signal_number or None,
            stopped_early=self._has_stalled and iteration < self.total,
        )

    @property
    def _has_stalled(self) -> bool:
        return self.progress.has_stalled(self.recipe.training.patience)

    def batches(self, start: int, end: int) -> TrainingLoader:
        """The batches of the iterations start .. end - 1, this process's part of each."""
        return build_training_loader(
            self.training_set,
            self.recipe,
            start_iteration=start,
            total_iterations=end,
            workers=self.recipe.data.workers,
            rank=self.group.rank,
            world_size=self.group.world_size,
            cache_folder=self.run / CACHE,
            warn=lambda sentence: self.observer.on_message(f"Warning: {sentence}"),
        )

    def _loop(self, log: MetricsLog | None, stop: StopRequest) -> int:
        loader = self.batches(self.start, self.total)
        settings, iteration = self.recipe.optimizer, self.start
        self.network.train()
        began = time.perf_counter()
        for batch in loader:
            rate = poly_learning_rate(iteration, total=self.total, base_lr=settings.base_lr, power=settings.poly_power)
            with self._bad_batch_kept():
                self.step(batch, rate, iteration)
                iteration += 1
                ends_epoch = self._epoch(iteration) > self._epoch(iteration - 1) or iteration == self.total
                began = self._report(began, wait=ends_epoch)
            if ends_epoch:
                self._end_epoch(iteration, rate, log)
                began = time.perf_counter()
            # Asked on the host, so that nobody waits for a GPU.
            if self.group.any_of(bool(stop) or self._has_stalled, torch.device("cpu")):
                break
        with self._bad_batch_kept():
            self._report(began, wait=True)
        if self.start < iteration and self.group.is_main:
            self._save_result(iteration)
        self.group.wait()
        return iteration

    def step(self, batch: Batch, rate: float, iteration: int) -> None:
        """Hand out one optimizer step at a learning rate, with everything that belongs to it."""
        self.stepper.submit(batch, rate, iteration=iteration)
        if self.average is not None:
            with stage("optimizer"):
                self.average.update(self.network, step=iteration)

    def _report(self, began: float, *, wait: bool) -> float:
        """Tell of the steps that can be read, which took the time since `began`; returns when the next ones begin."""
        steps = list(self.stepper.finished(wait=wait))
        if not steps:
            return began
        seconds = (time.perf_counter() - began) / len(steps)
        for step in steps:
            self.progress.add(step.result, seconds)
            self.observer.on_step(
                iteration=step.iteration + 1,
                loss=step.result.loss,
                learning_rate=step.learning_rate,
                images_per_second=self.batch_size / seconds,
            )
        return time.perf_counter()

    @contextmanager
    def _bad_batch_kept(self) -> Iterator[None]:
        try:
            yield
        except NotFinite as error:
            kept = keep_for_inspection(
                error, self.network, run=self.run, recipe=self.recipe, data_root=self.data_root, rank=self.group.rank
            )
            # Every process has its part of the batch to save; the first to end takes the others down.
            self.group.wait()
            raise kept from error

    def _epoch(self, iteration: int) -> int:
        """Complete passes over the training images after this many iterations; never more than the recipe's epochs."""
        if iteration >= self.total:
            return self.recipe.training.epochs
        return min(iteration * self.batch_size // len(self.training_set), self.recipe.training.epochs)

    def _end_epoch(self, iteration: int, rate: float, log: MetricsLog | None) -> None:
        training = self.recipe.training
        epoch, before = self._epoch(iteration), self._epoch(iteration - 1)
        row = {"epoch": epoch, "iteration": iteration, "learning_rate": rate}
        row |= self.progress.close_epoch(self.batch_size)
        finished = iteration == self.total
        if len(self.validation_set) and (finished or _crosses(before, epoch, training.validate_every)):
            row |= self._validate(epoch, iteration)
        if log is None:
            return
        log.add(row)
        self.observer.on_epoch(row)
        if _crosses(before, epoch, training.save_every) and not finished:
            self.refusals.attempt("last", lambda: self._save_last(iteration))

    def _validate(self, epoch: int, iteration: int) -> dict[str, float]:
        require_finite_weights(self.network, iteration, run=self.run)
        scores = validate(self._scored, self.validation_set, recipe=self.recipe, group=self.group)
        former = self.progress.best_score, self.progress.best_epoch
        is_best = self.progress.is_best(scores.mean_foreground_dice, epoch=epoch)
        if is_best and self.group.is_main and not self.refusals.attempt("best", lambda: self._save_best(iteration)):
            # What is remembered as the best is what the file holds: the next score above that is saved.
            self.progress.best_score, self.progress.best_epoch = former
        return scores.row()

    @property
    def _scored(self) -> SegmentationNetwork:
        """The network that is validated, and that `best` and `last` hold for everything but training."""
        return self.network if self.average is None else self.average.network

    def _save_result(self, iteration: int) -> None:
        require_finite_weights(self.network, iteration, run=self.run)
        try:
            # `last` comes after `best`: it says that nothing is left to do.
            if not len(self.validation_set):
                self._save_best(iteration)
            self._save_last(iteration)
        except DiskFault as error:
            raise DiskFault(
                f"{error}; iteration {iteration} of {self.total} was reached and is lost, etnet train --resume "
                "continues from what was saved before"
            ) from error

    def _save_last(self, iteration: int) -> None:
        state = {
            **vars(self.progress),
            "scaler": self.stepper.scaler.state_dict(),
        }
        require_finite_weights(self.network, iteration, run=self.run)
        average = None if self.average is None else self.average.network
        tensors = training_tensors(self.network, self.optimizer, average=average)
        save_weights(self.last, tensors, self._header(iteration, state))

    def _save_best(self, iteration: int) -> None:
        path = self.run / "weights" / "best.safetensors"
        save_weights(path, self._scored.state_dict(), self._header(iteration, {}))

    def _header(self, iteration: int, state: Mapping[str, Any]) -> dict[str, str]:
        return encode_header(
            recipe=self.recipe,
            iteration=iteration,
            epoch=self._epoch(iteration),
            data_root=str(self.data_root),
            training_state={**state, "training_ids": list(self.training_set.ids)},
            training_range=self.training_range,
        )


def _crosses(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in before+1 .. after; a large batch may complete several epochs at once."""
    return after // every > before // every
