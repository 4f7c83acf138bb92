from __future__ import annotations

import numpy as np
import pytest

from etnet.config.data_section import AugmentationSection, DataSection
from etnet.config.schema import Recipe, TrainingSection
from etnet.data.datasets import open_dataset
from etnet.data.loader import build_training_loader
from etnet.data.preview import batch_preview, training_preview
from etnet.errors import DataError
from helpers.datasets import write_pairs

DATA = DataSection(crop_size=32, validation_fraction=0.0, class_colors=((0, 0, 0), (0, 255, 0)))
RECIPE = Recipe(data=DATA, augmentation=AugmentationSection(color_jitter=0.0), training=TrainingSection(batch_size=2))
TILE = 300


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_pairs(tmp_path_factory.mktemp("pairs"), ["a", "b", "c"], size=(40, 30))
    return open_dataset(DATA, root, "train")


def test_the_sheet_shows_the_samples_that_training_sees_first(dataset):
    sheet = training_preview(dataset, RECIPE)
    assert sheet.dtype == np.uint8
    loader = build_training_loader(dataset, RECIPE, start_iteration=0, total_iterations=1, workers=0)
    first = next(iter(loader)).images[0].permute(1, 2, 0).numpy()
    # The second tile of the first row, at the centres of its enlarged pixels.
    centres = ((np.arange(32) + 0.5) * TILE / 32).astype(int)
    top, left = 88, 24 + TILE + 12
    assert np.array_equal(sheet[top + centres][:, left + centres], first)


def test_the_sheet_has_one_row_per_sample_up_to_the_limit(dataset):
    heights = [training_preview(dataset, RECIPE, rows=rows).shape[0] for rows in (1, 2, 3, 9)]
    assert heights[1] - heights[0] == heights[2] - heights[1] > TILE
    assert heights[3] == heights[2]


def test_the_sheet_is_the_same_every_time(dataset):
    assert np.array_equal(training_preview(dataset, RECIPE), training_preview(dataset, RECIPE))


def test_ignored_pixels_and_tiny_images_are_drawn(tmp_path):
    data = DATA.model_copy(update={"ignore_index": 255})
    write_pairs(tmp_path, ["a"], values=(0, 1, 255), size=(1, 3))
    sheet = training_preview(open_dataset(data, tmp_path, "train"), RECIPE.model_copy(update={"data": data}))
    assert (sheet == (120, 120, 120)).all(axis=2).any()


def test_an_empty_data_set_is_refused(dataset):
    with pytest.raises(DataError, match="nothing to preview"):
        training_preview(dataset.subset([]), RECIPE)


def test_every_sample_of_a_batch_is_drawn_as_the_network_was_given_it(dataset):
    batch = next(iter(build_training_loader(dataset, RECIPE, start_iteration=0, total_iterations=1, workers=0)))
    sheet = batch_preview(batch, RECIPE, title="iteration 1")
    centres = ((np.arange(32) + 0.5) * TILE / 32).astype(int)
    row = training_preview(dataset, RECIPE, rows=2).shape[0] - training_preview(dataset, RECIPE, rows=1).shape[0]
    for place in range(2):
        shown = sheet[88 + place * row + centres][:, 24 + centres]
        assert np.array_equal(shown, batch.images[place].permute(1, 2, 0).numpy())
