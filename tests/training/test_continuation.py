from __future__ import annotations

import json
import os

from etnet.training.continuation import run_to_go_on_in


def begun(folder, launch, *, age=0):
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    path = folder / "environment.json"
    path.write_text(json.dumps({"launch": launch}))
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return folder


def test_a_named_folder_is_a_run_where_one_was_begun(tmp_path):
    run = begun(tmp_path / "run", None)
    assert run_to_go_on_in(run) == run
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert run_to_go_on_in(tmp_path / "other") is None
    assert run_to_go_on_in(tmp_path / "missing") is None


def test_without_a_name_it_is_the_last_that_the_same_torchrun_began(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    begun(tmp_path / "drive", "a", age=9)
    mine = begun(tmp_path / "drive-2", "a", age=5)
    begun(tmp_path / "drive-3", "b")
    begun(tmp_path / "drive-4", None)
    (begun(tmp_path / "drive-5", "a") / "environment.json").write_text("[]")
    (begun(tmp_path / "drive-6", "a") / "environment.json").write_text("{")
    assert run_to_go_on_in(None, root=tmp_path) == mine
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "c")
    assert run_to_go_on_in(None, root=tmp_path) is None


def test_without_torchrun_nothing_is_guessed(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    begun(tmp_path / "drive", None)
    assert run_to_go_on_in(None, root=tmp_path) is None
