from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import etnet.data.sample_cache
from etnet.config.data_section import AugmentationSection, DataSection
from etnet.config.schema import Recipe, TrainingSection
from etnet.data.datasets import open_dataset
from etnet.data.loader import build_training_loader
from etnet.data.resize import resize_image, resize_mask
from etnet.data.sample_cache import CachedDataset, CachePlace, local_processes, removed_at_the_end
from etnet.data.sample_tiers import FileTier
from etnet.data.transforms import augment
from helpers.datasets import save, write_pairs

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SAMPLE_BYTES = 24 * 20 * 4
NAMES = ("a", "b", "c")
GIBIBYTE = 2**30


class Counting:
    """A data set that notes what is decoded."""

    def __init__(self, dataset):
        self.dataset, self.ids, self.loads = dataset, dataset.ids, []

    def __len__(self):
        return len(self.ids)

    def load(self, index):
        self.loads.append(index)
        return self.dataset.load(index)

    def image_path(self, index):
        return self.dataset.image_path(index)

    def source_key(self, index):
        return self.dataset.source_key(index)


@pytest.fixture
def root(tmp_path):
    return write_pairs(tmp_path / "pairs", list(NAMES))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def counting(root, **data) -> Counting:
    return Counting(open_dataset(DataSection(**data), root, "all"))


def cached(source, *, folder=None, workers: int = 0, processes: int = 1, **data) -> CachedDataset:
    place = CachePlace(folder, workers=workers, local_processes=processes)
    return CachedDataset.by_recipe(source, DataSection(**data), place)


def load(cache: CachedDataset, *indices: int):
    samples = [cache.load(index) for index in indices]
    for index, sample in zip(indices, samples, strict=True):
        expected = cache.dataset.dataset.load(index)
        assert sample.id == expected.id
        assert np.array_equal(sample.image, expected.image)
        assert np.array_equal(sample.mask, expected.mask)
    return samples


def test_every_sample_is_decoded_once(root):
    source = counting(root)
    cache = cached(source)
    load(cache, 0, 1, 0, 2, 1, 0)
    assert source.loads == [0, 1, 2]
    assert cache.ids == source.ids
    assert len(cache) == 3
    assert cache.image_path(1).name == "b.png"
    assert cache.source_key(1) == source.source_key(1)


def test_beyond_the_memory_limit_samples_go_to_disk_and_beyond_that_are_decoded(root, run):
    source, folder = counting(root), run / "cache"
    cache = cached(
        source, folder=folder, cache_memory=SAMPLE_BYTES / GIBIBYTE, cache_disk=(SAMPLE_BYTES + 64) / GIBIBYTE
    )
    load(cache, 0, 1, 2, 0, 1, 2)
    assert source.loads == [0, 1, 2, 2]
    assert len(list(folder.iterdir())) == 1
    assert cache.complaint() is None


def test_without_limits_left_nothing_is_kept(root, run):
    source = counting(root)
    load(cached(source, folder=run / "cache", cache_memory=0, cache_disk=0), 0, 0)
    assert source.loads == [0, 0]
    assert not (run / "cache").exists()


def test_a_data_set_that_fits_into_memory_leaves_the_disk_alone(root, run):
    load(cached(counting(root), folder=run / "cache"), 0, 1, 2)
    assert not (run / "cache").exists()


def test_limits_are_shared_by_the_processes_of_a_machine(root, run):
    source = counting(root)
    limits = {"cache_memory": 2 * SAMPLE_BYTES / GIBIBYTE, "cache_disk": 12 * (SAMPLE_BYTES + 64) / GIBIBYTE}
    cache = cached(source, folder=run / "cache", workers=3, processes=2, **limits)
    load(cache, 0, 1)
    assert len(list((run / "cache").iterdir())) == 1, "the second: memory is for one sample per training process"
    assert cache.files.limit_bytes == 2 * (SAMPLE_BYTES + 64)


