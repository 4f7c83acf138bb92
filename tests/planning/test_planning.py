from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from etnet.errors import OutOfMemory, UsageError
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


def reason_of(plan, key):
    return next(one.reason for one in plan.segmenter.decisions if one.key == key)


def test_a_short_time_still_trains_ten_epochs_and_says_that_they_take_longer(folder, speeds):
    speeds["float32"] = speeds["bfloat16"] = 0.01
    plan = make_plan(folder, name="discs", device=CPU, minutes=1)
    assert plan.segmenter.recipe.training.epochs == 10
    assert reason_of(plan, "training.epochs") == "the fewest that make sense, which take longer than 1 min"


@pytest.mark.parametrize(
    ("minutes", "reason"), [(None, "the most that make sense"), (5, "what fits into 5 min at 10.0 images/s")]
)
def test_the_reason_of_the_length_is_the_one_that_decided(folder, speeds, minutes, reason):
    assert reason_of(make_plan(folder, name="discs", device=CPU, minutes=minutes), "training.epochs").startswith(reason)


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_no_number_is_refused(folder, minutes):
    with pytest.raises(UsageError, match="expected a number of minutes above 0"):
        make_plan(folder, name="discs", device=CPU, minutes=minutes)


def test_a_patient_that_is_held_out_as_a_whole_counts_as_a_whole(tmp_path, speeds):
    folder = write_disc_folder(tmp_path / "eyes", count=10, size=64)
    for part in ("images", "masks"):
        for path in (folder / part).iterdir():
            index = int(path.stem.removeprefix("disc_"))
            path.rename(path.with_name(f"p{index // 5}_{index}.png"))
    plan = make_plan(folder, name="eyes", device=CPU, minutes=5)
    assert plan.survey.patients == 2
    assert plan.segmenter.recipe.training.epochs == pytest.approx(2700 / 5, abs=1), "one patient is trained on"


def test_a_batch_that_is_too_large_for_the_device_is_halved(folder, monkeypatch):
    def speed(recipe, **_):
        if recipe.training.batch_size > 2:
            raise OutOfMemory("too little memory")
        return 10.0

    monkeypatch.setattr(planning, "images_per_second", speed)
    plan = make_plan(folder, name="discs", device=CPU)
    assert plan.segmenter.recipe.training.batch_size == 2
    assert reason_of(plan, "training.batch_size") == "a larger one does not fit into memory"


def test_a_device_that_is_too_small_for_one_crop_is_told_so(folder, monkeypatch):
    def fail(*_, **__):
        raise OutOfMemory("too little memory")

    monkeypatch.setattr(planning, "images_per_second", fail)
    with pytest.raises(OutOfMemory):
        make_plan(folder, name="discs", device=CPU)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_images_are_enough_for_a_recipe_that_trains(tmp_path, count):
    root = write_disc_folder(tmp_path / "few", count=count, size=64)
    recipe = make_plan(root, name="few", device=CPU, from_scratch=True).segmenter.recipe
    assert recipe.training.batch_size == 1
    shortened = recipe.training.model_copy(update={"epochs": 1, "validate_every": 1})
    assert tiny_run(recipe.model_copy(update={"training": shortened}), root, tmp_path / "run").iterations == 1


@pytest.mark.parametrize(
    ("speed", "precision", "reason"),
    [
        (12.0, "float32", "bfloat16 has only 1.2 times its speed on this processor"),
        (5.0, "float32", "bfloat16 has only 0.5 times its speed on this processor"),
        (19.0, "bfloat16", "1.9 times as fast as float32 on this processor"),
    ],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(folder, speeds, speed, precision, reason):
    speeds["bfloat16"] = speed
    plan = make_plan(folder, name="discs", device=CPU, minutes=5)
    assert plan.segmenter.recipe.training.precision == precision
    assert reason_of(plan, "training.precision") == reason
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
