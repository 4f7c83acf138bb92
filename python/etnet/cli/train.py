"""`etnet train`: turn a recipe, a data folder and options into a run, and show how it goes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from etnet.cli.console import closing_lines, infer_or_bundle, messages, note
from etnet.cli.sections import SectionedCommand
from etnet.cli.train_probes import ProbeRequest, chosen_probe, run_probe
from etnet.config.folds import Fold
from etnet.config.load import apply_overrides, load_recipe, recipe_from_values
from etnet.config.schema import Recipe
from etnet.errors import UsageError
from etnet.training.launch import restarts

if TYPE_CHECKING:
    from etnet.training.result import TrainingResult
    from etnet.types import Contract

RESUMABLE = {
    "training.epochs",
    "training.patience",
    "training.validate_every",
    "training.save_every",
    "data.workers",
    "data.cache_memory",
    "data.cache_disk",
}
"""Recipe keys that may change when a run is continued."""

SECONDS_BETWEEN_LINES = 10.0


SECTIONS = {
    "What is trained": ("--recipe", "--data", "--epochs", "--batch-size", "--seed", "--fold", "--patience", "--set"),
    "Run and machine": ("--output", "--device", "--deterministic", "--track"),
    "Going on": ("--resume", "--resume-or-start"),
    "Instead of training": ("--find-lr", "--profile"),
}


@click.command(cls=SectionedCommand, sections=SECTIONS)
@click.option(
    "--recipe", "recipe_source", metavar="NAME|FILE", help="Built-in recipe, such as drive or folder, or a YAML file."
)
@click.option("--data", "data_root", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the data set.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Run folder [default: runs/train/RECIPE]."
)
@click.option(
    "--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images; training.epochs."
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Images per step; training.batch_size.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Seed of weights, order and augmentation; training.seed."
)
@click.option(
    "--fold",
    metavar="K/N",
    help="Cross-validation: hold out part K of N, by patient where the data set knows patients; data.fold.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop when so many epochs brought no better score; training.patience.",
)
@click.option(
    "--deterministic", is_flag=True, help="Repeat bit for bit also on a GPU, more slowly; training.deterministic."
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to train.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any recipe key, for instance --set model.encoder=resnet18. May be repeated.",
)
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["wandb", "mlflow"]),
    help="Also send the metrics to this service; a resumed run goes on there by itself. May be repeated.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the newest run, or the one in --output, from its last checkpoint; with --epochs to another length.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Train some steps only, and show and trace where their time goes; leaves no weights.",
)
@click.option(
    "--find-lr", is_flag=True, help="Train some steps at rising learning rates, and suggest one; leaves no weights."
)
@click.option(
    "--resume-or-start",
    is_flag=True,
    help="Continue the run in --output where there is one, start it otherwise: a command that can be given again.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    recipe_source: str | None,
    data_root: Path | None,
    output: Path | None,
    device: str,
    overrides: tuple[str, ...],
    track: tuple[str, ...],
    resume: bool,
    resume_or_start: bool,
    **_others: int | str | bool | None,  # read from the context
) -> None:
    """Train ET-Net on a data set or on your own folder of images and masks.

    \b
    etnet train --recipe drive --data DRIVE/
    etnet train --recipe folder --data my_folder/ --set data.class_names='[background, lesion]'
    etnet train --recipe drive --data DRIVE/ --fold 1/5
    etnet train --resume
    etnet train --recipe drive --data DRIVE/ --find-lr
    etnet train --recipe drive --data DRIVE/ --profile

    Ctrl-C saves the run; --resume continues it exactly where it stopped.
    """
    probe, overrides = chosen_probe(ctx.params), _all_overrides(ctx.params)
    if resume_or_start and (resume or output is None):
        raise UsageError("--resume-or-start needs the run folder in --output, and is not given with --resume")
    recipe, root, run = _what_to_train(recipe_source, data_root, output, overrides, resume=resume)
    if probe is not None and recipe_source is not None:
        request = ProbeRequest(recipe, recipe_source, overrides, root, output, device, _folder_name(recipe))
        run_probe(probe, request, TrainingDisplay())
        return
    go_on = not resume and (resume_or_start or restarts() > 0)
    result = _train(recipe, root=root, run=run, output=output, device=device, track=track, go_on=go_on)
    if result is not None:
        _report(ctx, result, recipe.contract())


def _what_to_train(
    recipe_source: str | None, data_root: Path | None, output: Path | None, overrides: Sequence[str], *, resume: bool
) -> tuple[Recipe, Path, Path | None]:
    """Recipe, data folder, and the run to resume."""
    if resume:
        run, recipe, stored_root = _run_to_resume(output, recipe_source, overrides)
        return recipe, data_root or stored_root, run
    recipe = load_recipe(_required(recipe_source, "--recipe", "drive"), overrides)
    return recipe, _required(data_root, "--data", "FOLDER"), None


def _all_overrides(options: Mapping[str, Any]) -> tuple[str, ...]:
    """What `--set` and the options that are short for it say; the last of those that name a key holds."""
    values = {f"training.{key}": options[key] for key in ("epochs", "batch_size", "seed", "patience")}
    values["training.deterministic"] = options["deterministic"] or None
    short = (f"{key}={value}" for key, value in values.items() if value is not None)
    return (*_fold_overrides(options["fold"]), *options["overrides"], *short)


def _fold_overrides(text: str | None) -> tuple[str, ...]:
    """The recipe's own fraction gives way to the fold; one that stands in --set does not, and is then refused."""
    if text is None:
        return ()
    try:
        fold = Fold.parse(text)
    except ValueError as error:
        raise UsageError(f"--fold {text}: {error}") from None
    return f"data.validation_fraction={fold.share!r}", f"data.fold={fold}"


