"""Observers that send a run's metrics to TensorBoard, Weights & Biases or MLflow.

A tracker never ends a training: what goes wrong in it is told once, what it could not take is sent again with the next
epoch, and the same figures stand in the run folder in any case. Packages are imported when a tracker starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from typing_extensions import override

from etnet.config.schema import Recipe
from etnet.errors import EnvironmentFault
from etnet.output import write_json
from etnet.training.tracking import SilentObserver

PATIENCE = 3
"""After so many failures in a row a tracker waits for the end: a service that is away must not slow every epoch."""

SECONDS_TO_FINISH = 60
"""How long the end of a run waits for what is still to be uploaded, unless `WANDB_FINISH_TIMEOUT` says otherwise."""

Ending = Literal["finished", "stopped", "failed"]
"""How a run ended: by itself, by Ctrl-C or another signal, with an error."""

_STATE = "trackers.json"
_PROJECT = "etnet"
_WANDB_CODES = {"finished": 0, "stopped": 255, "failed": 1}
"""255 is the package's own code for Ctrl-C."""
_MLFLOW_STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Tracker(SilentObserver, ABC):
    """An observer whose failures are warnings; use it as a context manager around `train`.

    Args:
        tell: Takes the warnings.
        after_epoch: Rows up to this epoch are known to the tracker and not sent again.
    """

    name: str

    def __init__(self, *, tell: Callable[[str], None], after_epoch: int = 0) -> None:
        self._tell, self._after_epoch = tell, after_epoch
        self._unsent: list[dict[str, float]] = []
        self._is_open = self._has_warned = False
        self._failures = 0
        self._ending: Ending = "finished"

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._ending = "stopped" if issubclass(kind, KeyboardInterrupt) else "failed"
        if self._is_open or self._unsent:
            self._try(self._deliver)
        if self._is_open:
            self._try(lambda: self._close(self._ending))

    def on_start(self, **_: int) -> None:
        """Begin, or go on with the tracker's record of this run."""
        self._try(self._deliver)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Send a row, unless it was sent before the run was interrupted."""
        if row["epoch"] > self._after_epoch:
            self._unsent.append(dict(row))
        if self._failures < PATIENCE:
            self._try(self._deliver)

    def on_stop(self, **_: int) -> None:
        """Remember how the run ended."""
        self._ending = "stopped"

    def _deliver(self) -> None:
        if not self._is_open:
            self._open()
            self._is_open = True
        while self._unsent:
            self._send(self._unsent[0])
            self._sent(int(self._unsent.pop(0)["epoch"]))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the libraries and their services fail in ways of their own
            self._failures += 1
            if not self._has_warned:
                self._has_warned = True
                reason = _reason(error) or type(error).__name__
                self._tell(
                    f"Warning: {self.name} does not take the metrics ({reason}); the run goes on, "
                    "and all of them are in metrics.jsonl of its folder"
                )
        else:
            self._failures = 0

    def _sent(self, epoch: int) -> None:
        """Remember that the row of an epoch was sent."""
        self._after_epoch = epoch

    @abstractmethod
    def _open(self) -> None:
        """Begin a record, or take up the one of this run."""

    @abstractmethod
    def _send(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row to the record."""

    @abstractmethod
    def _close(self, ending: Ending) -> None:
        """End the record."""


