from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from etnet.errors import EnvironmentFault, UsageError
from etnet.inference.inputs import InputItem
from etnet.inference.journal import Journal, journal_name, journal_source, read_journal, source_key
from etnet.inference.results import Failure, ImageResult, Result

KEY = "0123456789abcdef"
SHA = "a" * 64


def done(file: str, *, sha256: str = SHA) -> ImageResult:
    return ImageResult(
        file=file,
        sha256=sha256,
        table_spacing=(0.5, 0.25),
        height=2,
        width=3,
        slices=1,
        mask=f"masks/{file}",
        edge=None,
        probabilities=(f"probabilities/{file}.npz",),
        overlay=None,
        class_share={"background": 1.0},
        measurements={"vessel_area_px": 0, "ratio": None, "cut": "image"},
        uncertainty=0.25,
        quality_flags=("blank",),
    )


def write(folder: Path, *results: Result, key: str = KEY, part: tuple[int, int] | None = None) -> None:
    with Journal(folder, key=key, part=part) as journal:
        for result in results:
            for path in result.written if isinstance(result, ImageResult) else ():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(b"mask")
            journal.append(result)


def item(file: str, *, spacing: tuple[float, float] | None = (0.5, 0.25), name: str | None = None) -> InputItem:
    return InputItem(file, Path(file), name or Path(file).stem, spacing)


def finished(folder: Path, file: str, *, sha256: str = SHA, key: str = KEY, **options) -> ImageResult | None:
    with Journal(folder, key=key) as journal:
        return journal.finished(item(file, **options), sha256)


def test_a_complete_result_is_known_to_the_next_run_as_it_was(tmp_path):
    write(tmp_path, done("a.png"), Failure("b.png", "b.png: is empty"))
    assert finished(tmp_path, "a.png") == done("a.png")
    with Journal(tmp_path, key=KEY) as journal:
        assert list(journal.results()) == [done("a.png"), Failure("b.png", "b.png: is empty")]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: {"sha256": "b" * 64},
        lambda folder: {"key": "another"},
        lambda folder: {"file": "c.png"},
        lambda folder: {"spacing": (0.5, 0.5)},
        lambda folder: {"spacing": None},
        lambda folder: {"name": "a.png"},
        lambda folder: (folder / "masks/a.png").unlink() or {},
        lambda folder: (folder / "probabilities/a.png.npz").write_bytes(b"half") and {},
        lambda folder: (folder / "masks/a.png").write_bytes(b"another") and {},
    ],
    ids=[
        "other image",
        "other settings",
        "not there",
        "other spacing",
        "no spacing",
        "other name",
        "mask gone",
        "other content",
        "other size",
    ],
)
def test_a_result_counts_only_while_image_settings_and_files_are_the_same(tmp_path, change):
    write(tmp_path, done("a.png"))
    asked = {"file": "a.png", **(change(tmp_path) or {})}
    assert finished(tmp_path, **asked) is None


def test_a_failure_is_tried_again(tmp_path):
    write(tmp_path, Failure("a.png", "a.png: is empty"))
    assert finished(tmp_path, "a.png") is None


def test_the_newest_line_of_an_input_counts(tmp_path):
    write(tmp_path, Failure("a.png", "first"), done("b.png"))
    write(tmp_path, done("a.png"))
    with Journal(tmp_path, key=KEY) as journal:
        assert len(journal) == 2
        assert [result.file for result in journal.results()] == ["b.png", "a.png"]
        assert journal.finished(item("a.png"), SHA) == done("a.png")


@pytest.mark.parametrize("kept", range(0, 40, 7))
def test_a_line_that_a_killed_run_tore_is_dropped_and_the_next_is_whole(tmp_path, kept):
    write(tmp_path, done("a.png"))
    whole = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(whole + whole.splitlines()[1][:kept])
    write(tmp_path, done("b.png"))
    header, *lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    assert json.loads(header)["etnet_journal"] == 1
    assert [json.loads(line)["result"]["file"] for line in lines] == ["a.png", "b.png"]


def test_a_torn_line_longer_than_a_block_is_dropped_too(tmp_path):
    write(tmp_path, done("a.png"))
    whole = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(whole + b'{"' + b"x" * 200_000)
    write(tmp_path, done("b.png"))
    assert [result.file for result in read_journal(tmp_path / "journal.jsonl")] == ["a.png", "b.png"]


def test_lines_of_another_program_are_passed_over(tmp_path):
    (tmp_path / "journal.jsonl").write_text(
        'not json\n[1]\n{"key": 1}\n{"result": {"file": "a"}, "key": "", "bytes": 1}\n'
    )
    with Journal(tmp_path, key=KEY) as journal:
        assert len(journal) == 0


def test_a_finished_journal_has_the_order_of_the_inputs_and_one_line_each(tmp_path):
    write(tmp_path, done("c.png"), Failure("a.png", "first"), done("b.png"))
    with Journal(tmp_path, key=KEY) as journal:
        journal.append(Failure("a.png", "second"))
        journal.finish(["a.png", "b.png", "c.png"])
        assert [result.file for result in journal.results()] == ["a.png", "b.png", "c.png"]
    assert next(iter(read_journal(tmp_path / "journal.jsonl"))) == Failure("a.png", "second")
    assert finished(tmp_path, "c.png") == done("c.png")