_Value = TypeVar("_Value")


def _required(value: _Value | None, option: str, example: str) -> _Value:
    if value is None:
        raise UsageError(f"{option} is missing; give for instance {option} {example} (only --resume can do without)")
    return value


def _run_to_resume(
    output: Path | None, recipe_source: str | None, overrides: Sequence[str]
) -> tuple[Path, Recipe, Path]:
    """The run folder, the recipe to continue with, and the data folder that the run was started on."""
    from etnet.manifest import newest_run, read_weights_info

    run = output or newest_run()
    if run is None:
        raise UsageError(
            "--resume: there is no run under runs/train; start one with etnet train --recipe ... --data ..."
        )
    last = run / "weights" / "last.safetensors"
    if not run.is_dir():
        newest = newest_run()
        known = f"the newest run is {newest}" if newest is not None else "there is no run under runs/train either"
        raise UsageError(
            f"--resume: {run} does not exist, and {known}; give the folder of a run with --output, "
            "or leave --resume away to start one there"
        )
    if not last.is_file():
        raise UsageError(
            f"--resume: {last} does not exist; the run was stopped before its first checkpoint, start it anew"
        )
    info = read_weights_info(last)
    asked = load_recipe(recipe_source).model_dump() if recipe_source is not None else info.recipe.model_dump()
    recipe = recipe_from_values(apply_overrides(asked, overrides), "--set")
    _require_like(info.recipe, recipe, run)
    return run, recipe, Path(info.data_root)


def _require_like(stored: Recipe, recipe: Recipe, run: Path) -> None:
    changed = sorted(set(_differences(stored, recipe)) - RESUMABLE)
    if changed:
        raise UsageError(
            f"--resume: {run} was started with other values of {', '.join(changed)}; "
            "leave --recipe and --set away, or start a new run"
        )


def _differences(one: Recipe, other: Recipe) -> list[str]:
    first, second = one.model_dump(), other.model_dump()
    keys = []
    for section, values in first.items():
        if isinstance(values, dict):
            keys += [f"{section}.{key}" for key in values if values[key] != second[section][key]]
        elif values != second[section]:
            keys.append(section)
    return keys


