from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.inference.folder import predict_folder
from etnet.inference.folder_report import write_folder_report
from etnet.inference.inputs import find_inputs
from etnet.inference.predictor import Predictor
from etnet.types import RegionOfInterest
from helpers.backends import PixelBackend, contract, image_of, random_labels
from helpers.bundles import draw_disc, pixel_bundle
from helpers.medical import write_nifti


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "eyes"
    folder.mkdir()
    Image.fromarray(image_of(random_labels(40, 50))).save(folder / "a.png")
    (folder / "broken.png").write_text("not a picture")
    return folder


def report(images: Path, predictor, *, after=None) -> str:
    """The page of a run over a folder; `after` changes the folder before it is written."""
    output = images.parent / "out"
    output.mkdir(exist_ok=True)
    inputs = find_inputs(images)
    outcome = predict_folder(predictor, inputs, output)
    if after is not None:
        after(output)
    summary = {
        "settings": {"input": str(images), "tile": "auto"},
        "model": {"recipe": "drive", "sha256": "f" * 64},
        "ran_on": predictor.runs_on,
        "versions": {"numpy": np.__version__},
        "counts": {"found": 2, "done": outcome.done, "failed": outcome.failed, "skipped_other_files": 0},
    }
    write_folder_report(outcome, inputs, output, contract=predictor.contract, summary=summary)
    return (output / "report.html").read_text("utf-8")


def pictures(page: str) -> list[str]:
    return re.findall(r'src="(data:image/webp;base64,[^"]+)"', page)


def test_the_report_shows_images_measurements_failures_and_hashes(images):
    page = report(images, Predictor(PixelBackend(), contract()))
    assert "eyes, segmented by drive" in page
    for words in ("a.png", "broken.png", "not of a known format", "f" * 64, "pixel arithmetic", "vessel"):
        assert words in page, words
    assert len(pictures(page)) == 1


def test_a_mask_or_image_that_is_gone_leaves_its_row_without_a_picture(images):
    page = report(images, Predictor(PixelBackend(), contract()), after=lambda out: (out / "masks/a.png").unlink())
    assert "a.png" in page
    assert pictures(page) == []


def test_a_volume_is_shown_by_the_slice_with_most_of_the_mask(images):
    values = np.zeros((30, 20, 4), np.uint8)
    values[5:25, 5:15, 2] = 1
    write_nifti(images / "ct.nii", values, np.eye(4))
    page = report(images, Predictor(PixelBackend(), contract()))
    assert len(pictures(page)) == 2
    assert "ct.nii" in page


def test_pictures_of_a_bundle_show_the_region_of_interest(images):
    Image.fromarray(image_of(draw_disc((200, 300), (100, 120), 12))).save(images / "a.png")
    page = report(images, pixel_bundle(RegionOfInterest(side=0.2, size=48)))
    # The region has 60 pixels a side, the image 300 x 200.
    assert re.search(r'width="60" height="60"', page), re.findall(r"<img[^>]{0,80}", page)


def test_equal_runs_have_equal_reports(images):
    first = report(images, Predictor(PixelBackend(), contract()))
    assert report(images, Predictor(PixelBackend(), contract())) == first
