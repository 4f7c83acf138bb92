from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.errors import EnvironmentFault
from etnet.inference import pipeline
from etnet.inference.inputs import InputItem, find_inputs
from etnet.inference.pipeline import Work, input_sha256
from etnet.inference.ray_worker import (
    Ledger,
    ModelChoice,
    SegmentingActor,
    WorkerSetup,
    fault_line,
    item_from_dict,
    item_to_dict,
)
from etnet.inference.refinement import Refinement
from etnet.inference.result_files import OutputChoice
from helpers.weights import small_recipe, write_untrained


@pytest.fixture
def setup(tmp_path, monkeypatch) -> WorkerSetup:
    monkeypatch.chdir(tmp_path)
    write_untrained(tmp_path / "model/weights/best.safetensors", small_recipe())
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (90, 100, 3), dtype=np.uint8)).save(tmp_path / f"images/{index}.png")
    (tmp_path / "out").mkdir()
    model = ModelChoice(Path("model"), "auto", "cpu", Refinement())
    return WorkerSetup(model, 1, Path("out"), OutputChoice(), Work(jobs=1), tmp_path)


def items(known: dict[str, str] | None = None) -> list[dict[str, object]]:
    return [item_to_dict(item, (known or {}).get(item.id)) for item in find_inputs(Path("images")).items]


def call(actor: SegmentingActor, tasks: list[dict[str, object]]) -> list[dict[str, object]]:
    return [json.loads(line) for line in actor({"input": [json.dumps(task) for task in tasks]})["line"]]


def results(lines: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    found = [line["result"] for line in lines if "result" in line]
    assert len({result["file"] for result in found}) == len(found)
    return {result["file"]: result for result in found}


def test_an_input_comes_out_of_its_line_as_it_went_in():
    item = InputItem("left/ü.png", Path("a/left/ü.png"), "left/ü", (0.5, 0.25))
    assert item_from_dict(json.loads(json.dumps(item_to_dict(item, None)))) == item
    bare = replace(item, spacing=None)
    assert item_from_dict(json.loads(json.dumps(item_to_dict(bare, "ab")))) == bare


def test_a_task_gives_one_result_for_each_input_and_its_mask_is_there(setup):
    lines = call(SegmentingActor(setup, Ledger()), items())
    assert lines[0] == {"ran_on": "torch cpu"}
    assert sorted(results(lines)) == ["0.png", "1.png", "2.png"]
    assert sorted(path.name for path in (setup.output / "masks").iterdir()) == ["0.png", "1.png", "2.png"]


def test_inputs_that_are_as_they_were_are_kept_and_changed_ones_are_done_again(setup):
    known = {"0.png": input_sha256(Path("images/0.png")), "1.png": "0" * 64}
    lines = call(SegmentingActor(setup, Ledger()), items(known))
    assert [line for line in lines if "kept" in line] == [{"kept": "0.png"}]
    assert sorted(results(lines)) == ["1.png", "2.png"]


class Killed(BaseException):
    """Stands for the death of the process: nothing after it is done."""


def deadly(monkeypatch, name: str) -> None:
    open_input = pipeline.open_input

    def die(item, **options):
        if item.id == name:
            raise Killed
        return open_input(item, **options)

    monkeypatch.setattr("etnet.inference.pipeline.open_input", die)


def test_an_input_that_kills_every_actor_fails_after_three_deaths_and_the_others_of_its_task_are_done(
    setup, monkeypatch
):
    deadly(monkeypatch, "1.png")
    ledger, deaths = Ledger(), 0
    while True:
        try:
            # Each attempt has an actor of its own, as Ray starts a dead one anew.
            lines = call(SegmentingActor(setup, ledger), items())
            break
        except Killed:
            deaths += 1
            assert deaths < 10
    assert deaths == 3
    found = results(lines)
    assert found["1.png"].keys() == {"file", "reason"}
    assert "images/1.png: the process that segmented it died 2 times" in found["1.png"]["reason"]
    assert found["0.png"]["mask"] == "masks/0.png"
    assert found["2.png"]["mask"] == "masks/2.png"


def test_a_single_death_costs_no_input(setup):
    ledger = Ledger()
    assert ledger.begin("task 0.png") == 0
    lines = call(SegmentingActor(setup, ledger), items())
    assert all("mask" in result for result in results(lines).values())
    assert len(results(lines)) == 3


def test_the_ledger_counts_attempts_without_an_end():
    ledger = Ledger()
    assert [ledger.begin("a"), ledger.begin("a"), ledger.begin("b")] == [0, 1, 0]
    ledger.end("a")
    assert [ledger.begin("a"), ledger.begin("b")] == [0, 1]


def test_a_model_that_cannot_be_opened_is_told_by_every_task(setup):
    actor = SegmentingActor(replace(setup, model=replace(setup.model, path=Path("gone"))), Ledger())
    for _ in range(2):
        [line] = call(actor, items())
        assert line["fault"][0] == "ModelFileError"
        assert "gone" in line["fault"][1]


def test_a_worker_without_the_folder_of_the_run_says_so(setup, tmp_path):
    [line] = call(SegmentingActor(replace(setup, folder=tmp_path / "elsewhere"), Ledger()), items())
    assert line["fault"][0] == "EnvironmentFault"
    assert "cannot enter the folder where the run was started" in line["fault"][1]


def test_a_disk_that_refuses_stops_the_run_with_the_name_of_the_machine(setup, tmp_path):
    (setup.output / "masks").write_text("a file in the place of the folder")
    lines = call(SegmentingActor(setup, Ledger()), items())
    [fault] = [line["fault"] for line in lines if "fault" in line]
    assert fault[0] == "DiskFault"
    assert f"(on {os.uname().nodename})" in fault[1]


def test_a_smaller_batch_is_told_once(setup):
    actor = SegmentingActor(setup, Ledger())
    actor._note_smaller_batch(4)
    notes = [line["note"] for line in call(actor, items()) if "note" in line]
    assert len(notes) == 1
    assert "going on with batches of 4" in notes[0]
    assert not [line for line in call(actor, items()) if "note" in line]


def test_a_fault_names_its_class_and_machine():
    kind, sentence = fault_line(EnvironmentFault("no disk"))["fault"]
    assert kind == "EnvironmentFault"
    assert sentence == f"no disk (on {os.uname().nodename})"
