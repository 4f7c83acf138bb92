from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from etnet.cli.main import main
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder
from helpers.weights import write_confident

QUICK = ("--runs", "2", "--threads", "1", "--device", "cpu")


def run(*words):
    return CliRunner().invoke(main, ["benchmark", *map(str, words)], env={"COLUMNS": "80"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmark")
    data = write_disc_folder(root / "data")
    tiny_run(tiny_recipe("training.epochs=1"), data, root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    result = run(
        trained, *QUICK, "--formats", "torch,onnxruntime,tensorrt-fp16", "--batch", "1,2", "--output", folder / "out",
        "--json", folder / "figures.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result, folder


def test_the_table_has_a_line_for_each_format_and_a_reason_for_the_rest(report):
    result, _ = report
    lines = result.stdout.splitlines()
    assert any(line.split()[:2] == ["onnxruntime", "cpu"] for line in lines)
    assert any(line.startswith("tensorrt-fp16: ") and "GPU" in line for line in lines)
    assert "compute" in result.stdout
    assert lines[-1].startswith("Next: etnet infer IMAGES/ --model ")
    tables = [line for line in lines if not line.startswith(("tensorrt", "Next:", "Results:"))]
    assert max(map(len, tables)) <= 80
    assert "…" not in result.stdout


def test_it_says_what_it_scores_on(report):
    result, _ = report
    assert "at 48x48 on 2 images of" in result.stderr
    assert "(validation)" in result.stderr


def test_the_figures_are_written_as_json_too(report):
    _, folder = report
    figures = json.loads((folder / "figures.json").read_text())
    assert figures == json.loads((folder / "out" / "benchmark.json").read_text())
    torch, onnxruntime, tensorrt = figures["rows"]
    assert [latency["batch"] for latency in torch["latencies"]] == [1, 2]
    assert 0 <= torch["mean_dice"] <= 1
    assert onnxruntime["differing_labels"] <= 0.001
    assert tensorrt["reason"]
    assert figures["size"] == [48, 48]
    assert figures["environment"]["machine"]["cores"] >= 1


def test_weights_whose_data_are_gone_are_timed_on_noise(tmp_path):
    weights = write_confident(tmp_path / "best.safetensors")
    words = ("--formats", "torch", "--size", "32x32", "--floor", "dice=0", "--output", tmp_path / "out")
    result = run(weights, *QUICK, *words)
    assert result.exit_code == 5, result.output
    assert "at 32x32 on noise, without scores: data: the data that" in result.stderr
    assert "the images have no masks" in result.stderr
    assert "End to end" in result.stdout


def test_an_onnx_file_is_compared_on_a_folder_of_images(trained, report, tmp_path):
    _, folder = report
    model = folder / "out" / "model-fp32.onnx"
    images = trained.parent / "data" / "images"
    result = run(model, *QUICK, "--formats", "torch,onnxruntime", "--data", images, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "torch: needs the run or weights, and model-fp32.onnx was given" in result.stdout
    figures = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert figures["rows"][1]["differing_labels"] == 0
    assert len(figures["images"]["ids"]) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--formats", "torch,coreml"), "'coreml' is none of them"),
        (("--batch", "0"), "are no batch sizes"),
        (("--floor", "dice=80"), "is no floor"),
        (("--floor", "accuracy=0.5"), "is no floor"),
        (("--size", "big"), "is no size"),
        (("--size", "0x64"), "for instance 16x64"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(trained, tmp_path, words, message):
    result = run(trained, *QUICK, *words, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_the_split_names_the_option(trained, tmp_path):
    result = run(trained, *QUICK, "--data", trained.parent / "data", "--output", tmp_path / "out")
    assert result.exit_code == 3
    assert "--split" in result.stderr


def test_labels_on_a_data_set_are_scored_against_its_masks_and_held_against_floors(trained, tmp_path):
    result = run(
        trained, *QUICK, "--formats", "torch", "--data", trained.parent / "data", "--split", "all",
        "--floor", "dice=0", "--floor", "miou=1", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 5, result.output
    assert "torch: miou is " in result.stderr
    assert "below the floor 1.0" in result.stderr
    figures = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert len(figures["images"]["ids"]) == 8
    assert np.isfinite(figures["rows"][0]["mean_dice"])
