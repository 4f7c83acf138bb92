import csv
from pathlib import Path

import pytest

from etnet.data.io import read_image
from etnet.errors import CheckFailed, EnvironmentFault
from etnet.training import tracking
from etnet.training.tracking import MetricsLog, draw_curves


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_columns_that_appear_later_leave_earlier_rows_empty(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, keep_until_epoch=0)
    log.add({"epoch": 1, "loss": 0.5})
    log.add({"epoch": 2, "loss": 0.25, "validation_accuracy": 0.75})
    log.close()
    assert rows_of(tmp_path) == [
        {"epoch": "1", "loss": "0.5", "validation_accuracy": ""},
        {"epoch": "2", "loss": "0.25", "validation_accuracy": "0.75"},
    ]


def test_a_resumed_run_drops_the_rows_it_writes_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, keep_until_epoch=0)
    for epoch in (1, 2, 3):
        log.add({"epoch": epoch, "loss": 1 / epoch})
    log = MetricsLog(tmp_path, keep_until_epoch=2)
    log.add({"epoch": 3, "loss": 0.125})
    assert [row["loss"] for row in rows_of(tmp_path)] == ["1", "0.5", "0.125"]


def test_a_new_run_does_not_continue_an_old_table(tmp_path: Path) -> None:
    MetricsLog(tmp_path, keep_until_epoch=0).add({"epoch": 1, "loss": 1.0})
    log = MetricsLog(tmp_path, keep_until_epoch=0)
    assert log.rows == []


def test_curves_differ_with_and_without_validation(tmp_path: Path) -> None:
    rows = [{"epoch": e, "loss": 1 / e, "seg_loss": 1 / e, "edge_loss": 2 / e} for e in (1.0, 2.0, 3.0)]
    draw_curves(rows, tmp_path / "plain.png")
    draw_curves([{**row, "validation_accuracy": 0.9} for row in rows], tmp_path / "validated.png")
    plain, validated = read_image(tmp_path / "plain.png"), read_image(tmp_path / "validated.png")
    assert plain.shape == validated.shape
    assert (plain != validated).any()


def test_an_unwritable_table_is_one_sentence(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, keep_until_epoch=0)
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(EnvironmentFault, match=r"metrics\.csv"):
        log.add({"epoch": 1, "loss": 1.0})


def test_curves_of_a_run_that_fails_are_drawn_and_its_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="not finite"), MetricsLog(tmp_path, keep_until_epoch=0) as log:
        log.add({"epoch": 1, "loss": 0.5})
        raise CheckFailed("the loss is not finite")
    assert read_image(tmp_path / "curves.png").std() > 0


def test_curves_that_cannot_be_drawn_do_not_hide_why_the_run_failed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(CheckFailed, match="not finite"), MetricsLog(run, keep_until_epoch=0) as log:
        log.add({"epoch": 1, "loss": 0.5})
        (run / "curves.png").mkdir()
        raise CheckFailed("the loss is not finite")
    with pytest.raises(EnvironmentFault, match=r"curves\.png"), MetricsLog(run, keep_until_epoch=1):
        pass


def test_tensorboard_is_closed_even_when_the_curves_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Board:
        closed = False

        def add_scalar(self, *_: object) -> None:
            pass

        def close(self) -> None:
            self.closed = True

    board = Board()
    monkeypatch.setattr(tracking, "_tensorboard", lambda run: board)
    log = MetricsLog(tmp_path, keep_until_epoch=0)
    log.add({"epoch": 1, "loss": 0.5})
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(EnvironmentFault):
        log.close()
    assert board.closed