def test_files_of_a_killed_run_serve_the_one_that_continues_it_and_count_for_its_limit(root, run):
    folder = run / "cache"
    limits = {"cache_memory": 0, "cache_disk": 2 * (SAMPLE_BYTES + 64) / GIBIBYTE}
    load(cached(counting(root), folder=folder, **limits), 0, 1)
    source = counting(root)
    load(cached(source, folder=folder, **limits), 0, 1, 2)
    assert source.loads == [2]
    assert len(list(folder.iterdir())) == 2


def _touch(root):
    path = root / "images" / "a.png"
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def _other_content(root):
    save(root / "images" / "a.png", np.full((24, 20, 3), 7, np.uint8))


def _other_mask(root):
    save(root / "masks" / "a.png", np.eye(24, 20, dtype=np.uint8))


@pytest.mark.parametrize("change", [_touch, _other_content, _other_mask])
def test_files_that_changed_are_decoded_again(root, run, change):
    load(cached(counting(root), folder=run / "cache", cache_memory=0), 0, 1)
    change(root)
    source = counting(root)
    load(cached(source, folder=run / "cache", cache_memory=0), 0, 1)
    assert source.loads == [0]


@pytest.mark.parametrize(
    "data",
    [
        {"mask_values": {0: 1, 1: 0}},
        {"intensity_window": (0.0, 100.0)},
        {"image_size": (12, 10)},
    ],
)
def test_other_ways_to_read_are_other_samples(root, run, data):
    folder = run / "cache"
    cached(counting(root), folder=folder, cache_memory=0).load(0)
    source = counting(root, **data)
    cached(source, folder=folder, cache_memory=0, **data).load(0)
    assert source.loads == [0]
    assert len(list(folder.iterdir())) == 2


def test_other_versions_of_the_decoders_are_other_samples(root, run, monkeypatch):
    cached(counting(root), folder=run / "cache", cache_memory=0).load(0)
    monkeypatch.setattr(cv2, "__version__", "0.0.0")
    source = counting(root)
    cached(source, folder=run / "cache", cache_memory=0).load(0)
    assert source.loads == [0]


@pytest.mark.parametrize("limits", [{}, {"cache_memory": 0}, {"cache_memory": 0, "cache_disk": 0}])
def test_resizing_once_gives_the_crops_of_resizing_every_time(root, run, limits):
    data = DataSection(image_size=(48, 40), crop_size=32)
    source = open_dataset(data, root, "all")
    cache = cached(source, folder=run / "cache", image_size=data.image_size, **limits)
    for seed in range(4):
        original, sample = source.load(seed % 2), cache.load(seed % 2)
        assert np.array_equal(sample.image, resize_image(original.image, (48, 40)))
        assert np.array_equal(sample.mask, resize_mask(original.mask, (48, 40)))
        one, other = (
            augment(
                each,
                crop_size=32,
                augmentation=AugmentationSection(),
                edge_width=3,
                image_size=data.image_size,
                generator=np.random.default_rng(seed),
            )
            for each in (original, sample)
        )
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.edge, other.edge)


def test_a_limit_above_what_the_system_maps_is_lowered(root):
    source = counting(root)
    cache = cached(source, cache_memory=2.0**40)
    load(cache, 0, 0)
    assert source.loads == [0]


def test_auto_takes_a_quarter_of_what_is_free(root, run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4000))
    cache = cached(counting(root), folder=run / "cache")
    assert cache.files.limit_bytes == 1000


def test_what_a_killed_run_left_counts_once(root, run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3200))
    (run / "cache").mkdir()
    (run / "cache" / "left.sample").write_bytes(bytes(800))
    cache = cached(counting(root), folder=run / "cache")
    assert cache.files.limit_bytes == 1000 - 800


RECIPE = Recipe(
    data=DataSection(crop_size=32, validation_fraction=0.0), training=TrainingSection(batch_size=3, seed=11)
)


