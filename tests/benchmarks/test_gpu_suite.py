"""The suite: steps that fail, that take too long, that were killed, and what its command line takes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.benchmarks import BENCHMARKS, load_benchmark

gpu_suite = load_benchmark("gpu_suite")
parts = load_benchmark("suite.parts")
progress = load_benchmark("suite.progress")
running = load_benchmark("suite.running")
state = load_benchmark("suite.state")
steps = load_benchmark("suite.steps")
table = load_benchmark("suite.table")

WRITE = """
import json, pathlib, sys
out, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with (out / "ran.txt").open("a") as stream:
    print(name, file=stream)
(out / f"{name}.json").write_text(json.dumps({"headline": "measured " + name}))
"""

DRIVER = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[3]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
sys.path.insert(0, sys.argv[1])
import gpu_suite
from suite.steps import Settings, Step
out = Path(sys.argv[2])
write = (sys.executable, "-c", (out / "write.py").read_text(), str(out))
waits = ("bash", "-c", f"if test -e {out}/ran.txt && test ! -e {out}/go; then "
         f"setsid sleep 600 & touch {out}/waiting; sleep 600; fi; {write[0]} {out}/write.py {out} second")
planned = [Step("first", "ops", (*write, "first"), 30, needs=()), Step("second", "ops", waits, 30, needs=())]
settings = Settings(out, "cpu", True, 5, ("ops",))
with gpu_suite.locked(out), gpu_suite.stoppable():
    sys.exit(gpu_suite._go(settings, planned, []))
"""


def settings(out: Path, **options):
    values = {"device": "cpu", "smoke": True, "minutes": 5.0, "parts": steps.PARTS, **options}
    return steps.Settings(out, **values)


def writing(out: Path, name: str, **options):
    """A step that writes a result and its name into a list."""
    command = (sys.executable, "-c", WRITE, str(out), name)
    return steps.Step(name, "ops", command, **{"expected": 10.0, "needs": (), **options})


def failing(name: str, script: str, **options):
    return steps.Step(name, "ops", ("bash", "-c", script), **{"expected": 10.0, "needs": (), **options})


def run(out: Path, planned, *, again=(), **options):
    """Whether all steps are complete, and their records."""
    with state.locked(out):
        kept = state.State(out)
        complete = progress.Suite(settings(out, **options), planned, kept).run(again=again)
    return complete, json.loads((out / "suite.json").read_text())["steps"]


def ran(out: Path) -> list[str]:
    return (out / "ran.txt").read_text().split()


def test_steps_are_done_once_and_their_results_told(tmp_path):
    planned = [writing(tmp_path, "one"), writing(tmp_path, "two")]
    complete, records = run(tmp_path, planned)
    assert complete
    assert [record["status"] for record in records.values()] == ["done", "done"]
    assert records["two"]["headline"] == "measured two"
    assert run(tmp_path, planned)[0]
    assert ran(tmp_path) == ["one", "two"]
    assert run(tmp_path, planned, again=["two"])[0]
    assert run(tmp_path, planned, again=["ops"])[0]
    assert run(tmp_path, planned, again=["all"])[0]
    assert ran(tmp_path) == ["one", "two", "two", "one", "two", "one", "two"]
    assert json.loads((tmp_path / "suite.json").read_text())["settings"]["smoke"] is True


