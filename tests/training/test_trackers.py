from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from etnet.cli.main import main
from etnet.errors import EnvironmentFault
from etnet.training import trackers
from etnet.training.trackers import (
    PATIENCE,
    SECONDS_TO_FINISH,
    TRACKERS,
    MlflowTracker,
    Tracker,
    WandbTracker,
    open_trackers,
)
from etnet.training.tracking import Observers
from helpers.runs import TINY, StopAfter, tiny_recipe, tiny_run, write_disc_folder


class Service(Tracker):
    """A tracker whose service is away at the calls it was told."""

    name = "Service"

    def __init__(self, told: list[str], *, away: set[int] = frozenset(), after_epoch: int = 0) -> None:
        super().__init__(tell=told.append, after_epoch=after_epoch)
        self.away, self.calls = away, 0
        self.taken: list[float] = []
        self.closed: list[str] = []

    def _open(self) -> None:
        self._call()

    def _send(self, row: dict[str, float]) -> None:
        self._call()
        self.taken.append(row["epoch"])

    def _close(self, ending: str) -> None:
        self.closed.append(ending)

    def _call(self) -> None:
        self.calls += 1
        if self.calls in self.away:
            raise ConnectionError("no route\nto host")


def follow(service: Tracker, epochs: range) -> None:
    with service:
        service.on_start(done=0, total=9)
        for epoch in epochs:
            service.on_epoch({"epoch": epoch, "loss": 1 / epoch})


def test_every_epoch_is_sent_and_the_record_is_closed() -> None:
    told: list[str] = []
    service = Service(told)
    follow(service, range(1, 4))
    assert (service.taken, service.closed, told) == ([1, 2, 3], ["finished"], [])


def test_what_a_service_missed_is_sent_later_and_told_once() -> None:
    told: list[str] = []
    service = Service(told, away={1, 3, 6})
    follow(service, range(1, 6))
    assert service.taken == [1, 2, 3, 4, 5]
    (sentence,) = told
    assert sentence.startswith("Warning: Service does not take the metrics (no route to host); the run goes on")
    assert "metrics.jsonl" in sentence


def test_a_service_that_stays_away_is_asked_a_few_times_and_once_at_the_end() -> None:
    told: list[str] = []
    service = Service(told, away=set(range(1, 100)))
    follow(service, range(1, 20))
    assert service.calls == PATIENCE + 1
    assert (service.taken, service.closed, len(told)) == ([], [], 1)


def test_a_resumed_run_does_not_send_an_epoch_twice() -> None:
    service = Service([], after_epoch=2)
    follow(service, range(2, 5))
    assert service.taken == [3, 4]


def test_a_run_that_fails_is_closed_as_failed() -> None:
    service = Service([])
    with pytest.raises(ValueError, match="loss"), service:
        service.on_start(done=0, total=3)
        raise ValueError("loss")
    assert service.closed == ["failed"]


def test_a_run_that_is_stopped_is_closed_as_stopped(tmp_path: Path) -> None:
    discs, service = write_disc_folder(tmp_path / "discs"), Service([])
    with service:
        tiny_run(tiny_recipe(), discs, tmp_path / "run", observer=Observers(StopAfter(2), service))
    assert service.closed == ["stopped"]
    early = Service([])
    with pytest.raises(KeyboardInterrupt), early:
        early.on_start(done=0, total=3)
        raise KeyboardInterrupt
    assert early.closed == ["stopped"]


def test_a_tracker_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"--track wandb: is not installed; .* 'etnet\[wandb\]'"):
        open_trackers(["wandb"], run=tmp_path, recipe=tiny_recipe(), tell=print)


def test_a_run_that_was_tracked_goes_on_without_the_package_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    (tmp_path / "trackers.json").write_text('{"mlflow": {"id": "7", "epoch": 3}}')
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    assert open_trackers([], run=tmp_path, recipe=tiny_recipe(), tell=told.append) == []
    assert "mlflow, which tracked" in told[0]


@pytest.mark.parametrize("content", [None, "half", "[]"], ids=["absent", "damaged", "foreign"])
def test_a_run_without_a_readable_note_of_its_trackers_has_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "trackers.json").write_text(content)
    assert open_trackers([], run=tmp_path, recipe=tiny_recipe(), tell=print) == []


