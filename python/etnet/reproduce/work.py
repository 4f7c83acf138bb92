"""What is done for one network of a table: train what is missing, then score it on the test images."""

from __future__ import annotations

import shutil

import torch
from filelock import FileLock, Timeout

from etnet import __version__
from etnet.errors import UsageError
from etnet.inference.backends.torch_backend import resolve_device
from etnet.output import create_output_folder, disk_faults, write_json
from etnet.reproduce.job import Job
from etnet.reproduce.scoring import score
from etnet.training.result import TrainingResult
from etnet.training.tracking import Observer
from etnet.training.trainer import train

SECONDS_FOR_A_FORMER_PROCESS = 120.0
"""A process whose starter was killed saves its state and ends by itself; a step of a large batch may take a while."""


def carry_out(job: Job, observer: Observer) -> bool:
    """Train and score as far as that is not done yet.

    Args:
        job: What to train and where.
        observer: Told about progress.

    Returns:
        False when a signal stopped the work; it goes on from there next time.

    Raises:
        EtnetError: Data, recipe, disk, memory, or a loss that is not finite.
    """
    with disk_faults(job.folder):
        job.train_folder.mkdir(parents=True, exist_ok=True)
        job.failure_file.unlink(missing_ok=True)
    _set_damaged_training_aside(job, observer)
    if job.trained() is None:
        _wait_for_former_process(job)
        _forget_former_weights(job)
        result = _train(job, observer)
        if result.iterations == result.total:
            write_json(job.trained_file, _facts(job, result))
        if result.signal_number is not None:
            return False
    if job.scores() is None:
        observer.on_message(f"Scoring the test images with {job.weights}")
        score(job)
    return True


def _set_damaged_training_aside(job: Job, observer: Observer) -> None:
    """Going on from unreadable weights would fail every time; they are kept for whoever wants to look at them."""
    damage = job.damage()
    if damage is None:
        return
    _wait_for_former_process(job)
    with disk_faults(job.folder):
        aside = create_output_folder(None, parent=job.folder, name="train.damaged")
        # Onto the empty folder, whose name is taken in the same step.
        job.train_folder.replace(aside)
        job.train_folder.mkdir()
    observer.on_message(f"{damage}; the training is set aside as {aside} and begins anew")


def _wait_for_former_process(job: Job) -> None:
    try:
        FileLock(job.train_folder / ".lock").acquire(timeout=SECONDS_FOR_A_FORMER_PROCESS).lock.release()
    except Timeout:
        raise UsageError(
            f"{job.train_folder}: another process still trains here; wait for it or name another --output"
        ) from None


def _forget_former_weights(job: Job) -> None:
    """Where weights were removed, what was said of them would pass for the new ones, and a first state for the last."""
    with disk_faults(job.folder):
        for path in (job.trained_file, job.scores_file):
            path.unlink(missing_ok=True)


def _train(job: Job, observer: Observer) -> TrainingResult:
    resume = job.last.is_file()
    if not resume:
        # Ended before its first checkpoint: nothing in it is worth keeping.
        with disk_faults(job.train_folder):
            shutil.rmtree(job.train_folder)
            job.train_folder.mkdir()
    device = resolve_device(job.device)
    return train(
        job.recipe, data_root=job.data_root, run=job.train_folder, device=device, observer=observer, resume=resume
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _facts(job: Job, result: TrainingResult) -> dict[str, object]:
    model = job.recipe.model
    return {
        "etnet_version": __version__,
        "iterations": result.iterations,
        "epochs": job.recipe.training.epochs,
        "device": _device_name(resolve_device(job.device)),
        "model": model.name,
        "encoder": model.encoder if model.traits.has_encoder else "its own",
        "encoder_weights": model.encoder_weights if model.traits.has_encoder else "none",
        "training_seconds": round(job.training_seconds(), 1),
    }
