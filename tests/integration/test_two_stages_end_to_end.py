"""From drawn fundus photographs to cup-to-disc ratios: two networks trained, joined, scored and used."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from etnet.cli.main import main
from etnet.config.load import dump_recipe, recipe_from_values
from etnet.data.synthetic import write_fundus_dataset
from helpers.bundles import localizer_recipe, segmenter_recipe

VESSEL_IS_BACKGROUND = {0: 0, 1: 0}
TRAINING = {"epochs": 40, "batch_size": 8, "validate_every": 40, "save_every": 40}


def etnet(*words: object, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == exit_code, result.stderr
    return result


def write_recipe(path: Path, recipe, **data: object) -> Path:
    values = recipe.model_dump(mode="json")
    values["data"] |= {"validation_fraction": 0.2, "workers": 0, **data}
    values["training"] |= TRAINING
    values["optimizer"] |= {"base_lr": 0.01}
    values["augmentation"] |= {"scale": [0.8, 1.25]}
    path.write_text(dump_recipe(recipe_from_values(values, "test recipe")), encoding="utf-8")
    return path


def columns_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def vertical_extent(rows: np.ndarray) -> int:
    return int(rows.max() - rows.min() + 1)


@pytest.mark.long
def test_discs_are_found_segmented_and_measured_in_whole_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fundus_dataset(Path("fundus"), train=30, test=6, size=160, seed=0)
    finds = write_recipe(
        Path("finds.yaml"), localizer_recipe(mask_values=VESSEL_IS_BACKGROUND | {2: 1, 3: 1}), crop_size=64
    )
    segments = write_recipe(
        Path("segments.yaml"),
        segmenter_recipe(mask_values=VESSEL_IS_BACKGROUND | {2: 1, 3: 2}, roi={"side": 0.3, "size": 64}),
        crop_size=64,
    )
    for name, recipe in (("finds", finds), ("segments", segments)):
        etnet("train", "--recipe", recipe, "--data", "fundus", "--output", name, "--device", "cpu")
    etnet("bundle", "finds", "segments", "--output", "joined", "--format", "onnx", "--device", "cpu")
    etnet("evaluate", "joined", "--recipe", segments, "--data", "fundus", "--output", "scores")
    metrics = json.loads(Path("scores/metrics.json").read_text("utf-8"))
    assert metrics["localization"]["failed"] == []
    assert metrics["localization"]["error_in_disc_diameters"]["max"] < 0.25
    for part in (metrics, metrics["true_centers"]):
        assert part["regions"]["whole_image"]["pooled"]["groups"]["optic_disc"]["dice"] > 0.9

    # A picture without a disc beside those with one.
    Image.new("RGB", (160, 160), (180, 90, 40)).save("fundus/test/images/blank.png")
    etnet("infer", "fundus/test/images", "--model", "joined", "--output", "out", "--overlay", exit_code=6)
    measured = columns_of(Path("out/measurements.csv"))
    assert set(columns_of(Path("out/failed.csv"))) == {"blank.png"}
    assert len(measured) == 6
    for file, row in measured.items():
        with Image.open(f"fundus/test/masks/{file}") as picture:
            truth = np.array(picture)
        ratio = vertical_extent(np.nonzero(truth == 3)[0]) / vertical_extent(np.nonzero(truth >= 2)[0])
        assert float(row["vertical_cup_to_disc_ratio"]) == pytest.approx(ratio, abs=0.2)
        assert int(row["optic_disc_area_px"]) == pytest.approx(np.count_nonzero(truth >= 2), rel=0.25)