def test_of_inputs_that_are_gone_results_stay_and_failures_are_forgotten(tmp_path):
    write(tmp_path, done("z.png"), Failure("y.png", "is empty"), done("a.png"))
    with Journal(tmp_path, key=KEY) as journal:
        journal.finish(["a.png"])
    assert [result.file for result in read_journal(tmp_path / "journal.jsonl")] == ["a.png", "z.png"]


def test_a_result_whose_mask_belongs_to_another_input_by_now_is_forgotten(tmp_path):
    write(tmp_path, done("a.png"))
    write(tmp_path, replace(done("a.bmp"), mask="masks/a.png"))
    with Journal(tmp_path, key=KEY) as journal:
        journal.finish(["a.bmp"])
    assert [result.file for result in read_journal(tmp_path / "journal.jsonl")] == ["a.bmp"]


def test_files_that_a_new_result_does_not_have_are_removed(tmp_path):
    write(tmp_path, done("a.png"), done("b.png"))
    # The file of b now is another result's, which nothing but its content tells.
    (tmp_path / "masks/b.png").write_bytes(b"another")
    with Journal(tmp_path, key=KEY) as journal:
        journal.append(Failure("a.png", "is empty"))
        journal.append(Failure("b.png", "is empty"))
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["b.png"]


@pytest.mark.parametrize("path", ["../victim.txt", "masks/../../victim.txt", "/tmp/victim.txt", "victim.txt"])
def test_a_journal_cannot_name_files_outside_the_folders_of_results(tmp_path, path):
    (tmp_path / "out").mkdir()
    (tmp_path / "victim.txt").write_text("mine")
    (tmp_path / "out/victim.txt").write_text("mine")
    write(tmp_path / "out", done("a.png"))
    journal = tmp_path / "out/journal.jsonl"
    journal.write_text(journal.read_text().replace("masks/a.png", path))
    with Journal(tmp_path / "out", key=KEY) as opened:
        assert len(opened) == 0
        opened.clear()
    assert (tmp_path / "victim.txt").exists()
    assert (tmp_path / "out/victim.txt").exists()


def test_lines_of_parts_are_newer_than_those_of_an_earlier_whole_run(tmp_path):
    write(tmp_path, done("a.png"), key="old")
    write(tmp_path, done("a.png"), part=(0, 2))
    assert finished(tmp_path, "a.png") == done("a.png")


def test_the_journal_says_what_was_segmented_without_naming_it(tmp_path):
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out", key=KEY, source=source_key(tmp_path / "patient_smith")) as journal:
        journal.append(Failure("a.png", "is empty"))
        journal.finish(["a.png"])
    content = (tmp_path / "out/journal.jsonl").read_text()
    assert "smith" not in content
    assert journal_source(tmp_path / "out/journal.jsonl") == source_key(tmp_path / "patient_smith")
    assert journal_source(tmp_path / "out/journal.jsonl") != source_key(tmp_path / "patient_jones")
    assert journal_source(tmp_path / "nothing.jsonl") is None


def test_parts_have_journals_of_their_own_and_the_whole_run_takes_them_over(tmp_path):
    write(tmp_path, done("a.png"), part=(0, 2))
    write(tmp_path, done("b.png"), part=(1, 2))
    with Journal(tmp_path, key=KEY, part=(1, 2)) as journal:
        assert journal.finished(item("a.png"), SHA) is None
    with Journal(tmp_path, key=KEY) as journal:
        assert journal.finished(item("a.png"), SHA) == done("a.png")
        journal.finish(["a.png", "b.png"])
    assert [path.name for path in tmp_path.glob("journal*")] == [journal_name()]
    assert [result.file for result in read_journal(tmp_path / "journal.jsonl")] == ["a.png", "b.png"]


def test_two_runs_cannot_write_one_journal(tmp_path, monkeypatch):
    monkeypatch.setattr("etnet.inference.journal.LONGEST_START", 0.1)
    with Journal(tmp_path, key=KEY, part=(0, 2)):
        with Journal(tmp_path, key=KEY, part=(1, 2)):
            pass
        for part in ((0, 2), None):
            with pytest.raises(UsageError, match="another etnet infer is writing here"):
                Journal(tmp_path, key=KEY, part=part)
    with Journal(tmp_path, key=KEY):
        for part in ((0, 2), (2, 3), None):
            with pytest.raises(UsageError, match="another etnet infer is writing here"):
                Journal(tmp_path, key=KEY, part=part)


def test_clearing_removes_results_and_nothing_else(tmp_path):
    write(tmp_path, done("a.png"))
    (tmp_path / "masks/mine.png").write_bytes(b"mine")
    with Journal(tmp_path, key=KEY) as journal:
        journal.clear()
        journal.append(Failure("b.png", "is empty"))
        assert [result.file for result in journal.results()] == ["b.png"]
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["mine.png"]


def test_results_of_other_settings_are_counted(tmp_path):
    write(tmp_path, done("a.png"), done("b.png"))
    with Journal(tmp_path, key="another") as journal:
        assert journal.others == 2


def test_a_read_only_folder_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(EnvironmentFault, match="Read-only file system"):
        Journal(tmp_path, key=KEY)
