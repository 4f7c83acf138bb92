"""What a run that takes days must stand: being killed, being continued, being shared, and not growing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.weights import small_recipe, write_untrained

SMALL_ENOUGH = 1.05
"""How much larger the peak of memory may be after ten times as many images."""

MEASURED_RUN = """
import resource, sys
from etnet.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.fixture
def model(tmp_path) -> Path:
    write_untrained(tmp_path / "model/weights/best.safetensors", small_recipe())
    return tmp_path / "model"


def write_images(folder: Path, count: int, *, size: tuple[int, int] = (90, 100), bad: int = 0) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        shape = (size[0] + index % 3, size[1], 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{index:04}.png")
    for index in range(bad):
        (folder / f"bad{index}.png").write_text("not a picture")
    return folder


def command(images: Path, model: Path, output: Path, *options: object) -> list[str]:
    arguments = ["infer", images, "--model", model, "--output", output, "--device", "cpu", "--threads", 1, *options]
    return [sys.executable, "-m", "etnet", *map(str, arguments)]


def lines(output: Path) -> int:
    journal = output / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def contents(output: Path) -> dict[str, bytes]:
    """Every file of a folder; of the summary all but what it says of the run's time and command."""
    files = (path for path in output.rglob("*") if path.is_file() and path.suffix != ".lock")
    found = {path.relative_to(output).as_posix(): path for path in files}
    content = {name: path.read_bytes() for name, path in found.items()}
    summary = json.loads(content["summary.json"])
    del summary["this_run"]
    content["summary.json"] = json.dumps(summary).encode()
    return content


@pytest.mark.long
def test_ten_kills_leave_the_folder_of_an_undisturbed_run(tmp_path, model):
    images = write_images(tmp_path / "images", 60, bad=3)
    options = ("--save-edges", "--overlay", "--save-probabilities", "npz", "--jobs", 2)
    undisturbed = subprocess.run(command(images, model, tmp_path / "undisturbed", *options), check=False)
    assert undisturbed.returncode == 6
    killed, chance = tmp_path / "killed", random.Random(0)
    kills = 0
    while kills < 10:
        before = lines(killed)
        run = subprocess.Popen(command(images, model, killed, *options, "--continue"), stderr=subprocess.PIPE)
        wanted = before + chance.randint(1, 4)
        deadline = time.monotonic() + 120
        while run.poll() is None and lines(killed) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        assert run.poll() is None, "the run ended before it was killed ten times"
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert lines(killed) > before
        kills += 1
    last = subprocess.run(
        command(images, model, killed, *options, "--continue"), capture_output=True, text=True, check=False
    )
    assert last.returncode == 6, last.stderr
    assert json.loads((killed / "summary.json").read_text())["this_run"]["kept"] >= 10
    assert contents(killed) == contents(tmp_path / "undisturbed")


@pytest.mark.long
def test_parts_that_run_at_once_and_are_joined_make_the_folder_of_one_run(tmp_path, model):
    images = write_images(tmp_path / "images", 20, bad=1)
    subprocess.run(command(images, model, tmp_path / "whole"), check=False)
    shared = tmp_path / "shared"
    parts = [subprocess.Popen(command(images, model, shared, "--num-parts", 3, "--part-id", part)) for part in range(3)]
    assert sorted(part.wait(timeout=300) for part in parts) == [0, 0, 6]
    tables = sorted(shared.glob("measurements.part-*.csv"))
    assert len(tables) == 3
    assert sum(table.read_text().count("\n") - 1 for table in tables) == 20
    joined = subprocess.run(command(images, model, shared, "--continue"), check=False)
    assert joined.returncode == 6
    assert json.loads((shared / "summary.json").read_text())["this_run"]["kept"] == 20
    assert contents(shared) == contents(tmp_path / "whole")


def peak_memory(images: Path, model: Path, output: Path) -> int:
    arguments = command(images, model, output)[3:]
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED_RUN, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stderr.splitlines()[-1])


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, model):
    few = write_images(tmp_path / "few", 1000, size=(64, 64))
    many = tmp_path / "many"
    many.mkdir()
    for path in sorted(few.iterdir()):
        for copy in range(10):
            os.link(path, many / f"{path.stem}_{copy}.png")
    peaks = [peak_memory(folder, model, tmp_path / f"out_{folder.name}") for folder in (few, many)]
    assert peaks[1] <= SMALL_ENOUGH * peaks[0], peaks
