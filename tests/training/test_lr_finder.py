from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etnet.data.io import read_image
from etnet.data.loader import Batch
from etnet.errors import CheckFailed
from etnet.training.lr_finder import RATES, Divergence, RangeTest, find_learning_rate, smoothed, steepest_descent
from etnet.training.step import NotFinite, Stepper, StepResult
from etnet.training.tracking import SilentObserver
from helpers.runs import tiny_recipe, write_disc_folder

STEPS = 100
RISING = np.geomspace(*RATES, STEPS)


def valley(*, middle: float, noise: float = 0.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A loss that falls from 0.8 to 0.3 fastest at `middle`, in the shape of a logistic function."""
    fall = 1 / (1 + np.exp(-3 * np.log10(RISING / middle)))
    return 0.8 - 0.5 * fall + noise * np.random.default_rng(0).standard_normal(STEPS)


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


def run_test(discs: Path, folder: Path, *overrides: str, steps: int = 20) -> RangeTest:
    folder.mkdir(exist_ok=True)
    return find_learning_rate(
        tiny_recipe(*overrides),
        data_root=discs,
        folder=folder,
        device=torch.device("cpu"),
        observer=SilentObserver(),
        steps=steps,
    )


@pytest.mark.parametrize("middle", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_suggestion_is_where_the_loss_falls_fastest(middle: float, noise: float) -> None:
    found = steepest_descent(RISING, valley(middle=middle, noise=noise), STEPS)
    assert found is not None
    assert abs(np.log10(found / middle)) < (0.1 if noise == 0 else 0.4)
    assert found == float(f"{found:.1e}")


def test_no_rate_is_suggested_where_the_loss_does_not_fall() -> None:
    flat = 0.7 + 0.02 * np.random.default_rng(1).standard_normal(STEPS)
    assert steepest_descent(RISING, flat, STEPS) is None
    assert steepest_descent(RISING, np.linspace(0.5, 0.9, STEPS), STEPS) is None


def test_a_fall_after_the_rise_is_not_taken_for_learning() -> None:
    losses = np.concatenate([valley(middle=1e-4)[:60], np.linspace(0.3, 1.0, 20), np.linspace(1.0, 0.4, 20)])
    found = steepest_descent(RISING, losses, STEPS)
    assert found is not None
    assert found < 1e-3


def test_smoothing_keeps_a_straight_line_and_does_not_lag() -> None:
    line = np.linspace(1, 0, STEPS)
    np.testing.assert_allclose(smoothed(line, steps=STEPS)[20:80], line[20:80], atol=1e-6)


def first_divergence(losses: list[float]) -> int | None:
    watch = Divergence()
    return next((step for step, loss in enumerate(losses) if watch.add(loss)), None)


def test_a_loss_that_rises_above_its_beginning_has_diverged() -> None:
    falling = list(np.linspace(0.7, 0.4, 50))
    assert first_divergence([*falling, *np.linspace(0.4, 0.95, 30)]) in range(65, 80)
    assert first_divergence([*falling, *np.linspace(0.4, 0.6, 30)]) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_that_only_varies_has_not_diverged(seed: int) -> None:
    assert first_divergence(list(0.6 + 0.05 * np.random.default_rng(seed).standard_normal(STEPS))) is None


def test_a_test_leaves_a_table_and_a_picture_and_no_weights(discs: Path, tmp_path: Path) -> None:
    found = run_test(discs, tmp_path / "found")
    assert {path.name for path in (tmp_path / "found").rglob("*")} == {"lr_finder.csv", "lr_finder.png"}
    with (tmp_path / "found" / "lr_finder.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found.rates) == len(found.losses)
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(*RATES, 20)[: len(rates)], rtol=1e-5)
    np.testing.assert_allclose([float(row["loss"]) for row in rows], found.losses, rtol=1e-5)
    assert read_image(tmp_path / "found" / "lr_finder.png").std() > 0


def test_batch_size_number_format_and_parts_are_those_of_the_recipe(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, str, float]] = []
    plain = Stepper.run

    def watched(self: Stepper, batch: Batch, rate: float) -> StepResult:
        seen.append((len(batch.ids), self.parts, self.precision, rate))
        return plain(self, batch, rate)

    monkeypatch.setattr(Stepper, "run", watched)
    words = ("training.batch_size=4", "training.accumulate=2", "training.precision=bfloat16")
    found = run_test(discs, tmp_path / "found", *words, steps=12)
    assert {entry[:3] for entry in seen} == {(4, 2, "bfloat16")}
    assert [entry[3] for entry in seen] == list(found.rates)


def failing_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = Stepper.run, []

    def run(self: Stepper, batch: Batch, rate: float) -> StepResult:
        calls.append(rate)
        result = plain(self, batch, rate)
        if len(calls) > count:
            raise NotFinite("the loss is nan", batch=batch, result=result, iteration=len(calls))
        return result

    monkeypatch.setattr(Stepper, "run", run)


def test_a_loss_that_is_not_finite_ends_the_test(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_after(12, monkeypatch)
    found = run_test(discs, tmp_path / "found")
    assert (len(found.losses), found.diverged) == (12, True)
    assert not (tmp_path / "found" / "nonfinite").exists()


def test_a_loss_that_is_never_finite_is_an_error(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_after(3, monkeypatch)
    with pytest.raises(CheckFailed, match="not finite after 3 steps at rates up to 8"):
        run_test(discs, tmp_path / "found")
