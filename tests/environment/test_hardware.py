from __future__ import annotations

import os
import shutil

import pytest

from etnet.environment import hardware
from etnet.environment.hardware import machine, results_folder


def test_machine_has_the_cores_and_memory_of_the_system():
    found = machine()
    assert 1 <= found.usable_cores <= found.cores == os.cpu_count()
    assert 0 < found.available_memory_bytes <= found.memory_bytes
    assert found.processor


def test_a_machine_that_tells_nothing_is_described_all_the_same(monkeypatch):
    monkeypatch.setattr(hardware, "_search", lambda path, pattern: None)
    monkeypatch.setattr(hardware, "_sysconf_memory", lambda: None)
    found = machine()
    assert (found.memory_bytes, found.available_memory_bytes) == (None, None)
    assert found.processor


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_one_above(tmp_path):
    found = results_folder(tmp_path / "runs" / "train")
    assert found.writable
    assert found.path == str(tmp_path / "runs" / "train")
    assert found.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.01)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not results_folder(tmp_path / "runs").writable


def test_a_file_in_the_folders_place_is_not_writable(tmp_path):
    (tmp_path / "runs").write_text("")
    assert not results_folder(tmp_path / "runs").writable
