from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from etnet.data.datasets import open_dataset
from etnet.data.roi import mask_center, window_around
from etnet.errors import EnvironmentFault
from etnet.manifest import read_weights_info
from etnet.metrics.comparison import compare_evaluations, read_evaluation
from etnet.reproduce.pictures import draw_pictures
from etnet.reproduce.plan import Plan
from etnet.reproduce.report import write_report
from etnet.reproduce.results import collect
from etnet.reproduce.runner import work_off
from etnet.reproduce.work import carry_out
from etnet.sidecar import file_sha256
from etnet.training.tracking import SilentObserver
from helpers.reproduce import RecordingDisplay, tiny_plan, write_drishti_of_discs

ROI = ("data.roi.size=32", "data.roi.side=0.3")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_drishti_of_discs(root / "Drishti-GS")
    return root


def plan_of(data_root: Path, output: Path, *localizer: str, methods: tuple[str, ...] = ("etnet",)) -> Plan:
    return tiny_plan(
        data_root,
        output,
        table="table3",
        datasets=("drishti_gs",),
        methods=methods,
        epochs=1,
        overrides=ROI,
        localizer_overrides=localizer,
    )


@pytest.fixture(scope="module")
def done(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A table of one method with its localizer."""
    plan = plan_of(data_root, tmp_path_factory.mktemp("out"))
    for run in plan.wanted_runs:
        assert carry_out(run.job, SilentObserver())
    return plan


def test_one_localizer_comes_first_and_serves_every_method(data_root: Path, tmp_path: Path) -> None:
    plan = plan_of(data_root, tmp_path, methods=("base", "etnet"))
    assert [run.title for run in plan.wanted_runs] == [
        "Disc localizer on Drishti-GS, seed 0",
        "Base Network on Drishti-GS, seed 0",
        "Base Network + EGM + WAM on Drishti-GS, seed 0",
    ]
    localizer, *methods = plan.wanted_runs
    assert localizer.recipe.data.dataset == "drishti_gs"
    assert localizer.recipe.data.roi is None
    assert {run.job.localizer for run in methods} == {localizer.job.weights}


def test_both_kinds_of_centres_are_scored_on_the_same_pixels(done: Plan, data_root: Path) -> None:
    run = done.wanted_runs[-1]
    scores = run.job.scores()
    test = open_dataset(run.recipe.data, data_root / "Drishti-GS", "test")
    assert scores["centers"] == "found"
    assert scores["localization"]["images"] == len(test) == 3
    for index, (found, true) in enumerate(zip(scores["images"], scores["images_around_true_centers"], strict=True)):
        mask = test.load(index).mask
        inside = window_around(mask_center(mask), mask.shape, run.recipe.data.roi).inside(mask.shape)
        truth = np.bincount(mask[inside], minlength=3)
        for image in (found, true):
            assert image["id"] == test.ids[index]
            np.testing.assert_array_equal(np.sum(image["matrix"], axis=1), truth)


def test_the_evaluation_of_each_image_is_kept(done: Plan) -> None:
    folder = done.wanted_runs[-1].job.evaluation_folder
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert metrics["centers"] == "found"
    assert set(metrics) >= {"localization", "true_centers", "regions"}
    for name in ("per_image.csv", "per_image_true_centers.csv", "localization.csv"):
        with (folder / name).open(newline="", encoding="utf-8") as stream:
            assert len(list(csv.DictReader(stream))) == 3, name


def test_the_evaluations_can_be_compared_as_those_of_etnet_evaluate(done: Plan) -> None:
    job = done.wanted_runs[-1].job
    stored = read_evaluation(job.evaluation_folder)
    assert stored.metrics["model"]["sha256"] == read_weights_info(job.weights).sha256
    assert compare_evaluations(stored, stored)


def test_the_table_says_which_centres_were_used(done: Plan) -> None:
    result = collect(done)
    pictures = draw_pictures(result)
    write_report(result, pictures=pictures)
    text = (done.request.folder / "table.md").read_text("utf-8")
    assert "3 test images. Scored in the squares around the disc, whose centres the disc localizer finds" in text
    assert "The same networks around the true disc centres:" in text
    assert "- disc localizer of Drishti-GS: test_resnet, epochs: 1\n" in text
    (facts,) = result.localizers.values()
    own = next(cell for cell in result.cells if cell.scored).training_seconds
    assert result.training_seconds == pytest.approx(own + facts["training_seconds"])
    assert "![Segmentations of Drishti-GS](pictures/drishti_gs.png)" in text
    cell = next(cell for cell in result.to_dict()["cells"] if cell["method"] == "etnet")
    assert [metric["metric"] for metric in cell["metrics"]] == ["dice_optic_cup", "dice_optic_disc", "mean_iou"]
    assert all(metric["around_true_centers"]["mean"] is not None for metric in cell["metrics"])
    with Image.open(pictures[0]) as picture:
        assert picture.size[0] > 900


def test_another_localizer_scores_the_same_weights_again(done: Plan, data_root: Path) -> None:
    run = done.wanted_runs[-1]
    weights = run.job.last.stat().st_mtime_ns
    other = plan_of(data_root, done.request.output, "training.epochs=2")
    localizer, same = other.wanted_runs
    assert same.folder == run.folder
    assert same.job.trained() is not None
    assert same.job.scores() is None
    with pytest.raises(EnvironmentFault, match="there is no network that finds the region of interest"):
        carry_out(same.job, SilentObserver())
    carry_out(localizer.job, SilentObserver())
    assert carry_out(same.job, SilentObserver())
    assert same.job.scores()["localizer_key"] == localizer.key
    assert run.job.last.stat().st_mtime_ns == weights


def test_a_localizer_that_was_trained_again_scores_the_same_weights_again(data_root: Path, tmp_path: Path) -> None:
    plan = plan_of(data_root, tmp_path)
    localizer, method = (run.job for run in plan.wanted_runs)

    def work() -> list[str]:
        display = RecordingDisplay()
        work_off(plan, display=display, executor=lambda job, observer, stop: carry_out(job, observer))
        return [begun.split()[1] for begun in display.begun]

    assert work() == ["Disc", "Base"]
    assert work() == []
    assert method.scores()["localizer_sha256"] == file_sha256(localizer.weights)
    weights, trained = method.last.stat().st_mtime_ns, load_file(localizer.weights)
    # As another GPU would: other weights of the same recipe and data.
    header = safe_open(localizer.weights, framework="pt").metadata()
    for path in {localizer.weights, localizer.last}:
        save_file({name: tensor + 1 for name, tensor in trained.items()}, path, header)
    scores = method.scores_file.read_text("utf-8")
    assert method.scores() is None
    assert work() == ["Base"]
    assert method.scores_file.read_text("utf-8") != scores
    assert method.last.stat().st_mtime_ns == weights
    shutil.rmtree(localizer.folder)
    assert work() == ["Disc", "Base"]
    assert method.scores()["localizer_sha256"] == file_sha256(localizer.weights)
    assert method.last.stat().st_mtime_ns == weights
