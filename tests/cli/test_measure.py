from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from helpers.bundles import draw_disc
from helpers.command_line import one_sentence, run_etnet


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with the masks of two eyes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eyes").mkdir()
    for name, radius in (("a", 12), ("b", 20)):
        Image.fromarray(draw_disc((100, 120), (50, 60), radius)).save(f"eyes/{name}.png")
    return tmp_path


def measure(*arguments: object) -> Result:
    return run_etnet("measure", *arguments)


def rows_of(table: str) -> list[dict[str, str]]:
    with Path(table).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_masks_of_a_folder_become_a_table(here):
    result = measure("eyes", "--recipe", "drishti_gs", "--eye", "left")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "2 of 2 masks measured",
        "Results: runs/measure/eyes/measurements.csv",
        "Next: etnet measure eyes --recipe drishti_gs --spacing ROW_MM,COLUMN_MM",
    ]
    rows = rows_of("runs/measure/eyes/measurements.csv")
    assert [(row["file"], row["height_px"], row["width_px"]) for row in rows] == [
        ("a.png", "100", "120"),
        ("b.png", "100", "120"),
    ]
    assert [row["vertical_cup_to_disc_ratio"] for row in rows] == ["0.5000", "0.5000"]
    assert float(rows[1]["rim_width_nasal_px"]) == pytest.approx(10, abs=0.3)
    assert not Path("runs/measure/eyes/measurements_failed.csv").exists()
    assert measure("eyes", "--recipe", "drishti_gs").exit_code == 0
    assert Path("runs/measure/eyes-2/measurements.csv").is_file()


def test_names_of_the_classes_and_a_spacing_are_enough(here):
    result = measure("eyes", "--classes", "background, rim, cup", "--spacing", "0.5,0.25", "--output", "new/table.csv")
    assert result.exit_code == 0, result.output
    row = rows_of("new/table.csv")[0]
    assert float(row["cup_area_mm2"]) == pytest.approx(
        0.125 * np.count_nonzero(draw_disc((100, 120), (50, 60), 12) == 2)
    )
    assert not any(name.endswith("area_px") for name in row)


def test_names_that_yaml_would_read_as_something_else_stay_names(here):
    assert measure("eyes", "--classes", "background,no,1.5", "--output", "t.csv").exit_code == 0
    assert "no_area_px" in rows_of("t.csv")[0]


def test_json_is_all_that_stands_on_stdout(here):
    result = measure("eyes/a.png", "--recipe", "drishti_gs", "--spacing", "0.01,0.01", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["settings"] == {
        "input": "eyes/a.png",
        "class_names": ["background", "optic_rim", "optic_cup"],
        "class_groups": {"optic_disc": ["optic_rim", "optic_cup"]},
        "spacing_mm": [0.01, 0.01],
        "eye": None,
        "field_of_view": None,
    }
    (mask,) = content["masks"]
    assert mask["measurements"]["optic_disc_vertical_diameter_mm"] == pytest.approx(0.24)
    assert "Results: runs/measure/a/measurements.csv" in result.stderr


def test_a_broken_file_is_listed_and_the_others_are_done(here):
    Path("eyes/broken.png").write_bytes(b"no picture")
    result = measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv")
    one_sentence(result, 6, "1 of 3 masks", "t_failed.csv", "broken.png")
    assert [row["file"] for row in rows_of("t.csv")] == ["a.png", "b.png"]
    assert [row["file"] for row in rows_of("t_failed.csv")] == ["broken.png"]
    Path("eyes/broken.png").unlink()
    assert measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv", "--overwrite").exit_code == 0
    assert not Path("t_failed.csv").exists()


def test_a_single_broken_file_is_an_error_of_the_data(here):
    Path("broken.png").write_bytes(b"no picture")
    one_sentence(measure("broken.png", "--recipe", "drishti_gs"), 3, "broken.png: cannot be read")


@pytest.mark.parametrize("spacing", ["0,1", "1,-0.5", "nan,1", "1,inf"])
def test_a_spacing_that_is_not_positive_and_finite_is_one_sentence(here, spacing):
    result = measure("eyes", "--recipe", "drishti_gs", "--spacing", spacing)
    one_sentence(result, 2, f"--spacing {spacing}: the pixel spacing is", "expected two positive numbers")
    assert not Path("runs").exists()


@pytest.mark.parametrize("spacing", ["1", "1,2,3", "a,b", ""])
def test_a_spacing_that_is_not_two_numbers_is_one_sentence(here, spacing):
    one_sentence(measure("eyes", "--recipe", "drishti_gs", "--spacing", spacing), 2, "expected two numbers in mm")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--recipe or --classes", "neither was given")),
        (("--recipe", "drive", "--classes", "background,vessel"), ("both were given",)),
        (("--classes", "background,,cup"), ("holds an empty name",)),
        (("--classes", "background"), ("class_names lists 1 classes",)),
        (("--recipe", "drishti"), ("did you mean drishti_gs?",)),
    ],
)
def test_what_the_masks_show_has_to_be_said_once(here, arguments, words):
    one_sentence(measure("eyes", *arguments), 2, *words)


def test_values_without_a_class_are_named_with_the_setting_that_maps_them(here):
    result = measure("eyes", "--classes", "background,disc")
    one_sentence(result, 3, "mask holds values [0, 1, 2]", "data.mask_values")
    assert not Path("runs").exists()
    mapped = measure("eyes", "--classes", "background,disc", "--set", "data.mask_values={0: 0, 1: 1, 2: 1}")
    assert mapped.exit_code == 0, mapped.output


def test_a_table_that_exists_is_replaced_only_when_asked(here):
    Path("t.csv").write_text("mine")
    one_sentence(measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv"), 2, "t.csv: exists", "--overwrite")
    assert Path("t.csv").read_text() == "mine"
    one_sentence(measure("eyes", "--recipe", "drishti_gs", "--output", "eyes"), 2, "eyes: is a folder")
    assert measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv", "--overwrite").exit_code == 0
    assert len(rows_of("t.csv")) == 2


def test_a_foreign_table_of_the_second_name_is_neither_removed_nor_replaced(here):
    Path("t_failed.csv").write_text("mine")
    for broken in (False, True):
        if broken:
            Path("eyes/broken.png").write_bytes(b"not a picture")
        result = measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv")
        one_sentence(result, 2, "t_failed.csv: exists", "--overwrite")
        assert Path("t_failed.csv").read_text() == "mine"
        assert not Path("t.csv").exists()
    assert measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv", "--overwrite").exit_code == 6
    assert [row["file"] for row in rows_of("t_failed.csv")] == ["broken.png"]


def test_a_folder_of_the_second_name_is_one_sentence(here):
    Path("t_failed.csv").mkdir()
    result = measure("eyes", "--recipe", "drishti_gs", "--output", "t.csv", "--overwrite")
    one_sentence(result, 2, "t_failed.csv: is a folder, where failed masks are listed")
    assert not Path("t.csv").exists()


def test_masks_below_the_folder_are_measured_when_asked_for(here):
    Path("eyes/left").mkdir()
    Path("eyes/a.png").rename("eyes/left/a.png")
    result = measure("eyes", "--recipe", "drishti_gs", "--recursive", "--output", "table.csv")
    assert result.exit_code == 0, result.output
    assert [row["file"] for row in rows_of("table.csv")] == ["b.png", "left/a.png"]
