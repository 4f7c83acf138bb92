"""`etnet train --profile` and `--find-lr`: short runs that look at a training and leave no weights."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from etnet.cli.console import closing_lines, note, output
from etnet.config.schema import Recipe
from etnet.errors import UsageError

if TYPE_CHECKING:
    from etnet.training.lr_finder import RangeTest
    from etnet.training.profiling import Profile
    from etnet.training.tracking import Observer

Probe = Literal["--profile", "--find-lr"]

RUNS = {"--profile": Path("runs/profile"), "--find-lr": Path("runs/find-lr")}
"""Away from `runs/train`, where other commands look for trained networks."""


_UNUSABLE = ("resume_or_start", "track", "epochs", "patience")
"""Options that only a whole training can follow."""


def chosen_probe(options: Mapping[str, Any]) -> Probe | None:
    """Which short run the options of `etnet train` ask for instead of a training.

    Raises:
        UsageError: They ask for two, or for what a short run cannot do.
    """
    profile, find_lr = options["profile"], options["find_lr"]
    if not (profile or find_lr):
        return None
    if profile and find_lr:
        raise UsageError("--profile and --find-lr are two short runs of their own; give one after the other")
    probe: Probe = "--profile" if profile else "--find-lr"
    if options["resume"]:
        raise UsageError(
            f"{probe} is a short run of its own that begins with a recipe; give --recipe and --data and leave --resume "
            "away"
        )
    for name in _UNUSABLE:
        if (value := options[name]) not in (None, False, ()):
            words = () if value is True else value if isinstance(value, tuple) else (value,)
            given = " ".join(["--" + name.replace("_", "-"), *map(str, words)])
            raise UsageError(f"{probe} is a short run with steps of its own; leave {given} away")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"{probe} looks at one process; start it without torchrun")
    return probe


@dataclass(frozen=True)
class ProbeRequest:
    """What a short run is given.

    Attributes:
        recipe: All choices.
        source: The recipe's name or file, as the user typed it.
        overrides: Recipe keys that the user changed, as for `--set`.
        data_root: Folder of the data set.
        output: Folder to write into, or None for a new one under `RUNS`.
        device: As the user typed it.
        name: What a new folder is called.
    """

    recipe: Recipe
    source: str
    overrides: Sequence[str]
    data_root: Path
    output: Path | None
    device: str
    name: str

    def training_command(self, *changes: str) -> str:
        """The command that trains what was looked at, with further recipe keys changed."""
        changed = {change.partition("=")[0] for change in changes}
        kept = [override for override in self.overrides if override.partition("=")[0] not in changed]
        words = ["etnet", "train", "--recipe", self.source, "--data", str(self.data_root)]
        for override in (*kept, *changes):
            words += ["--set", override]
        return shlex.join([*words, *(() if self.device == "auto" else ("--device", self.device))])


def run_probe(probe: Probe, request: ProbeRequest, display: AbstractContextManager[Observer]) -> None:
    """Do the short run, and print what it found when the display of its steps has ended."""
    from etnet.inference.backends.torch_backend import resolve_device
    from etnet.training.lr_finder import find_learning_rate
    from etnet.training.profiling import profile_training
    from etnet.training.run_folder import fresh_run_folder

    device, recipe, root = resolve_device(request.device), request.recipe, request.data_root
    profile, test = None, None
    with fresh_run_folder(request.output, request.name, root=RUNS[probe]) as folder, display as observer:
        if probe == "--profile":
            profile = profile_training(recipe, data_root=root, folder=folder, device=device, observer=observer)
        else:
            test = find_learning_rate(recipe, data_root=root, folder=folder, device=device, observer=observer)
    if profile is not None:
        _report_profile(profile, request)
    if test is not None:
        _report_range_test(test, request)


def _report_profile(profile: Profile, request: ProbeRequest) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage of a step")
    table.add_column("ms/step", justify="right")
    table.add_column("%", justify="right")
    for name, milliseconds in profile.stages.items():
        style = "bold" if name == profile.bottleneck else ""
        table.add_row(Text(name, style), f"{milliseconds:.2f}", f"{100 * profile.share(name):.1f}")
    table.add_section()
    table.add_row("whole step", f"{profile.step:.2f}", "100.0")
    output().print(table)
    output().print(
        f"{profile.images_per_second:.1f} images/s on {profile.device}, {profile.precision}, data.workers "
        f"{profile.workers}; mean of {profile.measured} steps after {profile.warmup} to warm up, and the next "
        f"{profile.traced} are in the trace.",
        soft_wrap=True,
    )
    output().print(profile.advice(), soft_wrap=True)
    note(f"Open {profile.folder / 'trace.json.gz'} in ui.perfetto.dev or chrome://tracing.")
    closing_lines(profile.folder, request.training_command())


def _report_range_test(test: RangeTest, request: ProbeRequest) -> None:
    end = "the loss rose again" if test.diverged else "the highest rate was reached"
    note(f"Ended after {len(test.rates)} steps at a learning rate of {test.rates[-1]:.1e}: {end}.")
    if test.suggestion is None:
        output().print(
            "No rate is suggested, because the loss fell no further than it varies from batch to batch; see "
            f"{test.folder / 'lr_finder.png'}, or raise training.batch_size.",
            soft_wrap=True,
        )
        closing_lines(test.folder, request.training_command())
        return
    output().print(
        f"Suggested optimizer.base_lr: {test.suggestion:g}, where the smoothed loss falls fastest over the logarithm "
        f"of the rate; see {test.folder / 'lr_finder.png'}.",
        soft_wrap=True,
    )
    closing_lines(test.folder, request.training_command(f"optimizer.base_lr={test.suggestion:g}"))
