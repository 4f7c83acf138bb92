from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from etnet.inference.inputs import find_inputs
from etnet.inference.overlay import enlargement
from etnet.types import RegionOfInterest
from helpers.backends import PixelBackend, random_labels
from helpers.bundles import draw_disc, pixel_bundle
from helpers.folder_runs import failed_rows, measurement_rows, predict, run, save, stored


def test_the_areas_of_every_image_are_in_a_table_that_names_their_unit(tmp_path):
    labels = {name: save(tmp_path / f"images/{name}.png", random_labels(9, 12, seed=i)) for i, name in enumerate("ab")}
    outcome = run(tmp_path / "images", tmp_path / "out")
    rows = measurement_rows(tmp_path / "out")
    assert [(row["file"], row["height_px"], row["width_px"], row["vessel_area_px"]) for row in rows] == [
        (f"{name}.png", "9", "12", str(np.count_nonzero(item == 1))) for name, item in labels.items()
    ]
    assert [row["optic_disc_area_px"] for row in rows] == [str(np.count_nonzero(item == 2)) for item in labels.values()]
    # Nine rows are too few boxes for a dimension.
    assert [row["vessel_fractal_dimension"] for row in rows] == ["", ""]
    assert next(outcome.images()).measurements["vessel_area_px"] == np.count_nonzero(labels["a"] == 1)


def test_the_table_says_how_uncertain_a_mask_is_and_what_is_wrong_with_its_image(tmp_path):
    save(tmp_path / "images/blank.png", np.zeros((20, 20), np.uint8))
    noisy = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noisy).save(tmp_path / "images/noisy.png")
    outcome = run(tmp_path / "images", tmp_path / "out")
    blank, noise = measurement_rows(tmp_path / "out")
    assert (blank["quality_flags"], noise["quality_flags"]) == ("blank", "")
    assert float(blank["boundary_uncertainty"]) == 0
    assert 0 < float(noise["boundary_uncertainty"]) < 1
    assert [image.quality_flags for image in outcome.images()] == [("blank",), ()]


def test_without_edge_guidance_no_uncertainty_is_given(tmp_path):
    save(tmp_path / "images/a.png", random_labels(8, 8))
    run(tmp_path / "images", tmp_path / "out", backend=PixelBackend(with_edges=False))
    assert [row["boundary_uncertainty"] for row in measurement_rows(tmp_path / "out")] == [""]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_bundle_segments_the_region_it_finds_and_lists_the_images_in_which_it_finds_none(tmp_path, batch_size):
    roi = RegionOfInterest(side=0.4, size=48)
    discs = {name: draw_disc((100, 120), (40 + 5 * i, 50 + 9 * i), 12) for i, name in enumerate("abd")}
    for name, labels in discs.items():
        save(tmp_path / f"images/{name}.png", labels)
    save(tmp_path / "images/c.png", np.zeros((100, 120), np.uint8))
    (tmp_path / "out").mkdir()
    outcome = predict(
        pixel_bundle(roi), find_inputs(tmp_path / "images"), tmp_path / "out", overlay=True, batch_size=batch_size
    )
    for name, labels in discs.items():
        np.testing.assert_array_equal(stored(tmp_path / f"out/masks/{name}.png"), labels)
        np.testing.assert_array_equal(stored(tmp_path / f"out/edges/{name}.png"), labels * 100)
    ((file, reason),) = failed_rows(tmp_path / "out")[1:]
    assert file == "c.png"
    assert "the optic disc was not localized" in reason
    assert [item.file for item in outcome.images()] == ["a.png", "b.png", "d.png"]
    first = measurement_rows(tmp_path / "out")[0]
    assert (first["center_row_px"], first["center_column_px"]) == ("40.0000", "50.0000")
    assert first["vertical_cup_to_disc_ratio"] == "0.5000"


def test_the_overlay_of_a_bundle_shows_the_region(tmp_path):
    save(tmp_path / "images/a.png", draw_disc((200, 240), (100, 120), 12))
    (tmp_path / "out").mkdir()
    roi = RegionOfInterest(side=0.4, size=96)
    predict(pixel_bundle(roi), find_inputs(tmp_path / "images"), tmp_path / "out", overlay=True)
    picture = stored(tmp_path / "out/overlays/a.png")
    factor = enlargement(200, 240)
    # Rows 52..147 and columns 72..167 of the image; what is not disc is black but for the frame.
    lit = picture[: 200 * factor].min(axis=2) > 40
    rows, columns = np.nonzero(lit)
    assert np.array([rows.min(), rows.max(), columns.min(), columns.max()]) // factor == pytest.approx(
        [52, 147, 72, 167], abs=1
    )
