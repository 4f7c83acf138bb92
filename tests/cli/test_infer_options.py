"""Options of `etnet infer` that have no effect, contradict each other, or change what the network sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.inference.predictor import Predictor
from helpers.backends import image_of, pixel_predictor, random_labels
from helpers.command_line import one_sentence, run_etnet
from helpers.medical import write_nifti
from helpers.weights import write_header_only


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
