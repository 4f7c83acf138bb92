"""Commands of the suite: their time is bounded, and nothing that they started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.benchmarks import BENCHMARKS, load_benchmark

running = load_benchmark("suite.running")


def run(script: str, log, **options):
    return running.run_bounded(["bash", "-c", script], log, **{"seconds": 30.0, "grace": 0.2, **options})


def test_output_and_exit_code_are_those_of_the_command(tmp_path):
    log = tmp_path / "log"
    ended = run(
        "echo out; echo err >&2; echo $VARIABLE; pwd; exit 7", log, environment={"VARIABLE": "given"}, folder="/"
    )
    assert (ended.code, ended.cut_off, ended.given_up) == (7, False, False)
    assert log.read_text() == "out\nerr\ngiven\n/\n"
    assert run("kill -KILL $$", log).code == -signal.SIGKILL


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600 & sleep 600 & wait",
        "setsid sleep 600 & sleep 600",
        "trap '' TERM; setsid bash -c \"trap '' TERM; while :; do sleep 1; done\" & while :; do sleep 1; done",
    ],
    ids=["its group", "a process that left its group", "processes that do not want to end"],
)
def test_when_its_time_is_over_everything_that_it_started_ends(tmp_path, script):
    mark = running.new_mark()
    begin = time.monotonic()
    ended = run(script, tmp_path / "log", seconds=0.5, mark=mark)
    assert ended.cut_off
    assert ended.code != 0
    assert time.monotonic() - begin < 10
    assert running._marked(mark) == set()


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    mark = running.new_mark()
    ended = run("setsid sleep 600 >/dev/null 2>&1 & echo done", tmp_path / "log", mark=mark)
    assert (ended.code, ended.cut_off) == (0, False)
    assert running._marked(mark) == set()


def test_a_command_that_was_asked_to_end_may_save_first(tmp_path):
    script = "trap 'sleep 0.2; echo saved; exit 0' TERM; sleep 600 & wait"
    ended = run(script, tmp_path / "log", seconds=0.5, grace=10)
    assert ended.cut_off
    assert ended.code == 0
    assert (tmp_path / "log").read_text() == "saved\n"


def test_a_command_is_given_up_when_its_caller_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "POLL", 0.05)
    answers = iter([False, False, True])
    ended = run("sleep 600", tmp_path / "log", give_up=lambda: next(answers))
    assert (ended.cut_off, ended.given_up) == (False, True)


def test_a_stop_of_the_caller_ends_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "POLL", 0.05)

    def stop():
        raise KeyboardInterrupt

    mark = running.new_mark()
    with pytest.raises(KeyboardInterrupt):
        run("sleep 600", tmp_path / "log", mark=mark, give_up=stop)
    assert running._marked(mark) == set()


def test_commands_of_a_command_bear_its_mark_too(tmp_path, monkeypatch):
    monkeypatch.setenv(running.MARK, "/outer")
    assert running.new_mark().startswith("/outer/")
    monkeypatch.delenv(running.MARK)
    outer = running.new_mark()
    monkeypatch.setenv(running.MARK, outer)
    inner = running.new_mark()
    run(f"echo ${running.MARK}", tmp_path / "log", mark=inner)
    assert (tmp_path / "log").read_text().strip() == inner
    assert inner.startswith(outer + "/")


def test_only_marked_processes_end_and_never_the_one_that_ends_them():
    mark = running.new_mark()
    marked = {**os.environ, running.MARK: mark}
    sleep = ["sleep", "600"]
    with subprocess.Popen(sleep) as other, subprocess.Popen(sleep, env=marked) as one:
        try:
            script = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from suite.running import end_marked; "
            script += f"print(end_marked({mark!r}))"
            told = subprocess.check_output([sys.executable, "-c", script], env=marked, text=True)
            assert told == "1\n", "it bears the mark itself, and lives to tell"
            assert one.wait(timeout=10) == -signal.SIGKILL
            assert other.poll() is None
            assert running.end_marked(mark) == 0
        finally:
            for process in (other, one):
                process.kill()


def test_a_command_that_does_not_exist_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        running.run_bounded([str(tmp_path / "nothing")], tmp_path / "log", seconds=1)


def test_a_stop_before_the_started_process_is_known_ends_it_too(tmp_path, monkeypatch):
    started = []

    class Interrupted(running.subprocess.Popen):
        def __init__(self, *words, **named):
            super().__init__(*words, **named)
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(running.subprocess, "Popen", Interrupted)
    mark = running.new_mark()
    with pytest.raises(KeyboardInterrupt):
        run("sleep 600", tmp_path / "log", mark=mark)
    assert started[0].wait(timeout=10) == -signal.SIGKILL
    assert running._marked(mark) == set()
