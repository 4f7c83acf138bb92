"""`etnet infer` on what an earlier run left: --continue, --overwrite, and parts of one run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from etnet.inference.journal import Journal, read_journal
from etnet.inference.pipeline import Pipeline
from etnet.inference.predictor import Predictor
from helpers.backends import image_of, pixel_predictor, random_labels
from helpers.command_line import one_sentence, run_etnet
from helpers.weights import write_header_only


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with images and a run whose network is replaced by pixel arithmetic."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Predictor, "load", pixel_predictor)
    write_header_only(tmp_path / "runs/train/first/weights/best.safetensors")
    (tmp_path / "eyes").mkdir()
    for name in "abc":
        save(name)
    return tmp_path


def save(name: str, *, seed: int = 0) -> None:
    Image.fromarray(image_of(random_labels(9, 12, seed=seed))).save(f"eyes/{name}.png")


def infer(*options: object) -> Result:
    return run_etnet("infer", "eyes", *options)


def summary(folder: str = "out") -> dict:
    return json.loads(Path(folder, "summary.json").read_text("utf-8"))


def mask(name: str, folder: str = "out") -> np.ndarray:
    with Image.open(Path(folder, f"masks/{name}.png")) as picture:
        return np.array(picture)


def test_what_is_complete_is_kept_and_what_is_new_changed_or_gone_is_made(here):
    assert infer("--output", "out").exit_code == 0
    written = {name: Path(f"out/masks/{name}.png").stat().st_mtime_ns for name in "abc"}
    save("b", seed=7)
    save("d", seed=8)
    Path("out/masks/c.png").unlink()
    result = infer("--output", "out", "--continue")
    assert result.exit_code == 0, result.output
    assert "4 of 4 images segmented" in result.stdout
    assert "1 of them kept from an earlier run" in result.stdout
    assert summary()["this_run"]["kept"] == 1
    assert Path("out/masks/a.png").stat().st_mtime_ns == written["a"]
    np.testing.assert_array_equal(mask("b"), random_labels(9, 12, seed=7))
    np.testing.assert_array_equal(mask("c"), random_labels(9, 12))
    assert Path("out/measurements.csv").read_text().count("\n") == 5


def test_a_failure_is_tried_again_and_leaves_the_table_when_it_is_mended(here):
    Path("eyes/b.png").write_text("not a picture")
    assert infer("--output", "out").exit_code == 6
    save("b")
    assert infer("--output", "out", "--continue").exit_code == 0
    assert Path("out/failed.csv").read_text() == "file,reason\n"
    assert summary()["failed"] == []


@pytest.mark.parametrize("option", [("--tta", "flips"), ("--largest-component", "vessel"), ("--save-edges",)])
def test_other_settings_make_all_again_and_say_so(here, option):
    assert infer("--output", "out").exit_code == 0
    result = infer("--output", "out", "--continue", *option)
    assert result.exit_code == 0, result.output
    assert "3 of 3 results in out were made with another model or other settings" in result.stderr
    assert summary()["this_run"]["kept"] == 0


@pytest.mark.parametrize("option", [("--jobs", 3), ("--batch-size", 2), ("--no-report",)])
def test_how_the_work_is_spread_changes_no_result(here, option):
    assert infer("--output", "out").exit_code == 0
    result = infer("--output", "out", "--continue", *option)
    assert "another model" not in result.stderr
    assert summary()["this_run"]["kept"] == 3


def test_without_an_output_the_newest_folder_of_the_name_is_continued(here):
    for _ in range(2):
        assert infer().exit_code == 0
    result = infer("--continue")
    assert "Results: runs/infer/eyes-2" in result.stdout
    assert "3 of them kept" in result.stdout


def test_continue_starts_a_run_where_there_is_none(here):
    result = infer("--continue")
    assert result.exit_code == 0, result.output
    assert "Results: runs/infer/eyes\n" in result.stdout


def test_a_folder_without_a_journal_is_not_continued(here):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    one_sentence(infer("--output", "out", "--continue"), 2, "out", "not empty")
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]


def test_overwriting_removes_masks_of_images_that_are_gone_and_leaves_foreign_files(here):
    assert infer("--output", "out", "--overlay").exit_code == 0
    Path("out/notes.txt").write_text("mine")
    one_sentence(infer("--output", "out"), 2, "holds the results of an earlier run", "--continue", "--overwrite")
    Path("eyes/c.png").unlink()
    assert infer("--output", "out", "--overwrite").exit_code == 0
    assert sorted(path.name for path in Path("out/masks").iterdir()) == ["a.png", "b.png"]
    assert list(Path("out/overlays").iterdir()) == []
    assert Path("out/notes.txt").read_text() == "mine"


def test_leftovers_of_a_killed_run_are_removed(here):
    assert infer("--output", "out").exit_code == 0
    Path("out/masks/.0123456789abcdef.4242.7.part").write_bytes(b"half")
    assert infer("--output", "out", "--continue").exit_code == 0
    assert sorted(path.name for path in Path("out/masks").iterdir()) == ["a.png", "b.png", "c.png"]


def test_parts_share_the_images_and_a_last_run_joins_them(here):
    for part in (1, 0):
        result = infer("--output", "out", "--num-parts", 2, "--part-id", part)
        assert result.exit_code == 0, result.output
        assert "Next: etnet infer eyes --model" in result.stdout
        assert "--output out --continue" in result.stdout
    one, other = (read_journal(Path(f"out/journal.part-{part}-of-2.jsonl")) for part in (0, 1))
    assert [result.file for result in one] == ["a.png", "c.png"]
    assert [result.file for result in other] == ["b.png"]
    one_sentence(infer("--output", "out", "--num-parts", 2, "--part-id", 1), 2, "--continue")
    assert infer("--output", "out", "--continue").exit_code == 0
    assert [result.file for result in read_journal(Path("out/journal.jsonl"))] == ["a.png", "b.png", "c.png"]
    assert summary()["this_run"]["kept"] == 3
    assert not list(Path("out").glob("[!.]*part-*"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--num-parts", 2, "--output", "out"), "expected both or neither"),
        (("--part-id", 0, "--output", "out"), "expected both or neither"),
        (("--num-parts", 2, "--part-id", 2, "--output", "out"), "expected 0 to 1"),
        (("--num-parts", 2, "--part-id", 1), "name it with --output"),
        (("--continue", "--overwrite", "--output", "out"), "one of the two"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(here, options, word):
    one_sentence(infer(*options), 2, word)
    assert not Path("out").exists()


def test_a_second_run_into_the_same_folder_is_refused(here):
    Path("out").mkdir()
    with Journal(Path("out"), key="first"):
        one_sentence(infer("--output", "out", "--continue"), 2, "another etnet infer is writing here")
    assert infer("--output", "out", "--continue").exit_code == 0


def test_a_folder_of_the_same_name_elsewhere_is_another_run(here):
    assert infer().exit_code == 0
    Path("other/eyes").mkdir(parents=True)
    Image.fromarray(image_of(random_labels(9, 12, seed=3))).save("other/eyes/a.png")
    result = run_etnet("infer", "other/eyes", "--continue")
    assert result.exit_code == 0, result.output
    assert "Results: runs/infer/eyes-2" in result.stdout
    assert sorted(path.name for path in Path("runs/infer/eyes/masks").iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_part_does_not_write_into_the_folder_of_a_whole_run(here):
    assert infer("--output", "out").exit_code == 0
    one_sentence(infer("--output", "out", "--num-parts", 2, "--part-id", 0), 2, "earlier run", "--continue")


def test_a_folder_with_only_a_lock_is_as_good_as_new(here):
    Path("out").mkdir()
    Path("out/.journal.lock").touch()
    assert infer("--output", "out", "--continue").exit_code == 0


def test_a_file_that_failed_and_was_removed_is_forgotten(here):
    Path("eyes/b.png").write_text("not a picture")
    assert infer("--output", "out").exit_code == 6
    Path("eyes/b.png").unlink()
    assert infer("--output", "out", "--continue").exit_code == 0
    assert summary()["counts"] == {"found": 2, "done": 2, "failed": 0, "skipped_other_files": 0}


def test_an_image_that_breaks_loses_its_mask_and_a_run_without_overlays_those(here):
    assert infer("--output", "out", "--overlay").exit_code == 0
    Path("eyes/b.png").write_text("not a picture")
    assert infer("--output", "out", "--continue").exit_code == 6
    assert sorted(path.name for path in Path("out/masks").iterdir()) == ["a.png", "c.png"]
    assert list(Path("out/overlays").iterdir()) == []


def test_masks_that_another_program_changed_are_made_again(here):
    assert infer("--output", "out").exit_code == 0
    content = Path("out/masks/a.png").read_bytes()
    Path("out/masks/a.png").write_bytes(content[:-20] + bytes(20))
    assert infer("--output", "out", "--continue").exit_code == 0
    assert Path("out/masks/a.png").read_bytes() == content


def test_ctrl_c_says_how_to_go_on(here, monkeypatch):
    run = Pipeline.run

    def interrupted(self, items):
        steps = run(self, items)
        yield next(steps)
        steps.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "run", interrupted)
        result = infer("--output", "out")
    assert result.exit_code == 130
    assert "Go on with the same command and: --output out --continue" in result.stderr
    assert infer("--output", "out", "--continue").exit_code == 0
    assert summary()["this_run"]["kept"] == 1
