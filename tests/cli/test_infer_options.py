"""Options of `etnet infer` that have no effect, contradict each other, or change what the network sees."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from etnet.inference.journal import read_journal
from etnet.inference.predictor import Predictor
from helpers.backends import image_of, pixel_predictor, random_labels
from helpers.command_line import one_sentence, run_etnet
from helpers.medical import write_nifti
from helpers.weights import small_recipe, write_header_only, write_untrained

LOAD = Predictor.load


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with an image and a run whose network is replaced by pixel arithmetic."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Predictor, "load", pixel_predictor)
    write_header_only(tmp_path / "runs/train/first/weights/best.safetensors")
    (tmp_path / "eyes").mkdir()
    Image.fromarray(image_of(random_labels(9, 12))).save(tmp_path / "eyes/a.png")
    return tmp_path


def test_an_overlap_without_tiles_is_refused(here):
    one_sentence(run_etnet("infer", "eyes", "--tile", "off", "--overlap", 0.5), 2, "--overlap 0.5", "add --tile auto")
    one_sentence(
        run_etnet("evaluate", "runs/train/first", "--data", "eyes", "--overlap", 0.5),
        2,
        "--overlap 0.5",
        "leave --overlap away",
    )
    assert not (here / "runs/infer").exists()
    assert run_etnet("infer", "eyes", "--tile", "off").exit_code == 0
    assert run_etnet("infer", "eyes", "--overlap", 0.5).exit_code == 0


@pytest.mark.parametrize(
    ("source", "options"),
    [("eyes", ("--plane", "axial")), ("eyes/a.png", ("--recursive",)), ("eyes", ("--overwrite",))],
)
def test_an_option_that_changes_nothing_is_told_in_a_note(here, source, options):
    result = run_etnet("infer", source, *options)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if "has no effect" in line]
    assert line.startswith(options[0])


def test_options_that_have_an_effect_are_told_of_by_none(here):
    write_nifti(here / "eyes/ct.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    result = run_etnet("infer", "eyes", "--plane", "sagittal", "--recursive", "--output", "out", "--overwrite")
    assert result.exit_code == 0, result.output
    assert "has no effect" not in result.stderr


@pytest.fixture
def xray(here) -> Path:
    """A network trained through a window of CT, and an X-ray over the whole range of 16 bits."""
    recipe = small_recipe(intensity_window=[-1000, 400])
    weights = write_untrained(here / "ct.safetensors", recipe)
    (here / "xrays").mkdir()
    picture = np.linspace(5000, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    assert cv2.imwrite(str(here / "xrays/a.png"), picture)
    return weights


def test_an_image_outside_the_window_names_the_option_that_mends_it(xray, monkeypatch):
    monkeypatch.setattr(Predictor, "load", LOAD)
    result = run_etnet("infer", "xrays", "--model", xray, "--output", "out")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if "--intensity-window LOW HIGH" in line]
    assert "1 image came out blank, dark or bright (a.png)" in line
    assert "shown -1000 to 400" in line


def test_a_window_of_the_command_line_is_used_warned_of_and_kept(xray, here, monkeypatch):
    monkeypatch.setattr(Predictor, "load", LOAD)
    words = ("infer", "xrays", "--model", xray, "--output", "out", "--intensity-window", 0, 65535, "--overlay")
    result = run_etnet(*words)
    assert result.exit_code == 0, result.output
    assert "training did (-1000 to 400)" in result.stderr
    assert "LOW HIGH" not in result.stderr
    assert json.loads((here / "out/summary.json").read_text())["settings"]["intensity_window"] == [0, 65535]
    (image,) = read_journal(here / "out/journal.jsonl")
    assert image.quality_flags == ()
    again = run_etnet(*words, "--continue")
    assert "1 of them kept" in again.stdout
    other = run_etnet(*words[:-4], "--intensity-window", 0, 30000, "--continue")
    assert "made with another model or other settings" in other.stderr


@pytest.mark.parametrize("window", [(5, 5), (400, -1000), ("nan", 3), (0, "inf")])
def test_a_window_without_extent_is_refused(here, window):
    one_sentence(run_etnet("infer", "eyes", "--intensity-window", *window), 2, "LOW below HIGH")


def test_the_window_of_training_itself_and_pictures_of_8_bits_raise_no_warning(xray, here, monkeypatch):
    monkeypatch.setattr(Predictor, "load", LOAD)
    Image.new("RGB", (64, 64)).save(here / "eyes/a.png")
    result = run_etnet("infer", "eyes", "--model", xray, "--intensity-window", -1000, 400, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.stderr