def test_a_step_is_repeated_when_its_command_or_its_sources_changed_or_its_result_is_gone(tmp_path, monkeypatch):
    run(tmp_path, [writing(tmp_path, "one")])
    (tmp_path / "one.json").unlink()
    run(tmp_path, [writing(tmp_path, "one")])
    run(tmp_path, [writing(tmp_path, "one", environment={"VARIABLE": "1"})])
    monkeypatch.setattr(progress, "digest", lambda names: "changed")
    run(tmp_path, [writing(tmp_path, "one", environment={"VARIABLE": "1"})])
    monkeypatch.setattr(progress, "machine", lambda: "another")
    run(tmp_path, [writing(tmp_path, "one", environment={"VARIABLE": "1"})])
    assert ran(tmp_path) == ["one"] * 5


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("echo 'RuntimeError: no kernel'; exit 3", "failed", "exit code 3: RuntimeError: no kernel"),
        ("exit 1", "failed", "exit code 1: it printed nothing"),
        ("kill -SEGV $$", "failed", "ended by SIGSEGV: it printed nothing"),
        ("true", "failed", "it wrote no bad.json; see bad.log"),
        ('echo \'{"failed": "2 tests failed"}\' > bad.json; exit 1', "failed", "2 tests failed"),
        ('echo \'{"failed": "12 min more"}\' > bad.json; exit 75', "unfinished", "12 min more"),
    ],
)
def test_a_step_that_fails_costs_its_own_row_only(tmp_path, script, status, reason):
    bad = failing("bad", f"cd {tmp_path}; {script}")
    complete, records = run(tmp_path, [bad, writing(tmp_path, "good")])
    assert not complete
    assert (records["bad"]["status"], records["bad"]["reason"]) == (status, reason)
    assert records["good"]["status"] == "done"


def test_a_step_whose_program_is_gone_costs_its_own_row_only(tmp_path):
    gone = steps.Step("gone", "ops", (str(tmp_path / "python"),), 10.0, needs=())
    complete, records = run(tmp_path, [gone, writing(tmp_path, "good")])
    assert not complete
    assert records["gone"]["reason"] == f"{tmp_path}/python could not be started (No such file or directory)"
    assert records["good"]["status"] == "done"


def test_a_failed_step_leaves_no_result_of_an_earlier_attempt(tmp_path):
    run(tmp_path, [writing(tmp_path, "one")])
    run(tmp_path, [failing("one", "exit 1")])
    assert not (tmp_path / "one.json").exists()
    run(tmp_path, [writing(tmp_path, "one")])
    run(tmp_path, [failing("one", "exit 75", goes_on=True)])
    assert (tmp_path / "one.json").exists()


def test_a_step_that_hangs_is_cut_off_and_the_next_has_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "GRACE", 0.2)
    planned = [failing("hangs", "sleep 600", expected=0.5), writing(tmp_path, "good", expected=3.0)]
    complete, records = run(tmp_path, planned, minutes=4 / 60)
    assert not complete
    assert records["hangs"]["status"] == "cut off"
    assert records["hangs"]["seconds"] < 2.5
    assert records["good"]["status"] == "done"


def test_a_step_for_which_too_little_time_is_left_is_not_begun_and_says_so(tmp_path):
    complete, records = run(tmp_path, [writing(tmp_path, "one", expected=600.0)], minutes=0.1)
    assert not complete
    assert records["one"]["status"] == "no time"
    assert records["one"]["reason"].startswith("6 s of --minutes are left")
    assert run(tmp_path, [writing(tmp_path, "one", expected=600.0)])[0]


def test_what_cannot_run_here_is_left_out_for_its_reason_and_no_failure(tmp_path):
    complete, records = run(tmp_path, [writing(tmp_path, "one", left_out="there is no environment of it")])
    assert complete
    assert (records["one"]["status"], records["one"]["reason"]) == ("left out", "there is no environment of it")


@pytest.mark.parametrize(
    ("expected", "left", "share"),
    [
        ((60, 60), 300, 240),
        ((60, 60), 120, 60),
        ((60, 60), 90, 60),
        ((60, 180), 40, 40),
        ((60,), 45, 45),
    ],
)
def test_time_is_divided_by_what_later_steps_need(expected, left, share):
    first, *later = (steps.Step(str(at), "ops", (), seconds) for at, seconds in enumerate(expected))
    assert steps.time_for(first, later, left) == share


@pytest.fixture
def driver(tmp_path):
    (tmp_path / "write.py").write_text(WRITE)
    command = [sys.executable, "-c", DRIVER, str(BENCHMARKS), str(tmp_path)]

    def start(hangup: str = "SIG_DFL"):
        return subprocess.Popen([*command, hangup], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.01)


