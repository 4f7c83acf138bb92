from __future__ import annotations

import cv2
import numpy as np
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
    assert plan.segmenter.recipe.training.epochs == pytest.approx(2700 / 8, abs=1)
    assert plan.segmenter.minutes == pytest.approx(4.5, rel=0.01)


def test_without_a_limit_there_are_the_usual_steps(folder, speeds):
    training = make_plan(folder, name="discs", device=CPU).segmenter.recipe.training
    assert training.epochs == planning.EPOCHS[1]  # eight images make one step
    assert (training.validate_every, training.save_every) == (50, 50)


def test_a_short_time_still_trains_ten_epochs(folder, speeds):
    speeds["float32"] = speeds["bfloat16"] = 0.01
    assert make_plan(folder, name="discs", device=CPU, minutes=1).segmenter.recipe.training.epochs == 10


@pytest.mark.parametrize(("speed", "precision"), [(12.0, "float32"), (19.0, "bfloat16")])
def test_bfloat16_is_taken_where_it_is_clearly_faster(folder, speeds, speed, precision):
    speeds["bfloat16"] = speed
    plan = make_plan(folder, name="discs", device=CPU, minutes=5)
    assert plan.segmenter.recipe.training.precision == precision
    assert plan.segmenter.images_per_second == speeds[precision]


def test_a_small_spot_gets_two_networks_that_share_the_time(tmp_path, speeds):
    root = tmp_path / "spots"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(10):
        mask = cv2.circle(np.zeros((100, 200), np.uint8), (40 + 10 * index, 50), 15, 255, -1)
        cv2.imwrite(str(root / "images" / f"{index}.png"), np.dstack([mask // 2] * 3))
        cv2.imwrite(str(root / "masks" / f"{index}.png"), mask)
    plan = make_plan(root, name="spots", device=CPU, minutes=10)
    assert plan.survey.spot == pytest.approx(31 / 200)
    assert [part.recipe.name for part in plan.recipes] == ["spots-localizer", "spots"]
    assert [part.minutes for part in plan.recipes] == [pytest.approx(1.35, rel=0.02), pytest.approx(7.65, rel=0.02)]
    assert plan.localizer.recipe.data.class_names == ("background", "spot")


def test_a_planned_recipe_trains_at_a_speed_that_was_measured(folder, tmp_path):
    plan = make_plan(folder, name="discs", device=CPU, class_names=["background", "disc"], from_scratch=True)
    assert plan.segmenter.images_per_second > 0
    assert plan.segmenter.recipe.data.class_names == ("background", "disc")
    short = plan.segmenter.recipe.model_copy(
        update={"training": plan.segmenter.recipe.training.model_copy(update={"epochs": 2, "validate_every": 1})}
    )
    result = tiny_run(short, folder, tmp_path / "run")
    assert isinstance(result, TrainingResult)
    assert result.best_score is not None
