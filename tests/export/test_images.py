from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.data.resize import resize_image, resize_mask
from etnet.errors import DataError, UsageError
from etnet.export.images import (
    DEFAULT_SIZE,
    MOST_IMAGES,
    check_size,
    fit_fixed_size,
    load_folder,
    load_run_images,
    open_run_images,
    suggest_size,
)
from etnet.inference.compare import ComparisonImage
from etnet.inference.preprocess import fit, region_contract
from etnet.manifest import WeightsInfo
from etnet.types import RegionOfInterest
from helpers.backends import contract, photographs
from helpers.runs import tiny_recipe, write_disc_folder


def info_of(root: Path, *, trained: list[str] | None = None, overrides: tuple[str, ...] = ()) -> WeightsInfo:
    """The header of weights trained on a folder of eight discs of 48x48 pixels."""
    recipe = tiny_recipe(*overrides)
    state = {} if trained is None else {"training_ids": trained}
    return WeightsInfo(Path("best.safetensors"), recipe.contract(), recipe, 1, 1, "0.1.0", str(root), state)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_disc_folder(tmp_path / "data")


def test_images_that_were_not_trained_on_are_taken(data):
    trained = [f"disc_{index}" for index in range(6)]
    found = open_run_images(info_of(data, trained=trained))
    assert (found.kind, found.dataset.ids) == ("validation", ("disc_6", "disc_7"))


def test_images_that_joined_the_folder_later_are_new_to_the_network_too(data):
    everything = [f"disc_{index}" for index in range(8)]
    assert open_run_images(info_of(data, trained=everything)).kind == "training"
    for part in ("images", "masks"):
        (data / part / "late.png").write_bytes((data / part / "disc_0.png").read_bytes())
    assert open_run_images(info_of(data, trained=everything)).dataset.ids == ("late",)


def test_weights_that_do_not_say_what_they_were_trained_on_follow_the_recipe(data):
    assert len(open_run_images(info_of(data)).dataset) == 2
    found = open_run_images(info_of(data, overrides=("data.validation_fraction=0",)))
    assert (found.kind, len(found.dataset)) == ("training", 8)


def test_a_data_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone: the data that best\.safetensors was trained on is not there"):
        open_run_images(info_of(tmp_path / "gone"))


def test_the_size_is_that_which_the_recipe_resizes_to(tmp_path):
    info = info_of(tmp_path / "gone")
    info = replace(info, contract=replace(info.contract, image_size=(100, 200)))
    assert suggest_size(info)[0] == (112, 208)


def test_the_size_is_that_of_all_images_of_the_run(data):
    assert suggest_size(info_of(data))[0] == (48, 48)


def test_images_of_different_sizes_suggest_the_default(data):
    for part in ("images", "masks"):
        with Image.open(data / part / "disc_0.png") as picture:
            larger = picture.resize((80, 64), Image.Resampling.NEAREST)
        larger.save(data / part / "disc_0.png")
    size, reason = suggest_size(info_of(data, overrides=("data.validation_fraction=0",)))
    assert size == DEFAULT_SIZE
    assert "--dynamic" in reason


def test_without_the_images_the_default_is_suggested(tmp_path):
    assert suggest_size(info_of(tmp_path / "gone")) == (DEFAULT_SIZE, "the images of the run are not there")


def test_a_large_run_lends_a_few_images_spread_over_it(tmp_path):
    data = write_disc_folder(tmp_path / "many", count=2 * MOST_IMAGES + 1)
    info = info_of(data, overrides=("data.validation_fraction=0",))
    found = load_run_images(open_run_images(info), info.contract, None)
    assert len(found) == MOST_IMAGES
    ids = open_run_images(info).dataset.ids
    assert (found[0].id, found[-1].id) == (ids[0], ids[-1])
    assert all(item.mask is not None for item in found)


def regional(*overrides: str, root: Path, **values) -> WeightsInfo:
    """The header of weights trained on squares of half the width around the discs."""
    info = info_of(root, overrides=overrides, **values)
    return replace(info, contract=replace(info.contract, roi=RegionOfInterest(side=0.5, size=32)))


def test_a_network_of_regions_is_compared_on_regions_cut_at_the_true_centres(data):
    info = regional("data.validation_fraction=0", root=data)
    images = open_run_images(info)
    found = load_run_images(images, info.contract, (32, 32))
    assert len(found) == 8
    for index, item in enumerate(found):
        sample = images.dataset.load(index)
        rows, columns = np.nonzero(sample.mask)
        # 24 of 48 pixels, in whole ones around the centre of the disc, and inside the image.
        top, left = round(rows.mean() + 0.5 - 12), round(columns.mean() + 0.5 - 12)
        square = (slice(top, top + 24), slice(left, left + 24))
        np.testing.assert_array_equal(item.image, resize_image(np.ascontiguousarray(sample.image[square]), (32, 32)))
        np.testing.assert_array_equal(item.mask, resize_mask(np.ascontiguousarray(sample.mask[square]), (32, 32)))
        assert item.mask.any()


def test_the_size_of_a_network_of_regions_is_theirs_and_no_other(tmp_path):
    info = regional(root=tmp_path / "gone")
    assert suggest_size(info) == ((32, 32), "the size of the region of interest")
    check_size((32, 32), multiple=16, roi=info.contract.roi)
    with pytest.raises(UsageError, match=r"size 48x48 .* at 32x32; leave --size out"):
        check_size((48, 48), multiple=16, roi=info.contract.roi)


def test_images_of_a_folder_are_regions_that_were_cut_already(tmp_path):
    picture = photographs(1, 50, 70)[0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    rule = contract(roi=RegionOfInterest(side=0.5, size=32))
    (item,) = load_folder(tmp_path, rule, (32, 32))
    padded, _ = fit(item.image, region_contract(rule))
    np.testing.assert_array_equal(padded, resize_image(picture, (32, 32)))


def test_an_image_of_the_fixed_size_stays_as_it_is():
    item = ComparisonImage("a", photographs(1, 45, 60)[0])
    assert fit_fixed_size(item, contract(), (48, 64)) is item
    assert fit_fixed_size(item, contract(), None) is item


def test_another_image_is_resized_with_its_mask():
    mask = np.zeros((90, 30), np.uint8)
    mask[:, 15:] = 2
    fitted = fit_fixed_size(ComparisonImage("a", photographs(1, 90, 30)[0], mask), contract(), (48, 64))
    assert fitted.image.shape == (48, 64, 3)
    assert fitted.mask.shape == (48, 64)
    np.testing.assert_array_equal(fitted.mask[:, :32], 0)
    np.testing.assert_array_equal(fitted.mask[:, 32:], 2)


def test_all_images_of_a_folder_are_read_and_a_bad_one_is_named(tmp_path):
    for index, image in enumerate(photographs(3, 20, 30)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    assert [item.id for item in load_folder(tmp_path, contract(), None)] == ["0", "1", "2"]
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png: the file is empty"):
        load_folder(tmp_path, contract(), None)