def test_a_killed_suite_loses_the_step_in_flight_only_and_its_processes_end_with_the_next(tmp_path, driver):
    killed = driver()
    wait_for(tmp_path / "waiting")
    killed.kill()
    killed.communicate()
    records = json.loads((tmp_path / "suite.json").read_text())["steps"]
    assert [record["status"] for record in records.values()] == ["done", "running"]
    mark = records["second"]["mark"]
    assert len(running._marked(mark)) >= 2, "the step of a killed suite goes on"
    (tmp_path / "go").touch()
    output, _ = (resumed := driver()).communicate(timeout=120)
    assert resumed.returncode == 0, output
    assert "first: done before" in output
    assert "processes of the killed suite still ran" in output
    assert ran(tmp_path) == ["first", "second"]
    assert running._marked(mark) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_suite_ends_its_step_and_tells_how_far_it_came(tmp_path, driver, number):
    stopped = driver()
    wait_for(tmp_path / "waiting")
    mark = json.loads((tmp_path / "suite.json").read_text())["steps"]["second"]["mark"]
    assert len(running._marked(mark)) >= 2
    stopped.send_signal(number)
    output, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == 130
    assert "the same command goes on" in output
    records = json.loads((tmp_path / "suite.json").read_text())["steps"]
    assert [record["status"] for record in records.values()] == ["done", "interrupted"]
    assert running._marked(mark) == set()


def test_a_suite_that_nohup_started_outlives_its_terminal(tmp_path, driver):
    (tmp_path / "go").touch()
    kept = driver("SIG_IGN")
    wait_for(tmp_path / "suite.json")
    kept.send_signal(signal.SIGHUP)
    output, _ = kept.communicate(timeout=120)
    assert kept.returncode == 0, output
    assert ran(tmp_path) == ["first", "second"]


