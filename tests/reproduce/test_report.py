from __future__ import annotations

import csv
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from etnet.manifest import encode_header
from etnet.reproduce.job import SCORES_FORMAT
from etnet.reproduce.plan import NO_DATA, NOT_RUN, Plan, Run, make_plan
from etnet.reproduce.profiles import BANNERS, Profile
from etnet.reproduce.report import command_line, header_facts, ours_text, write_report
from etnet.reproduce.results import DONE, FAILED, INCOMPLETE, CellResult, collect
from etnet.reproduce.scores import Figure
from helpers.reproduce import tiny_plan, tiny_request, write_drishti_of_discs, write_drive_of_discs


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_drive_of_discs(root / "DRIVE")
    return root


def pretend_done(run: Run, *, right: int = 90, seconds: float = 60.0) -> None:
    """Leave the files of a finished run whose test images have `right` pixels of 100 right."""
    job = run.job
    job.last.parent.mkdir(parents=True)
    job.last.touch()
    half = (100 - right) // 2
    matrix = [[right // 2, half], [half, right // 2]]
    images = [{"id": f"{number:02d}_test", "matrix": matrix} for number in range(1, 4)]
    facts = {
        "etnet_version": "1.2.3",
        "epochs": 2,
        "device": "CPU, 2 threads",
        "encoder": "resnet18",
        "encoder_weights": "none",
        "training_seconds": seconds,
    }
    job.trained_file.write_text(json.dumps(facts), "utf-8")
    job.scores_file.write_text(
        json.dumps(
            {
                "format": SCORES_FORMAT,
                "localizer_key": "",
                "centers": "",
                "class_names": ["background", "vessel"],
                "class_groups": {},
                "images": images,
            }
        ),
        "utf-8",
    )


def cells_of(plan: Plan) -> dict[str, CellResult]:
    """Results on DRIVE by method."""
    return {cell.cell.method.key: cell for cell in collect(plan).cells if cell.cell.dataset.key == "drive"}


def markdown_rows(text: str, dataset: str) -> dict[str, list[str]]:
    part = text.partition(f"## {dataset}\n")[2].partition("\n## ")[0]
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_every_cell_says_how_it_stands(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, methods=("fcn", "unet", "multi_task", "etnet"), seeds=2)
    runs = {(run.method.key, run.seed): run for run in plan.wanted_runs}
    for seed, right in ((0, 90), (1, 92)):
        pretend_done(runs["etnet", seed], right=right)
    pretend_done(runs["unet", 0])
    failed = runs["fcn", 0].job
    failed.folder.mkdir(parents=True)
    failed.failure_file.write_text('{"error": "too little memory"}', "utf-8")
    cells = cells_of(plan)
    assert {key: cell.status for key, cell in cells.items()} == {
        "fcn": FAILED,
        "unet": INCOMPLETE,
        "mnet": NOT_RUN,
        "multi_task": INCOMPLETE,
        "etnet": DONE,
    }
    assert cells["fcn"].detail == "seed 0: too little memory"
    assert cells["unet"].detail == "1 of 2 seeds"
    assert {cell.status for cell in collect(plan).cells if cell.cell.dataset.key != "drive"} == {NO_DATA}
    assert cells["etnet"].figures[0].mean == pytest.approx(91)
    assert cells["etnet"].figures[0].deviation == pytest.approx(math.sqrt(2))
    assert cells["etnet"].differences()[0] == pytest.approx(91 - 95.60)
    assert cells["etnet"].training_seconds == 120


def test_runs_that_were_not_asked_for_are_shown_where_they_exist(data_root: Path, tmp_path: Path) -> None:
    (run,) = tiny_plan(data_root, tmp_path, methods=("unet",)).wanted_runs
    pretend_done(run)
    assert cells_of(tiny_plan(data_root, tmp_path, methods=("etnet",)))["unet"].status == DONE


def test_an_interrupted_run_says_how_far_it_came(data_root: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    plan = tiny_plan(data_root, tmp_path)
    run = plan.wanted_runs[0]
    run.job.last.parent.mkdir(parents=True)
    save_file({}, run.job.last, encode_header(recipe=run.recipe, iteration=3, epoch=1, data_root=str(data_root)))
    cell = cells_of(plan)["etnet"]
    assert (cell.status, cell.detail) == (INCOMPLETE, "seed 0: 3 of 4 iterations")


def test_the_header_holds_only_what_is_known(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path)
    assert [name for name, _ in header_facts(collect(plan))] == [
        "written",
        "command",
        "changed recipe keys",
        "changed recipe keys of the localizer",
    ]
    pretend_done(plan.wanted_runs[0])
    facts = dict(header_facts(collect(plan)))
    assert (facts["seeds per cell"], facts["epochs"], facts["training time, all runs"]) == ("1", "2", "1 min 0 s")


def test_the_markdown_holds_ours_beside_the_papers(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, seeds=2)
    for run, right in zip(plan.wanted_runs, (90, 92), strict=True):
        pretend_done(run, right=right)
    result = collect(plan)
    write_report(result)
    text = (plan.request.folder / "table.md").read_text("utf-8")
    rows = markdown_rows(text, "DRIVE")
    assert rows["Method"] == ["Acc. (%)", "paper", "mIoU (%)", "paper", "training"]
    # Two classes of one size with 91 % right: each has IoU 45.5 / (100 - 45.5) on average over the seeds.
    iou = (45 / 55 + 46 / 54) / 2 * 100
    assert rows["ET-Net"][0] == "91.00 ± 1.41 [91.00, 91.00]"
    assert rows["ET-Net"][1] == "95.60 (-4.60)"
    assert rows["ET-Net"][2].startswith(f"{iou:.2f} ± ")
    assert rows["ET-Net"][3:] == [f"77.44 ({iou - 77.44:+.2f})", "2 min 0 s"]
    assert rows["FCN"] == ["not run", "94.13", "not run", "74.55", ""]
    assert markdown_rows(text, "LUNA")["ET-Net"] == ["no data", "98.68", "no data", "96.23", ""]
    for fact in (
        "seeds per cell: 2",
        "epochs: 2",
        "encoder: resnet18",
        "encoder weights: none",
        "device: CPU, 2 threads",
    ):
        assert f"- {fact}\n" in text
    assert "- training time, all runs: 2 min 0 s\n" in text
    assert not [banner for banner in BANNERS.values() if banner in text]


def test_posal_shows_its_published_numbers_and_why_it_was_not_run(data_root: Path, tmp_path: Path) -> None:
    write_drishti_of_discs(tmp_path / "data" / "Drishti-GS")
    plan = tiny_plan(tmp_path / "data", tmp_path, table="table1", datasets=("drishti_gs",))
    write_report(collect(plan))
    text = (plan.request.folder / "table.md").read_text("utf-8")
    assert markdown_rows(text, "REFUGE")["pOSAL"] == ["not run", "87.50", "not run", "94.60", "not run", "-", ""]
    assert "- pOSAL: adversarial domain adaptation, trained with REFUGE" in text
    assert "prints Dice_OD for the cup" in text


def test_csv_and_json_hold_the_same_figures(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path)
    pretend_done(plan.wanted_runs[0])
    write_report(collect(plan))
    with (plan.request.folder / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = {(row["dataset"], row["method"], row["metric"]): row for row in csv.DictReader(stream)}
    assert len(rows) == 30
    accuracy = rows["drive", "etnet", "accuracy"]
    assert (float(accuracy["ours"]), float(accuracy["paper"])) == (90, 95.6)
    assert float(accuracy["difference"]) == pytest.approx(-5.6)
    assert (accuracy["seeds"], accuracy["test_images"], accuracy["encoder"]) == ("1", "3", "resnet18")
    assert rows["drive", "fcn", "accuracy"]["ours"] == ""
    content = json.loads((plan.request.folder / "table.json").read_text("utf-8"))
    cell = next(cell for cell in content["cells"] if (cell["dataset"], cell["method"]) == ("drive", "etnet"))
    assert cell["metrics"][0]["mean"] == 90
    assert cell["metrics"][0]["deviation"] is None
    assert cell["runs"][0]["folder"] == str(plan.wanted_runs[0].folder)


@pytest.mark.parametrize("profile", BANNERS)
def test_a_table_that_is_not_the_papers_says_so_and_lies_apart(
    data_root: Path, tmp_path: Path, profile: Profile
) -> None:
    full = tiny_request(data_root, tmp_path)
    plan = make_plan(replace(full, profile=profile))
    assert plan.request.folder != full.folder
    write_report(collect(plan))
    text = (plan.request.folder / "table.md").read_text("utf-8")
    assert f"> **{BANNERS[profile]}**" in text.splitlines()[:4]
    assert json.loads((plan.request.folder / "table.json").read_text("utf-8"))["profile"] == profile


def test_the_command_in_the_table_makes_it_again(data_root: Path, tmp_path: Path) -> None:
    from etnet.cli.reproduce import command

    plan = tiny_plan(data_root, tmp_path / "a folder", methods=("unet", "etnet"), seeds=2)
    words = shlex.split(command_line(plan.request))
    assert words[:2] == ["etnet", "reproduce"]
    values = command.make_context("reproduce", words[2:]).params
    assert (values["table"], values["only"], values["methods"], values["seeds"]) == ("table2", "drive", "unet,etnet", 2)
    expected = tiny_request(data_root, tmp_path)
    assert values["overrides"] == expected.overrides
    assert values["localizer_overrides"] == expected.localizer_overrides
    assert (values["output"], values["epochs"], values["device"]) == (tmp_path / "a folder", 2, "cpu")


def test_an_undefined_score_is_no_number() -> None:
    assert ours_text(Figure(math.nan, None, None, math.nan)) == "undefined"