def tensorboard(run: Path, *, after_epoch: int, tell: Callable[[str], None]) -> Tracker | None:
    """TensorBoard's record in `tensorboard/` of the run folder; None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    return _TensorBoard(run, after_epoch=after_epoch, tell=tell)


class _TensorBoard(Tracker):
    name = "TensorBoard"

    def __init__(self, run: Path, *, after_epoch: int, tell: Callable[[str], None]) -> None:
        super().__init__(tell=tell, after_epoch=after_epoch)
        self._folder = run / "tensorboard"

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run wrote beyond its last checkpoint, if it had one, is written anew: the viewer drops it.
        self._writer: Any = SummaryWriter(log_dir=str(self._folder), purge_step=self._after_epoch + 1)

    def _send(self, row: Mapping[str, float]) -> None:
        for key, value in row.items():
            self._writer.add_scalar(key, value, int(row["epoch"]))

    @override
    def _close(self, ending: Ending) -> None:
        self._writer.close()


class _Remote(Tracker):
    """A tracker whose record has an id, which is kept in the run folder so that a resumed run goes on with it."""

    key: str

    def __init__(self, run: Path, recipe: Recipe, *, tell: Callable[[str], None], anew: bool = False) -> None:
        state = {} if anew else _stored(run).get(self.key, {})
        super().__init__(tell=tell, after_epoch=state.get("epoch", 0))
        self._run, self._recipe = run, recipe
        self._id: str | None = state.get("id")

    def _remember(self) -> None:
        if self._id is not None:
            entry = {"id": self._id, "epoch": self._after_epoch}
            write_json(self._run / _STATE, {**_stored(self._run), self.key: entry})

    def _sent(self, epoch: int) -> None:
        super()._sent(epoch)
        self._remember()


class WandbTracker(_Remote):
    """Weights & Biases; `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE` and the others of its variables hold.

    Where its service cannot be reached or nobody is logged in, the record is kept in `wandb/` of the run folder, from
    where `wandb sync` uploads it.
    """

    name, key = "Weights & Biases", "wandb"

    def _open(self) -> None:
        import wandb

        known = self._id or secrets.token_hex(4)
        arguments: dict[str, Any] = {
            "id": known,
            "resume": "allow",
            "project": os.environ.get("WANDB_PROJECT", _PROJECT),
            "name": os.environ.get("WANDB_NAME", self._run.name),
            "dir": os.environ.get("WANDB_DIR", str(self._run)),
            "config": self._recipe.model_dump(mode="json"),
            "settings": self._settings(),
        }
        self._record: Any = self._start(wandb, arguments)
        # Rows come once per epoch; the library's own counter of calls starts anew when a run is resumed.
        self._record.define_metric("*", step_metric="epoch")
        self._id = known
        self._remember()

    @staticmethod
    def _settings() -> dict[str, Any]:
        """A bound for the end, which otherwise waits for a service that is away until it comes back."""
        bound = {} if "WANDB_FINISH_TIMEOUT" in os.environ else {"finish_timeout": SECONDS_TO_FINISH}
        return bound | {"finish_timeout_raises": True}

    def _start(self, wandb: Any, arguments: Mapping[str, Any]) -> Any:
        if "WANDB_MODE" in os.environ:
            return wandb.init(**arguments)
        try:
            # Asked beforehand: on a terminal `init` would wait for somebody to type a key.
            if wandb.login(prompt=False):
                return wandb.init(**arguments)
            reason = "nobody is logged in"
        except wandb.Error as error:
            reason = _reason(error)
        self._tell(f"Warning: Weights & Biases records offline ({reason}); upload it with wandb sync")
        return wandb.init(**arguments, mode="offline")

    def _send(self, row: Mapping[str, float]) -> None:
        self._record.log(dict(row))

    def _close(self, ending: Ending) -> None:
        picture = self._run / "results.png"
        try:
            if picture.is_file():
                import wandb

                self._record.log({"results": wandb.Image(str(picture))})
        finally:
            self._finish(ending)

    def _finish(self, ending: Ending) -> None:
        try:
            self._record.finish(exit_code=_WANDB_CODES[ending])
        except TimeoutError:
            where = Path(self._record.dir).parent
            self._tell(
                f"Warning: Weights & Biases did not take all metrics in time; upload the rest with wandb sync {where}"
            )


class MlflowTracker(_Remote):
    """MLflow; `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and the others of its variables hold."""

    name, key = "MLflow", "mlflow"

    def _open(self) -> None:
        # Its client waits minutes for a server that is away, at every call, unless told otherwise.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client: Any = MlflowClient()
        if self._id is not None:
            self._client.update_run(self._id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        where = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(where, run_name=self._run.name).info.run_id
        self._remember()
        recipe = _flat(self._recipe.model_dump(mode="json"))
        self._client.log_batch(self._id, params=[Param(key, str(value)) for key, value in recipe.items()])

    def _send(self, row: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now, epoch = int(time.time() * 1000), int(row["epoch"])
        self._client.log_batch(
            self._id, metrics=[Metric(_mlflow_name(key), value, now, epoch) for key, value in row.items()]
        )

    def _close(self, ending: Ending) -> None:
        try:
            for name in ("results.png", "recipe.yaml"):
                if (self._run / name).is_file():
                    self._client.log_artifact(self._id, str(self._run / name))
        finally:
            self._client.set_terminated(self._id, _MLFLOW_STATES[ending])


TRACKERS: dict[str, type[WandbTracker | MlflowTracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
"""By the word of `--track`, which is also the name of the extra and of the module."""


def open_trackers(
    names: Sequence[str], *, run: Path, recipe: Recipe, tell: Callable[[str], None], anew: bool = False
) -> list[Tracker]:
    """The trackers that a run was asked for, and those that it had before it was interrupted.

    Args:
        names: Keys of `TRACKERS`.
        run: Run folder; `trackers.json` in it names the trackers' records of this run.
        recipe: Sent along.
        tell: Takes warnings.
        anew: Whether training begins at its first step. What a start before it, which ended without a checkpoint, has
            sent is then left as it is: its epochs are not those of this one.

    Raises:
        EnvironmentFault: The package of a tracker in `names` is not installed.
    """
    wanted = dict.fromkeys(names)
    for name in () if anew else _stored(run):
        if name in TRACKERS and name not in wanted:
            if importlib.util.find_spec(name) is not None:
                wanted[name] = None
            else:
                tell(f"Warning: {name}, which tracked {run} before, is not installed here; the run goes on without it")
    require_trackers(names)
    return [TRACKERS[name](run, recipe, tell=tell, anew=anew) for name in wanted]


def require_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are there; nothing is imported.

    Raises:
        EnvironmentFault: One is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise EnvironmentFault(f"--track {name}: is not installed; install it with pip install 'etnet[{name}]'")


def _stored(run: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((run / _STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _reason(error: Exception) -> str:
    """What an error says, on one line, without the password that stands in the address of a service."""
    return re.sub(r"://[^/@\s]*@", "://", " ".join(str(error).split()))[:200]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested sections as `section.key`, which is how `--set` names them; lists and the like as JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value and all(re.fullmatch(r"[\w.-]+", str(inner)) for inner in value):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _mlflow_name(key: str) -> str:
    """A metric's name as MLflow accepts it; class names are free."""
    return re.sub(r"[^\w/. -]", "_", key)
