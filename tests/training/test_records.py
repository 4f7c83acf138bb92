from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest

from etnet.data.io import read_image
from etnet.errors import CheckFailed, DiskFault
from etnet.training import records
from etnet.training.disk_refusals import DiskRefusals
from etnet.training.records import MetricsLog
from etnet.training.trackers import Ending, Tracker


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def log_of(run: Path, *, keep_until_epoch: int = 0, told: list[str] | None = None) -> MetricsLog:
    return MetricsLog(
        run, keep_until_epoch=keep_until_epoch, refusals=DiskRefusals((told if told is not None else []).append)
    )


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_columns_that_appear_later_leave_earlier_rows_empty(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.add({"epoch": 1, "loss": 0.5})
    log.add({"epoch": 2, "loss": 0.25, "validation_accuracy": 0.75})
    log.close()
    assert rows_of(tmp_path) == [
        {"epoch": "1", "loss": "0.5", "validation_accuracy": ""},
        {"epoch": "2", "loss": "0.25", "validation_accuracy": "0.75"},
    ]


def test_a_resumed_run_drops_the_rows_it_writes_again(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    for epoch in (1, 2, 3):
        log.add({"epoch": epoch, "loss": 1 / epoch})
    log = log_of(tmp_path, keep_until_epoch=2)
    log.add({"epoch": 3, "loss": 0.125})
    assert [row["loss"] for row in rows_of(tmp_path)] == ["1", "0.5", "0.125"]


def test_a_new_run_does_not_continue_an_old_table(tmp_path: Path) -> None:
    log_of(tmp_path).add({"epoch": 1, "loss": 1.0})
    log = log_of(tmp_path)
    assert log.rows == []


def test_every_digit_stands_in_the_lines_and_only_what_was_measured(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.add({"epoch": 1, "loss": 1 / 3})
    log.add({"epoch": 2, "loss": 2 / 3, "validation_accuracy": 0.75})
    assert lines_of(tmp_path) == [
        {"epoch": 1, "loss": 1 / 3},
        {"epoch": 2, "loss": 2 / 3, "validation_accuracy": 0.75},
    ]


@pytest.mark.parametrize("damage", [None, "half a li", "[1]\n"], ids=["absent", "damaged", "foreign"])
def test_a_resumed_run_without_lines_goes_on_from_the_table(damage: str | None, tmp_path: Path) -> None:
    log = log_of(tmp_path)
    for epoch in (1, 2):
        log.add({"epoch": epoch, "loss": 0.5 / epoch})
    (tmp_path / "metrics.jsonl").unlink()
    if damage is not None:
        (tmp_path / "metrics.jsonl").write_text(damage)
    log_of(tmp_path, keep_until_epoch=2).add({"epoch": 3, "loss": 0.125})
    assert [row["loss"] for row in rows_of(tmp_path)] == ["0.5", "0.25", "0.125"]
    assert [line["loss"] for line in lines_of(tmp_path)] == [0.5, 0.25, 0.125]
    log_of(tmp_path, keep_until_epoch=3).add({"epoch": 4, "iteration": 12345678, "loss": 0.0625})
    assert [line["epoch"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]
    assert rows_of(tmp_path)[-1] == {"epoch": "4", "iteration": "12345678", "loss": "0.0625"}


def test_a_table_that_is_refused_is_told_once_and_written_later(tmp_path: Path) -> None:
    told: list[str] = []
    log = log_of(tmp_path, told=told)
    (tmp_path / "metrics.csv").mkdir()
    for epoch in (1, 2):
        log.add({"epoch": epoch, "loss": 1.0})
    (sentence,) = told
    assert sentence.startswith(f"Warning: {tmp_path / 'metrics.csv'}: could not be written (Is a directory)")
    (tmp_path / "metrics.csv").rmdir()
    log.close()
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["1", "2"]


def test_a_table_that_is_refused_to_the_end_is_an_error(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    (tmp_path / "metrics.csv").mkdir()
    log.add({"epoch": 1, "loss": 1.0})
    with pytest.raises(DiskFault, match=r"metrics\.csv"):
        log.close()


def test_the_picture_of_a_run_that_fails_is_drawn_and_its_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="not finite"), log_of(tmp_path) as log:
        log.add({"epoch": 1, "loss": 0.5})
        raise CheckFailed("the loss is not finite")
    assert read_image(tmp_path / "results.png").std() > 0


def test_a_picture_that_cannot_be_drawn_does_not_hide_why_the_run_failed(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="not finite"), log_of(tmp_path) as log:
        log.add({"epoch": 1, "loss": 0.5})
        (tmp_path / "results.png").mkdir()
        raise CheckFailed("the loss is not finite")
    with pytest.raises(DiskFault, match=r"results\.png"), log_of(tmp_path, keep_until_epoch=1):
        pass


def test_tensorboard_holds_every_epoch_once_also_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with log_of(tmp_path) as log:
        for epoch in (1, 2, 3):
            log.add({"epoch": epoch, "loss": float(epoch)})
    with log_of(tmp_path, keep_until_epoch=2) as log:
        for epoch in (3, 4):
            log.add({"epoch": epoch, "loss": 10.0 * epoch})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1), (2, 2), (3, 30), (4, 40)]


def test_tensorboard_holds_no_epoch_of_a_start_that_ended_without_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for factor in (1.0, 10.0):
        with log_of(tmp_path) as log:
            for epoch in (1, 2):
                log.add({"epoch": epoch, "loss": factor * epoch})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 10), (2, 20)]


def test_a_tensorboard_that_fails_is_told_once_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Board(Tracker):
        name, closed = "TensorBoard", False

        def _open(self) -> None: ...

        def _send(self, row: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def _close(self, ending: Ending) -> None:
            self.closed = True

    told: list[str] = []
    board = Board(tell=told.append)
    monkeypatch.setattr(records, "tensorboard", lambda *_, **__: board)
    with log_of(tmp_path) as log:
        for epoch in (1, 2, 3, 4):
            log.add({"epoch": epoch, "loss": 0.5})
    (sentence,) = told
    assert "TensorBoard does not take the metrics ([Errno 28] No space left on device)" in sentence
    assert board.closed
    assert len(rows_of(tmp_path)) == 4
