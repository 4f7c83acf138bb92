from __future__ import annotations

from pathlib import Path

import pytest
import torch

from etnet.data.datasets import open_training_splits
from etnet.training.announcement import what_is_trained
from helpers.runs import tiny_recipe, write_disc_folder


@pytest.mark.parametrize(
    ("count", "overrides", "warned"),
    [
        (1, (), "Warning: there is only one image, so none is held out"),
        (3, ("data.patient_pattern=(disc)_.*",), "Warning: all images are of one patient, so none is held out"),
        (3, (), None),
        (3, ("data.validation_fraction=0",), None),
    ],
)
def test_nothing_held_out_against_the_recipe_is_told(
    count: int, overrides: tuple[str, ...], warned: str | None, tmp_path: Path
) -> None:
    recipe = tiny_recipe(*overrides)
    training, validation = open_training_splits(recipe.data, write_disc_folder(tmp_path / "discs", count=count), seed=0)
    sentences = what_is_trained(
        recipe, training, held_out=len(validation), device=torch.device("cpu"), run=tmp_path / "run"
    )
    told = [sentence for sentence in sentences if sentence.startswith("Warning")]
    assert len(told) == (warned is not None)
    assert warned is None or told[0].startswith(warned)