def _train(
    recipe: Recipe,
    *,
    root: Path,
    run: Path | None,
    output: Path | None,
    device: str,
    track: Sequence[str],
    go_on: bool,
) -> TrainingResult | None:
    """Train; of several processes that train together only the main one returns how it ended.

    Args:
        recipe: All choices.
        root: Folder of the data set.
        run: The run to resume; None for a new one.
        output: Folder of a new run, where one was named.
        device: As the user wrote it.
        track: Services that are sent the metrics.
        go_on: Whether a new run gives way to one that the same command has begun before.
    """
    from etnet.inference.backends.torch_backend import resolve_device
    from etnet.training.determinism import fix_workspace
    from etnet.training.distributed import joined_processes
    from etnet.training.run_folder import fresh_run_folder
    from etnet.training.trackers import open_trackers, require_trackers
    from etnet.training.tracking import Observer, Observers, SilentObserver
    from etnet.training.trainer import train

    if recipe.training.deterministic:
        fix_workspace()  # before the processes that train together start CUDA
    target, resume = resolve_device(device), run is not None
    require_trackers(track)
    with joined_processes() as group, ExitStack() as stack:
        if run is None and group.is_main:
            run = _begun_run(output, recipe) if go_on else None
            resume = run is not None and (run / "weights" / "last.safetensors").is_file()
            run = run or stack.enter_context(fresh_run_folder(output, _folder_name(recipe)))
        folder, resume = group.agree_on((run, resume))
        if folder is None:
            raise AssertionError("the main process names the folder")
        observer: Observer = SilentObserver()
        if group.is_main:
            display = stack.enter_context(TrainingDisplay())
            trackers = open_trackers(track, run=folder, recipe=recipe, tell=display.on_message, anew=not resume)
            observer = Observers(display, *(stack.enter_context(tracker) for tracker in trackers))
        result = train(recipe, data_root=root, run=folder, device=target, observer=observer, resume=resume, group=group)
        return result if group.is_main else None


def _begun_run(output: Path | None, recipe: Recipe) -> Path | None:
    """What an earlier start of this command left, with or without a checkpoint."""
    from etnet.manifest import read_weights_info
    from etnet.training.continuation import run_to_go_on_in

    run = run_to_go_on_in(output)
    if run is not None and (last := run / "weights" / "last.safetensors").is_file():
        _require_like(read_weights_info(last).recipe, recipe, run)
    return run


def _folder_name(recipe: Recipe) -> str:
    """The recipe's name, and the fold where there is one: the folds of a recipe are trained side by side."""
    return recipe.name if recipe.data.fold is None else f"{recipe.name}-fold-{recipe.data.fold.replace('/', '-of-')}"


def _report(ctx: click.Context, result: TrainingResult, contract: Contract) -> None:
    run = result.run
    if result.signal_number is not None:
        note(f"Stopped after iteration {result.iterations} of {result.total}; everything so far is saved.")
        closing_lines(run, f"etnet train --resume --output {shlex.quote(str(run))}")
        ctx.exit(128 + result.signal_number)
    if result.stopped_early:
        note(
            f"Stopped early after iteration {result.iterations} of {result.total}: the score on the held-out images "
            f"has not risen since epoch {result.highest_epoch}."
        )
    if result.best_score is not None:
        note(f"Best mean foreground Dice on the held-out images: {result.best_score:.4f}")
    closing_lines(run, _next_command(result, contract))


def _next_command(result: TrainingResult, contract: Contract) -> str:
    """Score the held-out images, where there are any: their folder is known, that of new images is not."""
    if result.best_score is None:
        return infer_or_bundle(result.run, contract)
    run = shlex.quote(str(result.run))
    return f"etnet evaluate {run} --data {shlex.quote(str(result.data_root))} --split validation"


class TrainingDisplay:
    """Draws a run: a progress bar on a terminal, a line now and then elsewhere; all of it on stderr."""

    def __init__(self) -> None:
        console = messages()
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  lr {task.fields[rate]:.2e}  {task.fields[speed]:.1f} images/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._task = TaskID(0)
        self._total = 0
        self._last_line = 0.0

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_message(self, text: str) -> None:
        """Print a sentence."""
        self._progress.console.print(Text(text), soft_wrap=True)

    def on_start(self, *, done: int, total: int) -> None:
        """Show the bar."""
        self._total = total
        self._task = self._progress.add_task("", completed=done, total=total, epoch=0, loss=0.0, rate=0.0, speed=0.0)

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Move the bar; without a terminal, print a line every few seconds."""
        self._progress.update(self._task, completed=iteration, loss=loss, rate=learning_rate, speed=images_per_second)
        now = time.monotonic()
        if not self._live and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.on_message(
                f"iteration {iteration}/{self._total}  loss {loss:.4f}  lr {learning_rate:.2e}  "
                f"{images_per_second:.1f} images/s"
            )

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Count the epoch; print its validation scores."""
        self._progress.update(self._task, epoch=int(row["epoch"]))
        if "validation_mean_iou" in row:
            self.on_message(
                f"epoch {int(row['epoch'])}  loss {row['loss']:.4f}  validation mIoU {row['validation_mean_iou']:.4f}  "
                f"Dice {row['validation_mean_foreground_dice']:.4f}  accuracy {row['validation_accuracy']:.4f}"
            )

    def on_stop(self, *, signal_number: int) -> None:
        """Nothing: the sentence at the end says so."""