class FakeWandb(SimpleNamespace):
    """The calls of wandb that are documented and used, for what an online service would be needed for."""

    class Error(Exception):
        pass

    def __init__(self, *, logged_in: bool) -> None:
        super().__init__(starts=[], rows=[], finished=[], metrics=[], logged_in=logged_in, stays_away=False)

    def login(self, *, prompt: bool) -> bool:
        assert not prompt
        return self.logged_in

    def init(self, **arguments: object) -> FakeWandb:
        self.starts.append(arguments)
        self.dir = f"{arguments['dir']}/wandb/run-1/files"
        if "mode" not in arguments:
            raise self.Error("the service is away")
        return self

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, row: dict[str, object]) -> None:
        self.rows.append(row)

    def Image(self, path: str) -> str:
        return path

    def finish(self, *, exit_code: int) -> None:
        self.finished.append(exit_code)
        if self.stays_away:
            raise TimeoutError("Timed out finishing run.")


def test_wandb_records_offline_where_nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, told = FakeWandb(logged_in=False), []
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    follow(WandbTracker(tmp_path, tiny_recipe(), tell=told.append), range(1, 3))
    assert [start["mode"] for start in fake.starts] == ["offline"]
    assert "records offline (nobody is logged in)" in told[0]


def test_wandb_records_offline_where_its_service_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, told = FakeWandb(logged_in=True), []
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "results.png").touch()
    follow(WandbTracker(tmp_path, tiny_recipe(), tell=told.append), range(1, 3))
    online, offline = fake.starts
    assert offline == {**online, "mode": "offline"}
    assert (online["project"], online["resume"], online["dir"]) == ("etnet", "allow", str(tmp_path))
    assert online["config"]["training"]["epochs"] == 4
    assert fake.metrics == [("*", "epoch")]
    assert fake.rows == [
        {"epoch": 1, "loss": 1.0},
        {"epoch": 2, "loss": 0.5},
        {"results": str(tmp_path / "results.png")},
    ]
    assert fake.finished == [0]
    assert "records offline (the service is away); upload it with wandb sync" in told[0]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": {"id": online["id"], "epoch": 2}}
    follow(WandbTracker(tmp_path, tiny_recipe(), tell=told.append), range(2, 4))
    assert fake.starts[-1]["id"] == online["id"]
    assert fake.rows[-2] == {"epoch": 3, "loss": 1 / 3}


