from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from etnet.data.sample_tiers import SUFFIX, FileTier, MemoryTier, Pair


def pair(seed: int, height: int = 6, width: int = 5) -> Pair:
    random = np.random.default_rng(seed)
    return Pair(
        random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        random.integers(0, 3, (height, width), dtype=np.uint8),
    )


def assert_equal(found: Pair | None, expected: Pair):
    assert found is not None
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.uint8
        assert np.array_equal(one, other)
        assert not one.flags.writeable


def in_children(*actions):
    """Runs each in a forked process of its own, one after the other."""
    context = multiprocessing.get_context("fork")
    for action in actions:
        process = context.Process(target=action)
        process.start()
        process.join(20)
        assert process.exitcode == 0


def memory(count: int = 8, limit: int = 2**20) -> MemoryTier:
    return MemoryTier(count, limit, lock=multiprocessing.get_context("fork").Lock())


def files(folder: Path, limit: int = 2**20) -> FileTier:
    return FileTier(folder, limit, threading.Event())


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 50)])
def test_what_is_kept_in_memory_comes_back_read_only(shape):
    tier = memory()
    for index in range(3):
        assert tier.find(index) is None
        assert tier.keep(index, pair(index, *shape))
    for index in range(3):
        assert_equal(tier.find(index), pair(index, *shape))


def test_every_process_sees_what_any_of_them_kept():
    tier = memory()
    in_children(
        lambda: tier.keep(0, pair(0)), lambda: assert_equal(tier.find(0), pair(0)), lambda: tier.keep(1, pair(1))
    )
    assert_equal(tier.find(0), pair(0))
    assert_equal(tier.find(1), pair(1))


def test_the_memory_limit_is_one_for_all_processes():
    # 6 * 5 * 4 = 120 bytes take 128 with alignment.
    tier = memory(limit=3 * 128)

    def keep(index: int, expected: bool):
        return lambda: os._exit(tier.keep(index, pair(index)) is not expected)

    in_children(keep(0, True), keep(1, True), keep(2, True), keep(3, False))
    assert not tier.keep(4, pair(4))
    assert [tier.find(index) is not None for index in range(5)] == [True, True, True, False, False]


def test_a_sample_takes_its_memory_once():
    tier = memory(limit=128)
    assert tier.keep(0, pair(0))
    assert not tier.keep(0, pair(0))
    assert_equal(tier.find(0), pair(0))


def test_a_smaller_sample_fits_where_a_larger_one_did_not():
    tier = memory(limit=128)
    assert not tier.keep(0, pair(0, 60, 50))
    assert tier.keep(1, pair(1))


def test_a_sample_whose_writer_was_killed_is_never_seen():
    tier = memory()

    class Killer:
        nbytes = 90

        def __array__(self, dtype=None, copy=None):  # what NumPy calls
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=lambda: tier.keep(0, Pair(Killer(), pair(0).mask)))
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert tier.find(0) is None
    assert tier.keep(1, pair(1))
    assert_equal(tier.find(1), pair(1))


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 50)])
def test_what_is_kept_in_files_comes_back_read_only_also_to_another_process(tmp_path, shape):
    folder = tmp_path / "cache"
    assert files(folder).find("a") is None
    assert not folder.exists()
    assert files(folder).keep("a", pair(0, *shape))
    assert_equal(files(folder).find("a"), pair(0, *shape))
    assert [path.name for path in folder.iterdir()] == [f"a{SUFFIX}"]


def test_arrays_that_are_views_are_kept_as_they_look(tmp_path):
    turned = Pair(*(np.swapaxes(part, 0, 1)[::-1] for part in pair(0)))
    tier, held = files(tmp_path / "cache"), memory()
    assert tier.keep("a", turned)
    assert held.keep(0, turned)
    assert_equal(tier.find("a"), turned)
    assert_equal(held.find(0), turned)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:30],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: b"x" + content[1:],
    ],
)
def test_a_damaged_file_is_not_used_and_is_written_anew(tmp_path, damage):
    files(tmp_path).keep("a", pair(0))
    path = tmp_path / f"a{SUFFIX}"
    path.write_bytes(damage(path.read_bytes()))
    tier = files(tmp_path)
    assert tier.find("a") is None
    assert tier.keep("a", pair(0))
    assert_equal(tier.find("a"), pair(0))


def test_the_file_limit_counts_what_this_process_wrote(tmp_path):
    size = 64 + 6 * 5 * 4
    tier = files(tmp_path, limit=2 * size)
    assert [tier.keep(name, pair(0)) for name in "abc"] == [True, True, False]
    assert not tier.refused.is_set(), "a limit that is reached is nothing to complain about"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_refuses_is_asked_once_and_nothing_half_written_stays(tmp_path, monkeypatch):
    tier = files(tmp_path)
    asked = []
    real = Path.open

    def full(path, *arguments, **options):
        if path.suffix == ".part":
            asked.append(path)
            real(path, *arguments, **options).close()
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    assert not tier.keep("a", pair(0))
    assert not tier.keep("b", pair(1))
    assert tier.refused.is_set()
    assert len(asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_removed_meanwhile_is_not_made_anew(tmp_path):
    tier = files(tmp_path / "run" / "cache")
    assert not tier.keep("a", pair(0))
    assert tier.refused.is_set()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_may_write_the_same_sample_at_once(tmp_path):
    def write_and_read():
        tier = files(tmp_path)
        for _ in range(50):
            assert tier.keep("a", pair(0, 64, 64))
            assert_equal(tier.find("a"), pair(0, 64, 64))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_and_read) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [f"a{SUFFIX}"]
