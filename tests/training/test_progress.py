from __future__ import annotations

import csv
from pathlib import Path

import pytest

from etnet.manifest import read_weights_info
from etnet.training.progress import Progress
from etnet.training.step import StepResult
from helpers.runs import FixedScores, tiny_recipe, tiny_run, write_disc_folder

LAST, BEST = "weights/last.safetensors", "weights/best.safetensors"


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


def test_an_epoch_gives_the_mean_of_its_losses_and_leaves_nothing_for_the_next() -> None:
    progress = Progress()
    for loss in (0.5, 0.25):
        progress.add(StepResult(loss=loss, seg_loss=2 * loss, edge_loss=0.0, gradient_norm=1.0), seconds=0.5)
    means = progress.close_epoch(batch_size=4)
    assert means == {"loss": 0.375, "seg_loss": 0.75, "edge_loss": 0.0, "images_per_second": 8.0}
    assert progress == Progress()


@pytest.mark.parametrize(
    ("patience", "scores", "stop_at"),
    [
        (2, {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.6, 5: 0.5}, 5),
        (1, {1: 0.5, 2: 0.5}, 2),
        (3, {10: 0.5, 20: 0.4}, 20),
        (20, {10: 0.5, 20: 0.4, 30: 0.3}, 30),
        (3, {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}, 4),
        (3, {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, None),
        (None, {1: 0.5, 100: 0.1}, None),
    ],
)
def test_a_run_stalls_when_so_many_epochs_brought_no_better_score(
    patience: int | None, scores: dict[int, float], stop_at: int | None
) -> None:
    progress = Progress()
    assert not progress.has_stalled(patience)
    stalled = []
    for epoch, score in scores.items():
        progress.is_best(score, epoch=epoch)
        stalled += [epoch] if progress.has_stalled(patience) else []
    assert stalled == ([] if stop_at is None else [stop_at])


def test_what_an_older_version_saved_stalls_as_it_would_have_there() -> None:
    progress = Progress(best_score=0.5, best_epoch=4, validated_epoch=5)
    assert not progress.has_stalled(2)
    assert not progress.is_best(0.4, epoch=6)
    assert progress.has_stalled(2)


@pytest.fixture
def scripted_scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Dice of the validations to come, to be filled by the test."""
    scores: list[float] = []
    monkeypatch.setattr("etnet.training.trainer.validate", lambda *_, **__: FixedScores(scores.pop(0)))
    return scores


def epochs_in(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [int(row["epoch"]) for row in csv.DictReader(stream)]


def test_a_run_stops_when_its_score_rises_no_more(scripted_scores: list[float], discs: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tiny_recipe("training.epochs=10", "training.patience=2")
    scripted_scores += [0.1, 0.5, 0.4, 0.5, 0.9]
    result = tiny_run(recipe, discs, run)
    assert (result.stopped_early, result.iterations, result.total) == (True, 12, 30)
    assert (result.best_score, result.best_epoch, result.signal_number) == (0.5, 2, None)
    assert epochs_in(run) == [1, 2, 3, 4]
    assert read_weights_info(run / BEST).iteration == 6
    assert read_weights_info(run / LAST).iteration == 12

    before = (run / LAST).read_bytes()
    again = tiny_run(recipe, discs, run, resume=True)
    assert (again.stopped_early, again.iterations) == (True, 12)
    assert (run / LAST).read_bytes() == before
    assert epochs_in(run) == [1, 2, 3, 4]


def test_a_run_that_stopped_early_goes_on_with_more_patience(
    scripted_scores: list[float], discs: Path, tmp_path: Path
) -> None:
    scripted_scores += [0.5, 0.4, 0.6, 0.7]
    tiny_run(tiny_recipe("training.patience=1"), discs, tmp_path / "run")
    result = tiny_run(tiny_recipe("training.patience=3"), discs, tmp_path / "run", resume=True)
    assert (result.stopped_early, result.iterations, result.best_score) == (False, 12, 0.7)
    assert epochs_in(tmp_path / "run") == [1, 2, 3, 4]