def test_a_second_suite_in_the_same_folder_is_refused(tmp_path, capsys):
    with state.locked(tmp_path):
        assert gpu_suite.main(["--out", str(tmp_path), "--device", "cpu"]) == 2
    assert f"another suite (process {os.getpid()}) works there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--only", "ops,optics"], "--only ops,optics: expected parts out of build, tests, ops, infer, train"),
        (["--only", ","], "expected parts out of"),
        (["--minutes", "0"], "--minutes 0: expected a number over 0"),
        (["--minutes", "nan"], "--minutes nan: expected a number over 0"),
        (["--again", "opps"], "--again opps: expected a part or a step"),
        (["--data", "{out}/none"], "none: is no folder"),
        (["--data", "{out}"], "holds none of the folders DRIVE, Drishti-GS, Montgomery"),
        (["--encoder-weights", "{out}/none"], "none: is no file"),
    ],
)
def test_what_the_command_line_cannot_mean_is_one_sentence(tmp_path, capsys, words, sentence):
    words = [word.format(out=tmp_path) for word in words]
    assert gpu_suite.main(["--out", str(tmp_path / "results"), "--device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpu_suite.py: ")
    assert sentence in error
    assert not (tmp_path / "results").exists()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert gpu_suite.main(["--out", str(tmp_path / "file"), "--device", "cpu"]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_folder_with_another_suite_json_is_left_alone(tmp_path, capsys):
    (tmp_path / "suite.json").write_text('{"steps": []}')
    assert gpu_suite.main(["--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "is not the state of such a suite" in capsys.readouterr().err
    assert (tmp_path / "suite.json").read_text() == '{"steps": []}'


def test_a_full_disk_ends_the_suite_with_a_sentence_and_keeps_what_was_done(tmp_path, monkeypatch):
    run(tmp_path, [writing(tmp_path, "one")])
    before = (tmp_path / "suite.json").read_text()

    def refuse(_number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state.os, "fsync", refuse)
    with pytest.raises(state.SuiteFault, match=r"No space left on device.*make room and give the same command again"):
        run(tmp_path, [writing(tmp_path, "two")])
    assert (tmp_path / "suite.json").read_text() == before
    assert not list(tmp_path.glob(".suite*"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("smoke", [True, False])
def test_every_part_has_steps_whose_names_are_the_kinds_of_their_results(tmp_path, device, smoke):
    planned = parts.steps(settings(tmp_path, device=device, smoke=smoke))
    names = [step.name for step in planned]
    assert len(set(names)) == len(names)
    assert [part for part in steps.PARTS if part in {step.part for step in planned}] == list(steps.PARTS)
    for step in planned:
        if step.result:
            assert step.command[step.command.index("--json") + 1] == str(tmp_path / f"{step.name}.json")
        assert Path(step.command[1]).is_file() or step.left_out
    assert names.index("inputs") < names.index("inference")


def test_full_figures_of_a_processor_fit_into_the_minutes_of_make_bench(tmp_path):
    chosen = settings(tmp_path, smoke=False, parts=("ops", "infer", "train", "peers"))
    assert sum(step.expected for step in parts.steps(chosen)) <= 25 * 60


def test_what_was_built_for_an_older_state_of_the_sources_is_built_again_before_it_is_measured(tmp_path):
    chosen = settings(tmp_path, parts=("ops",))
    assert {step.part for step in parts.steps(chosen)} == {"ops"}
    chosen.site.mkdir()
    assert parts.steps(chosen)[0].name == "build"


def test_without_data_no_training_is_begun(tmp_path):
    (step,) = parts.steps(settings(tmp_path, smoke=False, parts=("accuracy",)))
    assert step.left_out == "there is no --data to train on"
    found = parts.steps(settings(tmp_path, smoke=True, parts=("accuracy",)))
    assert [(step.name, step.left_out) for step in found] == [("inputs", None), ("accuracy", None)]
    assert parts.steps(settings(tmp_path, smoke=False, data=tmp_path, parts=("accuracy",)))[0].left_out is None


def test_what_is_measured_on_is_drive_where_there_is_one(tmp_path):
    assert parts.drive(settings(tmp_path, data=tmp_path)).name == "generated"
    (tmp_path / "DRIVE").mkdir()
    chosen = settings(tmp_path, data=tmp_path)
    assert parts.drive(chosen) == tmp_path / "DRIVE"
    assert "--images" not in next(step for step in parts.steps(chosen) if step.name == "inputs").command


def test_the_digest_of_sources_follows_their_content_and_nothing_else(tmp_path):
    (tmp_path / "python" / "__pycache__").mkdir(parents=True)
    (tmp_path / "python" / "one.py").write_text("1")
    first = state.digest(["python"], tmp_path)
    (tmp_path / "python" / "__pycache__" / "one.pyc").write_text("cache")
    (tmp_path / "python" / "one.pyc").write_text("cache")
    assert state.digest(["python", "missing"], tmp_path) == first
    (tmp_path / "python" / "results_of_a_suite").mkdir()
    (tmp_path / "python" / "results_of_a_suite" / "suite.json").write_text("{}")
    assert state.digest(["python"], tmp_path) == first
    (tmp_path / "python" / "one.py").write_text("2")
    assert state.digest(["python"], tmp_path) != first


def test_a_table_tells_the_range_of_comparisons_and_every_reason(tmp_path):
    sides = {"ours": {"name": "etnet"}, "theirs": {"name": "rival"}}
    rows = [{"ratio": ratio, **sides} for ratio in (2.0, 0.5, 4.0)]
    (tmp_path / "ops.json").write_text(json.dumps({"comparisons": rows}))
    assert table.headline(tmp_path / "ops.json") == (
        "3 comparisons, 1 below 1x; etnet / rival 0.50x to etnet / rival 4.00x"
    )
    assert table.headline(tmp_path / "none.json") == ""
    planned = [writing(tmp_path, name) for name in ("ops", "late", "waiting")]
    records = {
        "ops": {"status": "done", "seconds": 12.3, "headline": "quick"},
        "late": {"status": "no time", "seconds": None, "reason": "3 s are left"},
    }
    lines = table.table(planned, records).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["ops", "ops", "done", "12", "quick"],
        ["ops", "late", "no", "time", "3", "s", "are", "left"],
        ["ops", "waiting", "not", "begun"],
    ]


def test_all_but_the_peers_fits_into_the_usual_minutes_of_a_gpu(tmp_path):
    chosen = settings(tmp_path, device="cuda", smoke=False, parts=steps.PARTS[:-1])
    assert sum(step.expected for step in parts.steps(chosen)) <= 25 * 60
