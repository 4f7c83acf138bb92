from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from etnet.data.io import read_image
from etnet.training.results_picture import _best, _headline, _points, _smoothed, draw_results


def rows_of_run(epochs: int, *, validate_every: int | None = None) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 1 / epoch, "seg_loss": 1 / epoch, "edge_loss": 2 / epoch}
        row |= {"learning_rate": 0.01 * (1 - epoch / (epochs + 1)), "images_per_second": 5 + math.sin(epoch)}
        if validate_every is not None and epoch % validate_every == 0:
            dice = math.sin(3 * epoch / epochs)
            row |= {"validation_mean_iou": dice / 2, "validation_accuracy": 0.9}
            row |= {"validation_mean_foreground_dice": dice, "validation_dice_cup": dice, "validation_dice_rim": dice}
        rows.append(row)
    return rows


def test_a_run_with_held_out_images_has_a_second_line_of_panels(tmp_path: Path) -> None:
    draw_results(rows_of_run(60), tmp_path / "plain.png", title="plain")
    draw_results(rows_of_run(60, validate_every=5), tmp_path / "scored.png", title="scored")
    plain, scored = read_image(tmp_path / "plain.png"), read_image(tmp_path / "scored.png")
    assert plain.shape[1] == scored.shape[1]
    assert 1.7 < scored.shape[0] / plain.shape[0] < 2.1
    for panel in (*np.array_split(plain, 3, 1), *np.array_split(scored[scored.shape[0] // 2 :], 3, 1)):
        assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 20, "a panel is empty"


@pytest.mark.parametrize(
    "rows",
    [
        rows_of_run(1),
        rows_of_run(1, validate_every=1),
        rows_of_run(500, validate_every=500),
        [{"epoch": 1, "loss": 0.5}],
        [{"epoch": 3, "loss": 0.5}, {"epoch": 5, "loss": 0.4, "validation_mean_foreground_dice": 0.0}],
    ],
    ids=["one epoch", "one validated epoch", "validated at the end", "losses only", "columns that came later"],
)
def test_runs_of_every_shape_are_drawn_without_a_warning(rows: list[dict[str, float]], tmp_path: Path) -> None:
    draw_results(rows, tmp_path / "results.png", title="run")
    assert read_image(tmp_path / "results.png").std() > 0


def test_the_best_epoch_is_the_first_with_the_highest_dice() -> None:
    name = "validation_mean_foreground_dice"
    rows = [{"epoch": epoch, name: dice} for epoch, dice in ((1, 0.5), (2, 0.75), (3, 0.75))]
    best = _best([*rows, {"epoch": 4, "loss": 0.1}])
    assert best is not None
    assert best["epoch"] == 2
    assert _headline(rows, "drive") == "drive   ·   3 epochs   ·   best Dice 0.7500 in epoch 2"
    assert _headline([{"epoch": 1}], "drive") == "drive   ·   1 epoch   ·   no images held out"


def test_smoothing_keeps_constants_and_means_and_calms_noise() -> None:
    np.testing.assert_allclose(_smoothed(np.full(300, 2.5)), 2.5)
    noise = np.random.default_rng(0).normal(1.0, 0.3, 300)
    smooth = _smoothed(noise)
    assert smooth.shape == noise.shape
    assert smooth.std() < 0.5 * noise.std()
    assert smooth.mean() == pytest.approx(noise.mean(), abs=0.02)


def test_epochs_without_a_score_are_no_points_of_its_curve() -> None:
    epochs, values = _points([{"epoch": 1}, {"epoch": 2, "a": 0.5}, {"epoch": 3}], "a")
    assert (epochs.tolist(), values.tolist()) == ([2.0], [0.5])


def test_names_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "validation_mean_foreground_dice": 0.5, "validation_dice_$\\frac$": 0.4, "validation_dice_b": 0.6}
    ]
    draw_results(rows, tmp_path / "results.png", title=r"$\nothing$")
    assert (tmp_path / "results.png").is_file()
