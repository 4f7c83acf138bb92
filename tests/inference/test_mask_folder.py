from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.config.load import load_recipe
from etnet.errors import DataError
from etnet.inference.inputs import find_inputs
from etnet.inference.mask_folder import MeasuredMasks, MeasuringSettings, measure_masks
from etnet.metrics.scale import millimetres

TWO_CLASSES = ["data.class_names=[background, spot]"]


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def square(side: int, *, value: int = 1, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[2 : 2 + side, 3 : 3 + side] = value
    return mask


def run(folder: Path, *overrides: str, source: str = "folder", **settings) -> MeasuredMasks:
    return measure_masks(find_inputs(folder), MeasuringSettings(load_recipe(source, overrides), **settings))


def areas(outcome: MeasuredMasks, structure: str = "spot", unit: str = "px") -> dict[str, float | None]:
    return {image.file: image.measurements[f"{structure}_area_{unit}"] for image in outcome.done}


@pytest.mark.parametrize("value", [1, 255])
def test_what_a_value_means_is_decided_over_all_masks(tmp_path, value):
    for name, side in {"a": 0, "b": 4, "c": 5}.items():
        save(tmp_path / f"{name}.png", square(side, value=value))
    outcome = run(tmp_path, *TWO_CLASSES)
    assert areas(outcome) == {"a.png": 0, "b.png": 16, "c.png": 25}
    assert [(image.height, image.width) for image in outcome.done] == [(20, 30)] * 3


def test_masks_that_etnet_wrote_are_measured_with_the_recipe_of_the_data_set(tmp_path):
    # The recipes map 255, and in REFUGE 0 is the cup; etnet writes class indices.
    save(tmp_path / "a.png", square(4))
    assert areas(run(tmp_path, source="drive"), "vessel") == {"a.png": 16}
    save(tmp_path / "a.png", np.where(square(8) > 0, 1, 0) + square(4))
    outcome = run(tmp_path, source="refuge")
    assert areas(outcome, "optic_cup") == {"a.png": 16}
    assert areas(outcome, "optic_disc") == {"a.png": 64}
    save(tmp_path / "a.png", square(0))
    assert areas(run(tmp_path, source="refuge"), "optic_cup") == {"a.png": 0}


def test_masks_of_the_data_set_are_measured_with_its_values(tmp_path):
    save(tmp_path / "a.png", 255 - 127 * (square(8) > 0) - 128 * (square(4) > 0))
    outcome = run(tmp_path, source="refuge")
    assert areas(outcome, "optic_cup") == {"a.png": 16}
    assert areas(outcome, "optic_disc") == {"a.png": 64}


def test_given_values_count_also_where_they_are_class_indices(tmp_path):
    save(tmp_path / "a.png", square(4))
    outcome = run(tmp_path, *TWO_CLASSES, "data.mask_values={0: 1, 1: 0}")
    assert areas(outcome) == {"a.png": 600 - 16}


def test_a_value_without_a_class_is_named_with_a_mapping(tmp_path):
    save(tmp_path / "a.png", square(4, value=128) + square(2, value=127))
    with pytest.raises(DataError, match=r"a\.png: mask holds values \[0, 128, 255\]; expected class indices 0\.\.1"):
        run(tmp_path, *TWO_CLASSES)


def test_a_file_that_cannot_be_read_stops_no_other(tmp_path):
    save(tmp_path / "b.png", square(4))
    save(tmp_path / "d.png", square(5))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "c.png").write_text("no picture")
    seen: list[str] = []
    recipe = load_recipe("folder", TWO_CLASSES)
    outcome = measure_masks(find_inputs(tmp_path), MeasuringSettings(recipe), on_mask=seen.append)
    assert areas(outcome) == {"b.png": 16, "d.png": 25}
    assert [file for file, _ in outcome.failed] == ["a.png", "c.png"]
    assert all(file in reason for file, reason in outcome.failed)
    assert sorted(seen) == ["a.png", "b.png", "c.png", "d.png"]
    assert outcome.to_dict()["counts"] == {"done": 2, "failed": 2}


def test_a_folder_of_broken_files_has_no_mapping_and_no_row(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    outcome = run(tmp_path)
    assert (outcome.done, len(outcome.failed)) == ([], 1)


def test_more_masks_than_are_read_at_a_time_keep_their_order(tmp_path):
    for index in range(150):
        save(tmp_path / f"{index:03}.png", square(index % 7))
    measured = areas(run(tmp_path, *TWO_CLASSES))
    assert measured == {f"{index:03}.png": (index % 7) ** 2 for index in range(150)}
    assert list(measured) == sorted(measured)


def test_the_spacing_makes_millimetres(tmp_path):
    save(tmp_path / "a.png", square(4))
    assert areas(run(tmp_path, *TWO_CLASSES, scale=millimetres(0.5, 0.25)), unit="mm2") == {"a.png": 2.0}


def density(outcome: MeasuredMasks) -> dict[str, float | None]:
    return {image.file: image.measurements["vessel_density_in_field_of_view"] for image in outcome.done}


@pytest.mark.parametrize("bright", [1, 255])
def test_one_field_of_view_serves_all_masks(tmp_path, bright):
    for name in "ab":
        save(tmp_path / f"masks/{name}.png", square(4))
    save(tmp_path / "view.png", square(10, value=bright))
    outcome = run(tmp_path / "masks", source="drive", field_of_view=tmp_path / "view.png")
    assert density(outcome) == {"a.png": 0.16, "b.png": 0.16}


def test_each_mask_has_the_field_of_view_of_its_name(tmp_path):
    for name, side in {"a": 10, "b": 8}.items():
        save(tmp_path / f"masks/{name}.png", square(4))
        save(tmp_path / f"views/{name}{'_mask' if name == 'b' else ''}.gif", square(side, value=255))
    save(tmp_path / "masks/c.png", square(4))
    save(tmp_path / "masks/d.png", square(4))
    save(tmp_path / "views/d.png", square(4, value=255, shape=(40, 50)))
    save(tmp_path / "masks/e.png", square(4))
    save(tmp_path / "views/e.png", square(0))
    outcome = run(tmp_path / "masks", source="drive", field_of_view=tmp_path / "views")
    assert density(outcome) == {"a.png": 0.16, "b.png": 0.25}
    reasons = dict(outcome.failed)
    assert "no field of view named c" in reasons["c.png"]
    assert "30x20 pixels" in reasons["d.png"]
    assert "50x40" in reasons["d.png"]
    assert "is empty" in reasons["e.png"]


def test_two_fields_of_view_for_one_mask_are_refused(tmp_path):
    save(tmp_path / "masks/a.png", square(4))
    for name, side in {"a.gif": 10, "a.png": 8, "b.png": 8}.items():
        save(tmp_path / "views" / name, square(side, value=255))
    with pytest.raises(
        DataError, match=r"views: holds two fields of view for masks named a, a\.gif and a\.png; expected"
    ):
        run(tmp_path / "masks", source="drive", field_of_view=tmp_path / "views")


def test_a_field_of_view_that_does_not_exist_is_one_sentence(tmp_path):
    save(tmp_path / "masks/a.png", square(4))
    with pytest.raises(DataError, match=r"nowhere\.png: cannot be opened"):
        run(tmp_path / "masks", source="drive", field_of_view=tmp_path / "nowhere.png")
