"""One tester for every data set: subclass it, give the opened splits, and it checks what all data sets promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.config.data_section import DataSection
from etnet.data.dataset import PairedFiles
from etnet.data.datasets import Split, open_dataset


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    """Writes an array with Pillow, in the format of the suffix, making folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def write_pairs(
    root: Path, names: list[str], *, values: tuple[int, ...] = (0, 1), size: tuple[int, int] = (24, 20)
) -> Path:
    """Writes `images/NAME.png` and `masks/NAME.png`; every mask holds all of the values."""
    random = np.random.default_rng(0)
    for name in names:
        save(root / "images" / f"{name}.png", random.integers(0, 256, (*size, 3), dtype=np.uint8))
        stripes = np.arange(size[0] * size[1]).reshape(size) % len(values)
        save(root / "masks" / f"{name}.png", np.array(values, dtype=np.uint8)[stripes])
    return root


class DatasetTester:
    """Give `data` and `root` as fixtures; `has_test` says whether there is a test part."""

    has_test = True

    @pytest.fixture
    def opened(self, data: DataSection, root: Path) -> dict[Split, PairedFiles]:
        splits: list[Split] = ["train", "validation", "all"]
        if self.has_test:
            splits.append("test")
        return {split: open_dataset(data, root, split, seed=3) for split in splits}

    def test_ids_are_unique(self, opened):
        for dataset in opened.values():
            assert len(set(dataset.ids)) == len(dataset) > 0

    def test_splits_share_no_sample(self, opened):
        names = [split for split in opened if split != "all"]
        files = [path for split in names for path in opened[split].images]
        assert len(set(files)) == len(files)

    def test_train_and_validation_together_are_all(self, opened):
        assert sorted(opened["train"].ids + opened["validation"].ids) == sorted(opened["all"].ids)

    def test_the_same_seed_gives_the_same_hold_out(self, opened, data, root):
        assert open_dataset(data, root, "validation", seed=3).ids == opened["validation"].ids

    def test_sizes_and_types_match(self, opened):
        for dataset in opened.values():
            for index in range(min(len(dataset), 3)):
                sample = dataset.load(index)
                assert sample.id == dataset.ids[index]
                assert sample.image.dtype == sample.mask.dtype == np.uint8
                assert sample.image.shape == (*sample.mask.shape, 3)
                if sample.field_of_view is not None:
                    assert sample.field_of_view.shape == sample.mask.shape
                    assert sample.field_of_view.dtype == np.bool_

    def test_labels_are_classes(self, opened, data):
        allowed = set(range(len(data.class_names))) | ({data.ignore_index} if data.ignore_index is not None else set())
        for dataset in opened.values():
            for index in range(min(len(dataset), 3)):
                assert set(np.unique(dataset.load(index).mask).tolist()) <= allowed

    def test_image_paths_exist(self, opened):
        for dataset in opened.values():
            assert all(dataset.image_path(index).is_file() for index in range(len(dataset)))

    def test_loading_twice_gives_the_same_arrays(self, opened):
        first, second = opened["train"].load(0), opened["train"].load(0)
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.mask, second.mask)
