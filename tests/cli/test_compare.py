from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from click.testing import Result

from etnet.manifest import read_weights_info
from helpers.backends import random_labels
from helpers.command_line import one_sentence, run_etnet
from helpers.evaluations import write_evaluation
from helpers.samples import sample
from helpers.weights import write_header_only


def eyes(mistakes: int):
    """Six eyes whose first pixels are wrong; other images have other mistakes."""
    pairs = []
    for seed in range(6):
        target = random_labels(12, 12, seed=seed)
        labels = target.copy()
        labels.reshape(-1)[: mistakes + seed] = (labels.reshape(-1)[: mistakes + seed] + 1) % 3
        pairs.append(sample(str(seed), labels, target))
    return pairs


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with the evaluations `good` and `bad`."""
    monkeypatch.chdir(tmp_path)
    write_evaluation(tmp_path / "runs/evaluate/good", *eyes(1))
    write_evaluation(tmp_path / "runs/evaluate/bad", *eyes(9))
    return tmp_path


def compare(*arguments: object) -> Result:
    return run_etnet("compare", *arguments)


def test_differences_are_shown_and_written(here):
    result = compare("runs/evaluate/bad", "runs/evaluate/good")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["A: runs/evaluate/bad", "B: runs/evaluate/good"]
    row = next(line.split() for line in lines if line.lstrip().startswith("accuracy"))
    assert row[-1] == "B"
    assert not any("…" in line or line.lstrip().startswith("background") for line in lines)
    assert "Bonferroni" in result.stdout
    assert "Results: runs/compare/bad-good" in result.stdout
    assert "Next: etnet infer YOUR_IMAGES --model good.safetensors" in result.stdout
    content = json.loads((here / "runs/compare/bad-good/comparison.json").read_text("utf-8"))
    assert content["images"] == 6
    with (here / "runs/compare/bad-good/comparison.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [row["score"] for row in table] == [row["score"] for row in content["scores"]]
    assert float(table[0]["low"]) == content["scores"][0]["interval"][0]
    assert row[1] == f"{content['scores'][0]['mean_a']:.4f}"


def test_json_goes_to_stdout_alone(here):
    result = compare("runs/evaluate/good", "runs/evaluate/bad", "--json", "--output", "out")
    assert json.loads(result.stdout) == json.loads((here / "out/comparison.json").read_text("utf-8"))
    assert "Results: out" in result.stderr


def test_a_run_stands_for_the_newest_evaluation_of_its_weights(here):
    weights = write_header_only(here / "runs/train/mine/weights/best.safetensors")
    sha256 = read_weights_info(weights).sha256
    for age, name in ((100, "mine-2"), (200, "mine-3"), (300, "mine")):
        folder = write_evaluation(here / "runs/evaluate" / name, *eyes(3), sha256=sha256)
        seconds = (here / "runs/evaluate/good/metrics.json").stat().st_mtime - age
        os.utime(folder / "metrics.json", (seconds, seconds))
    result = compare("runs/evaluate/bad", "runs/train/mine")
    assert result.exit_code == 0, result.output
    assert "Evaluation of runs/train/mine: runs/evaluate/mine-2" in result.stderr
    assert "Results: runs/compare/bad-mine-2" in result.stdout


def test_a_run_without_an_evaluation_gets_the_command_that_makes_one(here):
    write_header_only(here / "runs/train/mine/weights/best.safetensors")
    (here / "runs/evaluate/broken").mkdir()
    for name in ("metrics.json", "per_image.csv"):
        (here / "runs/evaluate/broken" / name).write_text("{", "utf-8")
    one_sentence(
        compare("runs/evaluate/bad", "runs/train/mine"), 3, "etnet evaluate runs/train/mine --data LABELLED_DATA"
    )


def test_one_evaluation_given_twice_is_refused(here):
    one_sentence(compare("runs/evaluate/bad", "runs/evaluate/../evaluate/bad"), 2, "same evaluation")


def test_what_cannot_be_compared_leaves_nothing(here):
    write_evaluation(here / "runs/evaluate/other", *eyes(1)[:5])
    one_sentence(compare("runs/evaluate/bad", "runs/evaluate/other"), 3, "runs/evaluate/other lacks 5", "--split")
    one_sentence(compare("runs/evaluate/bad", "missing"), 3, "missing: no such folder")
    (here / "runs/evaluate/other/per_image.csv").unlink()
    one_sentence(compare("runs/evaluate/bad", "runs/evaluate/other"), 3, "per_image.csv: no such file")
    assert not (here / "runs/compare").exists()


def test_a_full_output_folder_is_refused_and_untouched(here):
    (here / "out").mkdir()
    (here / "out/mine.txt").touch()
    one_sentence(compare("runs/evaluate/good", "runs/evaluate/bad", "--output", "out"), 2, "not empty")
    assert [path.name for path in (here / "out").iterdir()] == ["mine.txt"]
    result = compare("runs/evaluate/good", "runs/evaluate/bad", "--output", "out", "--overwrite")
    assert result.exit_code == 0
