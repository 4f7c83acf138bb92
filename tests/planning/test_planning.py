from __future__ import annotations

import pytest
import torch

from etnet.planning import planning
from etnet.planning.planning import make_plan
from etnet.training.result import TrainingResult
from helpers.runs import tiny_run, write_disc_folder

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_disc_folder(tmp_path / "discs", count=10, size=64)


@pytest.fixture
def speeds(monkeypatch):
    """Stands for the measured speed in each number format; a dictionary that tests change."""
    told = {"float32": 10.0, "bfloat16": 10.0}
    monkeypatch.setattr(planning, "images_per_second", lambda recipe, **_: told[recipe.training.precision])
    return told


def test_the_length_follows_from_time_and_measured_speed(folder, speeds):
    plan = make_plan(folder, name="discs", device=CPU, minutes=5)
    # 0.9 of 5 minutes at 10 images per second are 2700 images, of which an epoch takes 8.
    assert plan.recipe.training.epochs == pytest.approx(2700 / 8, abs=1)
    assert plan.minutes == pytest.approx(4.5, rel=0.01)


def test_without_a_limit_there_are_the_usual_steps(folder, speeds):
    training = make_plan(folder, name="discs", device=CPU).recipe.training
    assert training.epochs == planning.EPOCHS[1]  # eight images make one step
    assert (training.validate_every, training.save_every) == (50, 50)


def test_a_short_time_still_trains_ten_epochs(folder, speeds):
    speeds["float32"] = speeds["bfloat16"] = 0.01
    assert make_plan(folder, name="discs", device=CPU, minutes=1).recipe.training.epochs == 10


@pytest.mark.parametrize(("speed", "precision"), [(12.0, "float32"), (19.0, "bfloat16")])
def test_bfloat16_is_taken_where_it_is_clearly_faster(folder, speeds, speed, precision):
    speeds["bfloat16"] = speed
    plan = make_plan(folder, name="discs", device=CPU, minutes=5)
    assert plan.recipe.training.precision == precision
    assert plan.images_per_second == speeds[precision]


def test_a_planned_recipe_trains_at_a_speed_that_was_measured(folder, tmp_path):
    plan = make_plan(folder, name="discs", device=CPU, class_names=["background", "disc"], from_scratch=True)
    assert plan.images_per_second > 0
    assert plan.recipe.data.class_names == ("background", "disc")
    short = plan.recipe.model_copy(
        update={"training": plan.recipe.training.model_copy(update={"epochs": 2, "validate_every": 1})}
    )
    result = tiny_run(short, folder, tmp_path / "run")
    assert isinstance(result, TrainingResult)
    assert result.best_score is not None
