from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest

from etnet.errors import EnvironmentFault, UsageError
from etnet.output import (
    check_output_folder,
    create_output_folder,
    run_name,
    write_csv,
    write_json,
    write_text,
)


def test_numbers_are_added_until_a_folder_is_free(tmp_path):
    made = [create_output_folder(None, parent=tmp_path / "runs", name="eyes").name for _ in range(3)]
    assert made == ["eyes", "eyes-2", "eyes-3"]


def test_a_file_of_that_name_counts_as_taken(tmp_path):
    (tmp_path / "eyes").touch()
    assert create_output_folder(None, parent=tmp_path, name="eyes").name == "eyes-2"


def test_the_users_folder_is_made_with_its_parents(tmp_path):
    wanted = tmp_path / "a" / "b"
    assert create_output_folder(wanted, parent=tmp_path, name="unused") == wanted
    assert wanted.is_dir()


def test_a_folder_that_is_not_empty_is_refused_and_untouched(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    with pytest.raises(UsageError, match="--overwrite"):
        check_output_folder(tmp_path, overwrite=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.txt"]
    check_output_folder(tmp_path, overwrite=True)


def test_an_empty_or_missing_folder_is_accepted(tmp_path):
    check_output_folder(tmp_path, overwrite=False)
    check_output_folder(tmp_path / "missing", overwrite=False)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    file = tmp_path / "out"
    file.touch()
    with pytest.raises(UsageError, match="is a file"):
        check_output_folder(file, overwrite=True)
    with pytest.raises(EnvironmentFault, match="could not be written"):
        create_output_folder(file / "below", parent=tmp_path, name="unused")


@pytest.mark.parametrize(
    ("model", "name"),
    [("runs/train/drive-2/weights/last.safetensors", "drive-2"), ("some/lungs.safetensors", "lungs")],
)
def test_results_are_named_after_the_run(model, name):
    assert run_name(Path(model)) == name


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch):
    file = tmp_path / "metrics.json"
    write_text(file, "old")

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_tables_quote_what_needs_it(tmp_path):
    write_csv(tmp_path / "failed.csv", ("file", "reason"), [("a, b.png", 'said "no"\n')])
    with (tmp_path / "failed.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["file", "reason"], ["a, b.png", 'said "no"\n']]


def test_json_is_readable_and_holds_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"name": "öd", "value": None})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"name": "öd", "value": None}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"value": float("nan")})
    assert not (tmp_path / "b.json").exists()
