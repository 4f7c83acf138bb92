from __future__ import annotations

import numpy as np
import pytest

from etnet.config.data_section import AugmentationSection, DataSection, RoiSection
from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.contact_sheet import contact_sheet
from etnet.data.datasets import open_dataset
from etnet.data.loader import SampleStream, StreamItem, augment_by_recipe
from etnet.data.sheet import FRAME, masked
from etnet.errors import DataError
from helpers.datasets import save, write_pairs
from helpers.layouts import write_drishti

TILE, STEP, TOP, LEFT = 320, 332, 88, 24
DATA = DataSection(crop_size=32, validation_fraction=0.0, class_colors=((0, 0, 0), (0, 255, 0)))
RECIPE = Recipe(data=DATA, augmentation=AugmentationSection(color_jitter=0.5))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_pairs(tmp_path_factory.mktemp("pairs"), ["a", "b", "c"], size=(40, 40))
    return open_dataset(DATA, root, "all")


def tile(sheet: np.ndarray, column: int, row: int = 0) -> np.ndarray:
    top, left = TOP + row * (STEP + 26), LEFT + column * STEP
    return sheet[top : top + TILE, left : left + TILE]


def test_tiles_are_image_mask_edges_and_what_the_first_epochs_see(dataset):
    sheet = contact_sheet(dataset, RECIPE, rows=1, seed=5)
    stream = SampleStream(len(dataset), 5)
    item = stream.item(0)
    source = dataset.load(item.index)
    assert np.array_equal(tile(sheet, 0)[4::8, 4::8], source.image)
    colored = masked(source.image, source.mask, np.array([[0, 0, 0], [0, 255, 0]], np.uint8), strength=0.5)
    assert np.array_equal(tile(sheet, 1)[4::8, 4::8], colored)
    for epoch in range(3):
        seen = augment_by_recipe(source, RECIPE, generator=stream.generator(StreamItem(epoch, item.index)))
        background = seen.mask == 0
        drawn = tile(sheet, 3 + epoch)[5::10, 5::10]
        assert background.any()
        assert np.array_equal(drawn[background], seen.image[background])


def test_the_region_of_interest_is_drawn_on_the_whole_image(tmp_path):
    recipe = load_recipe("drishti_gs")
    data = recipe.data.model_copy(update={"roi": RoiSection(side=0.5, size=64), "crop_size": 64})
    recipe = recipe.model_copy(update={"data": data})
    dataset = open_dataset(data, write_drishti(tmp_path), "all")
    whole = tile(contact_sheet(dataset, recipe, rows=1), 0)
    rows, columns = np.nonzero((np.abs(whole.astype(int) - FRAME) < 40).all(axis=2))
    # The disc's centre is row 12, column 16 of 30x40 pixels; the square has 20 pixels, the tile 8 per pixel, and the
    # image lies 40 pixels below the tile's top.
    assert abs(rows.min() - (40 + 8 * 2)) <= 2
    assert abs(rows.max() - (40 + 8 * 22)) <= 2
    assert abs(columns.min() - 8 * 6) <= 2
    assert abs(columns.max() - 8 * 26) <= 2


def test_the_seed_chooses_images_and_changes(dataset):
    first, same, other = (contact_sheet(dataset, RECIPE, rows=2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_there_is_one_row_per_image_up_to_the_limit(dataset):
    heights = [contact_sheet(dataset, RECIPE, rows=rows).shape[0] for rows in (1, 2, 3, 9)]
    assert np.diff(heights).tolist() == [STEP + 26, STEP + 26, 0]


def test_ignored_pixels_and_masks_without_structure_are_drawn(tmp_path):
    data = DATA.model_copy(update={"ignore_index": 255, "roi": None})
    write_pairs(tmp_path, ["a"], values=(0, 1, 255), size=(9, 7))
    save(tmp_path / "masks" / "a.png", np.array([[0, 255, 1]] * 9, np.uint8).repeat(3, axis=1)[:, :7])
    sheet = contact_sheet(open_dataset(data, tmp_path, "all"), RECIPE.model_copy(update={"data": data}))
    assert (tile(sheet, 2) == (120, 120, 120)).all(axis=2).any()


def test_an_empty_data_set_is_refused(dataset):
    with pytest.raises(DataError, match="nothing to preview"):
        contact_sheet(dataset.subset([]), RECIPE)
