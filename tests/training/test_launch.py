from __future__ import annotations

import json

import pytest
from torch.distributed import TCPStore

from etnet.training import launch
from etnet.training.launch import has_others, is_first_to_tell, launch_name, leave_the_telling_to_another, restarts


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "SECONDS_FOR_THE_TELLER", 0)
    is_first_to_tell.cache_clear()
    yield
    is_first_to_tell.cache_clear()


@pytest.fixture
def store(monkeypatch):
    """The place where two processes meet."""
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    values = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(server.port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return server


def test_a_process_alone_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert not has_others()
    assert is_first_to_tell()
    leave_the_telling_to_another("sentence", exit_code=3)
    assert not (tmp_path / "error.json").exists()


def test_the_first_of_several_tells_and_the_others_end_without_a_word(store, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    leave_the_telling_to_another("what is wrong", exit_code=3)
    leave_the_telling_to_another("what is wrong", exit_code=3)  # asked twice, it is still the first
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "what is wrong"
    is_first_to_tell.cache_clear()  # another process
    with pytest.raises(SystemExit) as end:
        leave_the_telling_to_another("what is wrong", exit_code=3)
    assert end.value.code == 3
    assert capfd.readouterr() == ("", "")


def test_after_a_restart_there_is_something_new_to_tell(store, monkeypatch):
    assert is_first_to_tell()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarts() == 1
    is_first_to_tell.cache_clear()
    assert is_first_to_tell()


@pytest.mark.parametrize(("local_rank", "tells"), [("0", True), ("1", False)])
def test_without_a_place_to_ask_the_first_of_each_machine_tells(store, monkeypatch, local_rank, tells):
    del store
    monkeypatch.setattr(launch, "SECONDS_TO_REACH_OTHERS", 0.1)
    monkeypatch.delenv("MASTER_PORT")
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert is_first_to_tell() is tells


def test_starts_by_one_torchrun_have_one_name(monkeypatch):
    assert launch_name() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-17")
    assert launch_name() == "job-17"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launch_name() == launch_name() != "none"