def batches(root, *, workers: int, folder=None, warnings=None, **limits):
    recipe = RECIPE.model_copy(update={"data": RECIPE.data.model_copy(update=limits)})
    loader = build_training_loader(
        open_dataset(recipe.data, root, "train"),
        recipe,
        start_iteration=0,
        total_iterations=5,
        workers=workers,
        cache_folder=folder,
        warn=(warnings if warnings is not None else []).append,
    )
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"cache_memory": SAMPLE_BYTES / GIBIBYTE},
        {"cache_memory": 0},
        {"cache_memory": SAMPLE_BYTES / GIBIBYTE, "cache_disk": 0},
    ],
)
def test_no_limit_changes_what_is_trained(root, run, workers, limits):
    expected = batches(root, workers=0, cache_memory=0, cache_disk=0)
    for _ in range(2):  # with files that are there, too
        found = batches(root, workers=workers, folder=run / "cache", **limits)
        for one, other in zip(found, expected, strict=True):
            assert one.ids == other.ids
            assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_refuses_is_told_once_and_changes_nothing(root, tmp_path, workers):
    expected = batches(root, workers=0)
    blocked, warnings = tmp_path / "blocked", []
    blocked.touch()  # no folder can be made of this name, as on a disk that is full or read-only
    found = batches(root, workers=workers, folder=blocked, warnings=warnings, cache_memory=0)
    assert all(torch.equal(one.images, other.images) for one, other in zip(found, expected, strict=True))
    (sentence,) = warnings
    assert f"{blocked}: no more decoded images can be kept there" in sentence


def _require_same_images(cache: CachedDataset, expected: list[np.ndarray]):
    assert all(np.array_equal(cache.load(index).image, image) for index, image in enumerate(expected))


def test_processes_that_are_not_forked_share_the_files(root, run, monkeypatch):
    spawning = multiprocessing.get_context("spawn")
    # What the default is where processes are not forked.
    for name in ("Event", "Lock"):
        monkeypatch.setattr(multiprocessing, name, getattr(spawning, name))
    source = open_dataset(DataSection(), root, "all")
    cache = CachedDataset.by_recipe(source, DataSection(), CachePlace(run / "cache", workers=1))
    expected = [source.load(index).image for index in range(3)]
    process = spawning.Process(target=_require_same_images, args=(cache, expected))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert len(list((run / "cache").iterdir())) == 3


def test_a_copy_for_another_process_holds_no_pixels(root, run):
    cache = CachedDataset.by_recipe(open_dataset(DataSection(), root, "all"), DataSection(), CachePlace(run / "cache"))
    cache.load(0)
    cache.files = None
    assert pickle.loads(pickle.dumps(cache)).memory is None


def test_the_folder_is_removed_however_the_block_ends(run):
    folder = run / "cache"
    with pytest.raises(KeyboardInterrupt), removed_at_the_end(folder):
        FileTier(folder, 2**20, threading.Event()).folder.mkdir()
        (folder / ".0123.1.1.part").touch()
        raise KeyboardInterrupt
    assert list(run.iterdir()) == []
    with removed_at_the_end(folder):
        pass


@pytest.mark.parametrize(("told", "expected"), [("2", 2), ("", 8), ("many", 8), ("0", 8), ("16", 8)])
def test_processes_of_this_machine_are_those_that_torchrun_tells(monkeypatch, told, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", told)
    assert local_processes(8) == expected


def test_available_memory_that_is_not_known_means_no_memory(root, monkeypatch):
    machine = etnet.data.sample_cache.machine()
    unknown = type(machine)(**(vars(machine) | {"available_memory_bytes": None}))
    monkeypatch.setattr(etnet.data.sample_cache, "machine", lambda: unknown)
    assert cached(counting(root)).memory is None
    assert cached(counting(root), cache_memory=0.001).memory is not None