@pytest.mark.parametrize(("given", "expected"), [(None, SECONDS_TO_FINISH), ("7", None)])
def test_the_end_waits_for_wandb_for_a_bounded_time(
    given: str | None, expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, told = FakeWandb(logged_in=False), []
    fake.stays_away = True
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_DIR", "WANDB_MODE", "WANDB_FINISH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", given)
    follow(WandbTracker(tmp_path, tiny_recipe(), tell=told.append), range(1, 3))
    settings = fake.starts[0]["settings"]
    assert (settings.get("finish_timeout"), settings["finish_timeout_raises"]) == (expected, True)
    assert told[1].endswith(f"did not take all metrics in time; upload the rest with wandb sync {tmp_path}/wandb/run-1")
    assert len(told) == 2


def test_wandb_is_told_how_a_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb(logged_in=False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with WandbTracker(tmp_path, tiny_recipe(), tell=print) as tracker:
        tracker.on_start(done=0, total=3)
        tracker.on_stop(signal_number=2)
    with pytest.raises(ValueError, match="loss"), WandbTracker(tmp_path, tiny_recipe(), tell=print) as tracker:
        tracker.on_start(done=0, total=3)
        raise ValueError("loss")
    assert fake.finished == [255, 1]


@pytest.mark.filterwarnings("ignore")
def test_wandb_itself_takes_an_offline_run_and_its_continuation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "ERROR_REPORTING": "false", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    told: list[str] = []
    for epochs in (range(1, 4), range(3, 8)):
        follow(WandbTracker(tmp_path, tiny_recipe(), tell=told.append), epochs)
    # Its own process writes the files; this waits for it to end.
    wandb.teardown()
    assert told == []
    note = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert note["epoch"] == 7
    first, second = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{note['id']}.wandb"))
    # Records are kept as they are sent: the values of epochs 3 and 7 stand in one file each.
    third, seventh = (repr(1 / epoch).encode()[:8] for epoch in (3, 7))
    assert (third in first.read_bytes(), third in second.read_bytes()) == (True, False)
    assert (seventh in first.read_bytes(), seventh in second.read_bytes()) == (False, True)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "discs")
    return str(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_one_run_of_a_training_that_was_interrupted(store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    discs, run, told = write_disc_folder(tmp_path / "discs"), tmp_path / "run", []
    recipe, states = tiny_recipe("data.class_names=[background, disc (left)]"), []
    for stop_after in (7, 99):

        class Both(StopAfter):
            def on_start(self, *, done: int, total: int) -> None:
                tracker.on_start(done=done, total=total)

            def on_epoch(self, row: dict[str, float]) -> None:
                tracker.on_epoch(row)

            def on_stop(self, *, signal_number: int) -> None:
                tracker.on_stop(signal_number=signal_number)

        run.mkdir(exist_ok=True)
        with MlflowTracker(run, recipe, tell=told.append) as tracker:
            tiny_run(recipe, discs, run, observer=Both(stop_after), resume=stop_after == 99)
        states.append(MlflowClient().get_run(tracker._id).info.status)
    assert (told, states) == ([], ["KILLED", "FINISHED"])
    client = MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("discs").experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["training.epochs"] == "4"
    assert json.loads(found.data.params["data.class_names"]) == ["background", "disc (left)"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(line["epoch"], line["loss"]) for line in lines]
    assert "validation_dice_disc _left_" in found.data.metrics
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"results.png", "recipe.yaml"}


@pytest.mark.filterwarnings("ignore")
def test_an_mlflow_server_that_is_away_costs_a_warning(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    told: list[str] = []
    follow(MlflowTracker(tmp_path, tiny_recipe(), tell=told.append), range(1, 3))
    (sentence,) = told
    assert sentence.startswith("Warning: MLflow does not take the metrics (")


def test_the_command_offers_every_tracker_and_each_has_an_extra() -> None:
    (option,) = (option for option in main.get_command(None, "train").params if option.name == "track")
    assert list(option.type.choices) == list(TRACKERS)
    assert set(TRACKERS) <= set(metadata("etnet").get_all("Provides-Extra"))


def test_track_reaches_the_tracker_and_an_unknown_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb(logged_in=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "wandb" or find_spec(name, *rest))
    discs, run = write_disc_folder(tmp_path / "discs"), tmp_path / "run"
    settings = [word for override in TINY for word in ("--set", override)]
    words = ["train", "--recipe", "folder", "--data", discs, "--output", run, "--device", "cpu", *settings]
    result = CliRunner().invoke(main, [*map(str, words), "--epochs", "2", "--track", "wandb"])
    assert result.exit_code == 0, result.stderr
    assert "Warning: Weights & Biases records offline" in result.stderr
    assert [row["epoch"] for row in fake.rows if "epoch" in row] == [1, 2]
    again = CliRunner().invoke(main, ["train", "--resume", "--output", str(run), "--epochs", "3"])
    assert again.exit_code == 0, again.stderr
    assert [row["epoch"] for row in fake.rows if "epoch" in row] == [1, 2, 3]
    assert fake.starts[0]["id"] == fake.starts[-1]["id"]
    wrong = CliRunner().invoke(main, [*map(str, words), "--track", "neptune"])
    assert wrong.exit_code == 2
    assert "neptune" in wrong.stderr


def test_a_run_that_starts_anew_in_its_folder_gets_a_record_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "trackers.json").write_text('{"mlflow": {"id": "7", "epoch": 3}, "wandb": {"id": "8", "epoch": 3}}')
    (tracker,) = open_trackers(["mlflow"], run=tmp_path, recipe=tiny_recipe(), tell=print, anew=True)
    assert isinstance(tracker, MlflowTracker)
    assert (tracker._id, tracker._after_epoch) == (None, 0)
    (first, second) = open_trackers([], run=tmp_path, recipe=tiny_recipe(), tell=print)
    assert (first._after_epoch, second._after_epoch) == (3, 3)


def test_a_warning_holds_no_password_of_the_service() -> None:
    told: list[str] = []
    service = Service(told)
    service._call = lambda: (_ for _ in ()).throw(ConnectionError("no answer from https://me:secret@host/api"))
    follow(service, range(1, 2))
    assert "no answer from https://host/api" in told[0]
