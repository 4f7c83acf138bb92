from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from etnet.config.load import recipe_from_values
from etnet.config.schema import Recipe
from etnet.data.roi import mask_center, window_around
from etnet.errors import DataError
from etnet.models import ETNetOutput
from etnet.training.validation import validate
from etnet.types import Sample
from helpers.backends import image_of
from helpers.bundles import draw_disc
from helpers.runs import TINY, tiny_run, write_disc_folder
from helpers.samples import Samples


class RedNetwork(torch.nn.Module):
    """The class of a pixel is its red value: 0, 1 or 2."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        contract = recipe.contract()
        self.mean, self.std = contract.mean[0], contract.std[0]

    def forward(self, images: torch.Tensor) -> ETNetOutput:
        red = (images[:, 0] * self.std + self.mean).round()
        return ETNetOutput(-torch.stack([(red - index).abs() for index in range(3)], dim=1), None)


def regional_recipe(**training: int) -> Recipe:
    data = {
        "class_names": ["background", "optic_rim", "optic_cup"],
        "roi": {"side": 0.4, "size": 48},
        "crop_size": 48,
    }
    return recipe_from_values({"name": "regional", "data": data, "training": training}, "test recipe")


def test_a_network_of_regions_is_validated_around_true_centres_on_the_whole_image():
    recipe = regional_recipe()
    mask = draw_disc((100, 120), (50, 60), 12)
    seen = mask.copy()
    # Inside the region the network is wrong, and outside of it the network is not asked.
    seen[45:50, 40:45] = 2
    seen[:5, :5] = 2
    mask[:5, 115:] = 1
    scores = validate(RedNetwork(recipe), Samples(Sample("eye", image_of(seen), mask)), recipe=recipe)
    window = window_around(mask_center(mask), mask.shape, recipe.data.roi)
    labels = np.where(window.inside(mask.shape), seen, 0)
    assert labels[45:50, 40:45].all()
    assert not labels[:5].any()
    expected = f1_score(mask.ravel(), labels.ravel(), labels=[1, 2], average="macro")
    assert scores.mean_foreground_dice == pytest.approx(expected)


def overrides(*more: str) -> Recipe:
    from etnet.config.load import load_recipe

    region = ("data.roi.side=0.6", "data.roi.size=32", "training.epochs=2")
    return load_recipe("folder", [*TINY, *region, *more])


def test_a_network_of_regions_is_trained_and_validated(tmp_path):
    result = tiny_run(overrides(), write_disc_folder(tmp_path / "discs"), tmp_path / "run")
    assert result.best_score is not None
    assert 0 <= result.best_score <= 1


def test_a_held_out_mask_without_structure_is_found_before_training(tmp_path):
    data = write_disc_folder(tmp_path / "discs")
    recipe = overrides("data.validation_fraction=0.9")
    for path in sorted(Path(data / "masks").iterdir())[1:]:
        cv2.imwrite(str(path), np.zeros((48, 48), np.uint8))
    with pytest.raises(DataError, match="its mask holds only background"):
        tiny_run(recipe, data, tmp_path / "run")
    assert not (tmp_path / "run/metrics.csv").exists()


def test_training_masks_without_structure_are_found_before_training_and_counted(tmp_path):
    data = write_disc_folder(tmp_path / "discs")
    for path in sorted(Path(data / "masks").iterdir())[:3]:
        cv2.imwrite(str(path), np.zeros((48, 48), np.uint8))
    with pytest.raises(DataError, match=r"disc_0 \(and 2 more\): its mask holds only background"):
        tiny_run(overrides("data.validation_fraction=0"), data, tmp_path / "run")
    assert not (tmp_path / "run/metrics.csv").exists()


def test_the_row_holds_the_dice_of_groups_too():
    recipe = regional_recipe()
    data = recipe.data.model_copy(update={"class_groups": {"optic_disc": ("optic_rim", "optic_cup")}, "roi": None})
    recipe = recipe.model_copy(update={"data": data})
    mask = draw_disc((96, 112), (50, 60), 12)
    seen = np.where(mask == 2, 1, mask).astype(np.uint8)
    seen[45:50, 20:25] = 1
    row = validate(RedNetwork(recipe), Samples(Sample("eye", image_of(seen), mask)), recipe=recipe).row()
    assert row["validation_dice_optic_disc"] == pytest.approx(f1_score(mask.ravel() > 0, seen.ravel() > 0))
