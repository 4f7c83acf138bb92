"""The comparison of data paths: every contestant makes the crops it is said to make, and its figures are right."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from helpers.benchmarks import load_benchmark
from helpers.reproduce import write_drive_of_discs

bench = load_benchmark("bench_data")
TINY = ("data.crop_size=32", "training.batch_size=2", "data.validation_fraction=0.0")


@pytest.fixture
def drive(tmp_path):
    return write_drive_of_discs(tmp_path / "DRIVE")


def first_batches(drive, folder, count: int = 1, recipe=None):
    recipe = recipe or load_recipe("drive", TINY)
    running = bench.contestants(open_dataset(recipe.data, drive, "train"), recipe, folder)
    return {name: list(itertools.islice(batches, count)) for name, batches in running.items()}


def test_ours_make_the_same_crops_wherever_the_images_come_from(drive, tmp_path):
    found = first_batches(drive, tmp_path, count=3)
    for memory, *others in zip(*(found[name] for name in bench.LIMITS if name != "complete"), strict=True):
        assert memory.images.dtype == memory.masks.dtype == torch.uint8
        for other in others:
            assert all(torch.equal(one, two) for one, two in zip(memory[1:], other[1:], strict=True))


def test_only_the_contestant_with_files_writes_any(drive, tmp_path):
    first_batches(drive, tmp_path, count=2)
    assert [path.name for path in tmp_path.iterdir() if path != drive] == ["disk"]
    assert len(list((tmp_path / "disk").iterdir())) == 4


def test_the_complete_batch_is_what_a_plain_script_hands_to_its_network(drive, tmp_path):
    still = [f"augmentation.{name}=0" for name in ("mirror", "rotation", "color_jitter")]
    # Discs of 48 pixels, cut to the middle by nothing: crop and image are of one size.
    recipe = load_recipe("drive", [*TINY, *still, "augmentation.scale=[1, 1]", "data.crop_size=48"])
    found = first_batches(drive, tmp_path, recipe=recipe)
    (complete,), (plain,) = found["complete"], found[bench.BASE]
    assert complete.images.dtype == plain[0].dtype == torch.float32
    assert [part.shape for part in plain] == [part.shape for part in complete[1:]]
    dataset = open_dataset(recipe.data, drive, "train")
    masks = [torch.from_numpy(dataset.load(index).mask) for index in range(len(dataset))]
    for image, mask, edge in zip(*plain, strict=True):
        (index,) = (index for index, stored in enumerate(masks) if torch.equal(stored, mask.byte()))
        contract = recipe.contract()
        expected = (dataset.load(index).image - np.array(contract.mean)) / np.array(contract.std)
        np.testing.assert_allclose(image.permute(1, 2, 0), expected, atol=1e-5)
        assert 0 < int(edge.sum()) < int(mask.sum()) * 2
    ours = [dataset.ids.index(name) for name in complete.ids]
    for index, image, mask in zip(ours, complete.images, complete.masks, strict=True):
        expected = (dataset.load(index).image - np.array(contract.mean)) / np.array(contract.std)
        np.testing.assert_allclose(image.permute(1, 2, 0), expected, atol=1e-5)
        assert torch.equal(mask, masks[index])


def test_ratios_are_those_of_the_rounds():
    figures = bench.row([0.01, 0.02, 0.04], base=[0.10, 0.40, 0.40])
    assert figures == {"samples_per_s": 50.0, "ms_per_sample": 20.0, "fastest_ms": 10.0, "speedup": 10.0}


def test_a_run_writes_its_figures_and_says_which_targets_are_met(drive, tmp_path, capsys):
    words = ["--data", str(drive), "--rounds", "2", "--batches", "1", "--json", str(tmp_path / "new" / "out.json")]
    threads = torch.get_num_threads()
    try:
        bench.main([*words, *(word for setting in TINY for word in ("--set", setting))])
    finally:
        torch.set_num_threads(threads)
    figures = json.loads((tmp_path / "new" / "out.json").read_text())
    assert list(figures["results"]) == ["plain", "memory", "complete", "disk", "file", "plain_file"]
    assert figures["results"]["plain"]["speedup"] == 1
    assert all(row["samples_per_s"] > 0 for row in figures["results"].values())
    assert figures["crop_size"] == 32
    assert str(tmp_path) not in json.dumps(figures)
    assert {"torch", "torchvision", "etnet"} <= set(figures["versions"])
    printed = capsys.readouterr().out
    assert {row["ours"]["name"]: row["theirs"]["name"] for row in figures["comparisons"]} == {
        "etnet, images in memory": "torchvision v2, decoded images in memory",
        "etnet, images in the disk cache": "torchvision v2, decoded images in memory",
        "etnet, images in memory, normalised": "torchvision v2, decoded images in memory",
        "etnet, files decoded every time": "torchvision v2, files decoded every time",
    }
    assert figures["comparisons"][0]["ratio"] == pytest.approx(figures["results"]["memory"]["speedup"], rel=1e-2)
    for target in figures["targets"]:
        assert target["value"] == figures["results"]["memory"]["samples_per_s"]
        verdict = "met" if target["value"] >= target["bound"] else "missed"
        assert f"{target['figure']}: {target['value']:.4g}, target at least {target['bound']:g}: {verdict}" in printed
