from __future__ import annotations

import multiprocessing
import os
from collections import Counter

import numpy as np
import pytest
import torch

from etnet.config.data_section import AugmentationSection, DataSection
from etnet.config.schema import Recipe, TrainingSection
from etnet.data.datasets import open_dataset
from etnet.data.loader import (
    SampleStream,
    StreamItem,
    build_training_loader,
    resolve_workers,
)
from etnet.data.transforms import augment
from etnet.errors import DataError
from helpers.datasets import write_pairs

# More workers than cores are slow, but must not change the batches.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

RECIPE = Recipe(
    data=DataSection(crop_size=32, validation_fraction=0.0), training=TrainingSection(batch_size=3, seed=11)
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_pairs(tmp_path_factory.mktemp("pairs"), [f"s{number}" for number in range(7)])
    return open_dataset(RECIPE.data, root, "train")


def batches(dataset, *, start: int = 0, total: int = 6, workers: int = 0, recipe: Recipe = RECIPE):
    return list(build_training_loader(dataset, recipe, start_iteration=start, total_iterations=total, workers=workers))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.ids == other.ids
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def test_batches_have_the_promised_types(dataset):
    batch = batches(dataset)[0]
    assert isinstance(batch.ids, tuple)
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for target in (batch.masks, batch.edges):
        assert target.shape == (3, 32, 32)
        assert target.dtype == torch.uint8
        assert set(target.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_batches(dataset, workers):
    assert_same(batches(dataset), batches(dataset, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_any_start_continues_the_same_stream(dataset, workers):
    assert_same(batches(dataset)[4:], batches(dataset, start=4, workers=workers))


def test_a_run_that_is_over_has_no_batches(dataset):
    assert batches(dataset, start=6) == []


def test_a_batch_is_made_of_the_samples_of_the_stream(dataset):
    stream = SampleStream(len(dataset), 11)
    for iteration, batch in enumerate(batches(dataset)):
        for place in range(3):
            item = stream.item(iteration * 3 + place)
            expected = augment(
                dataset.load(item.index),
                crop_size=32,
                augmentation=RECIPE.augmentation,
                edge_width=RECIPE.data.edge_width,
                generator=np.random.default_rng([11, item.epoch, item.index]),
            )
            assert batch.ids[place] == expected.id
            assert np.array_equal(batch.images[place].permute(1, 2, 0).numpy(), expected.image)
            assert np.array_equal(batch.masks[place].numpy(), expected.mask)
            assert np.array_equal(batch.edges[place].numpy(), expected.edge)


def test_every_epoch_holds_every_sample_once_in_its_own_order():
    stream = SampleStream(9, 0)
    epochs = [[stream.item(epoch * 9 + place) for place in range(9)] for epoch in range(3)]
    for epoch, items in enumerate(epochs):
        assert Counter(item.index for item in items) == Counter(range(9))
        assert {item.epoch for item in items} == {epoch}
    orders = {tuple(item.index for item in items) for items in epochs}
    assert len(orders) == 3


def test_no_two_places_of_a_run_share_their_randomness_and_another_seed_has_another():
    stream = SampleStream(5, 3)
    draws = {stream.generator(StreamItem(epoch, index)).random() for epoch in range(4) for index in range(5)}
    assert len(draws) == 20
    assert SampleStream(5, 4).generator(StreamItem(0, 0)).random() not in draws
    # The order of an epoch must not be drawn from the generator of its sample 0.
    order = [stream.item(place).index for place in range(5)]
    assert order != stream.generator(StreamItem(0, 0)).permutation(5).tolist()


def test_batches_do_not_stop_at_the_end_of_an_epoch(dataset):
    ids = [name for batch in batches(dataset, total=7) for name in batch.ids]
    assert len(ids) == 21
    assert Counter(ids) == Counter({f"s{number}": 3 for number in range(7)})


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_random_state_is_not_moved(dataset, workers):
    before = torch.get_rng_state()
    batches(dataset, total=2, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_worker_cannot_read_is_one_clean_sentence(tmp_path, workers):
    write_pairs(tmp_path, ["a", "b", "c"])
    dataset = open_dataset(RECIPE.data, tmp_path, "train")
    (tmp_path / "images" / "b.png").write_bytes(b"broken after opening")
    with pytest.raises(DataError) as caught:
        batches(dataset, workers=workers)
    assert "b.png: cannot be read as a picture" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_an_empty_training_split_is_refused(dataset):
    with pytest.raises(DataError, match="the training split holds no images"):
        batches(dataset.subset([]))


def test_ignored_pixels_reach_masks_and_edges(tmp_path):
    write_pairs(tmp_path, ["a"], values=(0, 1, 255))
    data = RECIPE.data.model_copy(update={"ignore_index": 255})
    recipe = RECIPE.model_copy(update={"data": data, "augmentation": AugmentationSection(rotation=0.0)})
    batch = batches(open_dataset(data, tmp_path, "train"), recipe=recipe)[0]
    assert 255 in batch.masks
    assert torch.equal(batch.edges == 255, batch.masks == 255)


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 0), (3, 2), (8, 7), (64, 8)])
def test_auto_workers_leave_a_core_free(monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert resolve_workers("auto") == expected
    assert resolve_workers(5) == 5


def test_loader_on_real_drive_images(drive_root):
    data = DataSection(dataset="drive", class_names=("background", "vessel"), crop_size=128)
    recipe = Recipe(data=data, training=TrainingSection(batch_size=2))
    dataset = open_dataset(data, drive_root, "train")
    found = batches(dataset, total=4, recipe=recipe)
    assert all(batch.images.float().std() > 1 for batch in found)
    share = torch.stack([batch.masks.float().mean() for batch in found]).mean()
    assert 0.02 < share < 0.3
    assert_same(found, batches(dataset, total=4, recipe=recipe, workers=2))


def test_training_processes_share_every_batch_in_the_order_of_their_ranks(dataset):
    recipe = RECIPE.model_copy(update={"training": TrainingSection(batch_size=4, seed=11)})
    parts = [
        list(
            build_training_loader(
                dataset, recipe, start_iteration=1, total_iterations=5, workers=0, rank=rank, world_size=2
            )
        )
        for rank in range(2)
    ]
    whole = batches(dataset, start=1, total=5, recipe=recipe)
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch.ids == first.ids + second.ids
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))


def test_workers_end_with_the_loop_that_used_them(dataset):
    loader = build_training_loader(dataset, RECIPE, start_iteration=0, total_iterations=50, workers=2)
    for _ in loader:
        break
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("told", "expected"), [("2", 7), ("", 3)])
def test_processes_that_train_together_share_the_cores_of_their_machine(monkeypatch, told, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", told)
    assert resolve_workers("auto", world_size=4) == expected
    assert resolve_workers("auto") == 8
