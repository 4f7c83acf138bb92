"""The comparison of training steps: what it trains, what it divides by what, and what it writes."""

from __future__ import annotations

import json
import re

import pytest
import torch

from etnet.data.datasets import open_dataset
from etnet.models.blocks import WeightedBlock
from helpers.benchmarks import load_benchmark
from helpers.runs import TINY, tiny_recipe, write_disc_folder


@pytest.fixture(scope="module")
def bench():
    return load_benchmark("bench_train_step")


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return write_disc_folder(tmp_path_factory.mktemp("bench") / "discs")


@pytest.mark.parametrize("name", ["PlainTraining", "OurTraining"])
def test_both_contestants_learn(bench, discs, name):
    recipe = tiny_recipe("training.batch_size=4", "augmentation.color_jitter=0", "optimizer.base_lr=0.01")
    torch.manual_seed(0)
    dataset = open_dataset(recipe.data, discs, "train")
    training = getattr(bench, name)(dataset, recipe, torch.device("cpu"), 0)
    losses = [training.step(training.next_batch()) for _ in range(40)]
    assert training.finish() == []
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_plain_batches_are_those_of_the_recipe(bench, discs):
    recipe = tiny_recipe("training.batch_size=4")
    training = bench.PlainTraining(open_dataset(recipe.data, discs, "train"), recipe, torch.device("cpu"), 0)
    images, masks, edges = training.next_batch()
    assert images.shape == (4, 3, 32, 32)
    assert images.is_contiguous(), "the layout that a plain script gets"
    assert abs(float(images.mean())) < 3 < 10 * float(images.std())
    assert masks.unique().tolist() == edges.unique().tolist() == [0, 1]
    assert not torch.equal(masks, edges)


def test_ratios_are_those_of_rounds_and_the_rest_are_medians(bench):
    own = [bench.Round(0.0, 0.1), bench.Round(0.1, 0.1), bench.Round(0.0, 0.4)]
    base = [bench.Round(0.1, 0.2), bench.Round(0.1, 0.3), bench.Round(0.1, 0.3)]
    assert bench.row(own, base, 4) == {
        "data_wait_ms": 0.0,
        "step_ms": 100.0,
        "images_per_s": 20.0,
        "times_plain": 2.0,
    }


def test_work_on_two_streams_at_once_counts_once(bench):
    assert bench.covered([]) == 0
    assert bench.covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4


def test_the_plain_script_computes_the_weighted_block_as_its_formula(bench, discs):
    recipe = tiny_recipe("training.batch_size=4")
    dataset = open_dataset(recipe.data, discs, "train")
    kinds = {
        name: {type(module) for module in make(dataset, recipe).modules() if isinstance(module, WeightedBlock)}
        for name, make in {
            "plain": lambda *given: bench.PlainTraining(*given, torch.device("cpu"), 0).network,
            "ours": lambda *given: bench.OurTraining(*given, torch.device("cpu"), 0).stepper.network,
        }.items()
    }
    assert kinds == {"plain": {load_benchmark("bench_weighted_block").PlainBlock}, "ours": {WeightedBlock}}


def test_targets_are_judged_by_ours(bench):
    results = {"plain": {}, "ours": {"images_per_s": 700.0, "times_plain": 3.0, "busy_share": None}}
    assert [target.met for target in bench.aims(results, "NVIDIA H200")] == [True, None]
    assert bench.aims(results, "NVIDIA L4") == bench.aims(results, "") == []


def test_ours_is_compared_with_the_plain_script_in_images_per_second(bench):
    rounds = {"ours": [bench.Round(0.0, 0.5)], "plain": [bench.Round(0.5, 0.5)]}
    row = bench.compared(rounds, tiny_recipe("training.batch_size=4"), "cuda")
    assert (row.ours.value, row.theirs.value, row.ratio, row.target) == (8.0, 4.0, 2.0, 4.0)


def test_the_figures_are_written_with_what_they_were_measured_on(bench, discs, tmp_path, capsys):
    path = tmp_path / "step.json"
    settings = [word for override in TINY for word in ("--set", override)]
    words = ["--data", str(discs), "--recipe", "folder", *settings, "--rounds", "1", "--steps", "1"]
    bench.main([*words, "--json", str(path)])
    figures = json.loads(path.read_text())
    ours, plain = figures["results"]["ours"], figures["results"]["plain"]
    assert plain["times_plain"] == 1.0
    assert ours["times_plain"] == pytest.approx(ours["images_per_s"] / plain["images_per_s"], rel=1e-2)
    assert (figures["batch_size"], figures["crop_size"], figures["device"]) == (2, 32, "cpu")
    assert (figures["benchmark"], figures["variant"]) == ("train_step", "folder")
    assert figures["comparisons"][0]["ratio"] == pytest.approx(ours["times_plain"], rel=1e-2)
    assert {"machine", "versions", "targets"} <= set(figures)
    assert "data wait ms" in capsys.readouterr().out
    shown = load_benchmark("reporting.speed").section(load_benchmark("reporting.results").Result(figures))
    assert "| contestant | waits for data | the rest of the step |" in re.sub(r" +", " ", shown)
    assert "GPU busy" not in shown, "nothing is known of it on a processor"
