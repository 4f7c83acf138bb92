"""Folders on a local Ray cluster with two workers: the results of one machine, also when workers die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.inference.journal import read_journal
from helpers.weights import small_recipe, write_untrained

pytest.importorskip("ray.data", reason="Ray Data is not installed")

WORKER = "ray::MapWorker"
"""What Ray calls the process of an actor of Ray Data."""

DEADLY_RUN = """
import os, signal, sys

import ray

from etnet.cli.main import main


def deadly_input():
    from etnet.inference import pipeline

    open_input = pipeline.open_input

    def die(item, **options):
        if item.id == "0007.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return open_input(item, **options)

    pipeline.open_input = die


ray.init(
    address="local",
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    runtime_env={"worker_process_setup_hook": deadly_input},
)
main(sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    write_untrained(tmp_path / "model/weights/best.safetensors", small_recipe())
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_images(count: int, *, bad: int = 0) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (90 + index % 3, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{index:04}.png")
    for index in range(bad):
        Path(f"images/bad{index}.png").write_text("not a picture")


def arguments(output: str, *options: str) -> list[str]:
    fixed = ["--device", "cpu", "--threads", "1", "--save-edges", "--overlay"]
    return ["infer", "images", "--model", "model", "--output", output, *fixed, *options]


def segment(output: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etnet", *arguments(output, *options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def contents(output: str) -> dict[str, bytes]:
    """Every file of a folder; of the summary all but what it says of the run's time."""
    files = (path for path in Path(output).rglob("*") if path.is_file() and path.suffix != ".lock")
    content = {path.relative_to(output).as_posix(): path.read_bytes() for path in files}
    summary = json.loads(content["summary.json"])
    del summary["this_run"]
    content["summary.json"] = json.dumps(summary).encode()
    return content


def lines(output: str) -> int:
    journal = Path(output, "journal.jsonl")
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def processes_below(ancestor: int) -> Iterator[tuple[int, str]]:
    """(number, command line) of the processes that a process has started, and those have started."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            parents[int(entry.name)] = (int(status.rpartition(")")[2].split()[1]), command)
    for number, (parent, command) in parents.items():
        while parent in parents and parent != ancestor:
            parent = parents[parent][0]
        if parent == ancestor:
            yield number, command


def kill_a_worker(run: subprocess.Popen[str], output: str, *, after: int, spared: set[int]) -> int:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert run.poll() is None, "the run ended before its worker was killed"
        if lines(output) >= after:
            for number, command in processes_below(run.pid):
                if command.startswith(WORKER) and number not in spared:
                    os.kill(number, signal.SIGKILL)
                    return number
        time.sleep(0.01)
    pytest.fail(f"no worker to kill after {after} results")


@pytest.mark.long
def test_a_run_on_ray_leaves_the_folder_of_a_run_without_and_can_go_on(folder):
    write_images(40, bad=2)
    assert segment("plain").returncode == 6
    spread = segment("spread", "--json", "--ray")
    assert spread.returncode == 6, spread.stderr
    assert json.loads(spread.stdout)["counts"] == {"found": 42, "done": 40, "failed": 2, "skipped_other_files": 0}
    assert "Traceback" not in spread.stderr
    assert contents("spread") == contents("plain")

    Path("spread/masks/0003.png").unlink()
    Image.fromarray(np.zeros((90, 100, 3), np.uint8)).save("images/0009.png")
    again = segment("spread", "--continue", "--ray=local")
    assert again.returncode == 6, again.stderr
    assert json.loads(Path("spread/summary.json").read_text())["this_run"]["kept"] == 38
    assert segment("plain", "--continue").returncode == 6
    assert contents("spread") == contents("plain")


@pytest.mark.long
def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(folder):
    write_images(300, bad=2)
    assert segment("plain").returncode == 6
    command = [sys.executable, "-m", "etnet", *arguments("killed", "--ray", "local")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        killed: set[int] = set()
        for after in (1, 60, 120):
            killed.add(kill_a_worker(run, "killed", after=after, spared=killed))
        output, messages = run.communicate(timeout=300)
    assert len(killed) == 3
    assert run.returncode == 6, messages
    assert "300 of 302 images segmented" in output
    ids = [result.file for result in read_journal(Path("killed/journal.jsonl"))]
    assert len(ids) == len(set(ids)) == 302
    assert contents("killed") == contents("plain")


@pytest.mark.long
def test_an_input_that_kills_every_worker_fails_and_the_others_are_done(folder):
    write_images(20)
    run = subprocess.run(
        [sys.executable, "-c", DEADLY_RUN, *arguments("deadly", "--ray", "local")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 6, run.stderr
    summary = json.loads(Path("deadly/summary.json").read_text())
    assert summary["counts"]["done"] == 19
    [failure] = summary["failed"]
    assert failure["file"] == "0007.png"
    assert failure["reason"].startswith("images/0007.png: the process that segmented it died 2 times")


@pytest.mark.long
def test_an_interrupted_run_ends_its_workers_and_can_go_on(folder):
    write_images(300)
    command = [sys.executable, "-m", "etnet", *arguments("stopped", "--ray", "local")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 200
        while lines("stopped") < 5 and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        started = [number for number, _ in processes_below(run.pid)]
        run.send_signal(signal.SIGINT)
        messages = run.communicate(timeout=60)[1]
    assert run.returncode == 130, messages
    assert "Stopped; finished images are kept. Go on with" in messages
    assert started
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [number for number in started if Path(f"/proc/{number}").exists()]
    assert 5 <= lines("stopped") < 300
    assert segment("stopped", "--continue").returncode == 0
    assert segment("plain").returncode == 0
    assert contents("stopped") == contents("plain")


@pytest.mark.long
def test_a_cluster_of_two_machines_is_joined_by_its_address(folder, tmp_path_factory):
    from ray.cluster_utils import Cluster

    write_images(24)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        joined = segment("joined", "--ray", cluster.address)
    finally:
        cluster.shutdown()
    assert joined.returncode == 0, joined.stderr
    assert segment("plain").returncode == 0
    assert contents("joined") == contents("plain")
