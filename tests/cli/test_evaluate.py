from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from etnet.config.load import dump_recipe, recipe_from_values
from etnet.inference.bundle import write_bundle
from etnet.inference.localize import LocalizationRule
from etnet.inference.predictor import Predictor
from etnet.manifest import read_weights_info
from etnet.types import RegionOfInterest
from helpers.backends import PixelBackend, image_of, pixel_predictor, random_labels
from helpers.bundles import (
    draw_disc,
    localizer_contract,
    segmenter_contract,
    segmenter_recipe,
    write_stage_headers,
)
from helpers.command_line import one_sentence, run_etnet
from helpers.weights import small_recipe, write_header_only, write_untrained


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a labelled folder `data`: 4 images for training, 2 for testing."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "data", count=4)
    write_pairs(tmp_path / "data/test", count=2)
    return tmp_path


@pytest.fixture
def model(here, monkeypatch) -> Path:
    """A run whose network is replaced by pixel arithmetic."""
    monkeypatch.setattr(Predictor, "load", pixel_predictor)
    write_header_only(here / "runs/train/first/weights/best.safetensors", small_recipe(validation_fraction=0.25))
    return Path("runs/train/first")


def write_pairs(root: Path, *, count: int) -> None:
    """Pairs that `PixelBackend` segments without a mistake, but for one pixel each."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(count):
        labels = random_labels(10, 10, seed=seed)
        labels[0, 0] = 0
        Image.fromarray(labels).save(root / f"masks/{seed}.png")
        labels[0, 0] = 1
        Image.fromarray(image_of(labels)).save(root / f"images/{seed}.png")


def evaluate(*arguments: object) -> Result:
    return run_etnet("evaluate", *arguments)


def test_scores_tables_and_pictures_are_written(here, model):
    result = evaluate(model, "--data", "data")
    assert result.exit_code == 0, result.output
    assert "Results: runs/evaluate/first" in result.stdout
    assert "Next: etnet infer" in result.stdout
    metrics = json.loads((here / "runs/evaluate/first/metrics.json").read_text("utf-8"))
    assert metrics["regions"]["whole_image"]["pooled"]["accuracy"] == pytest.approx(198 / 200)
    assert metrics["data"] == {"root": "data", "dataset": "folder", "split": "test"}
    assert len(metrics["model"]["sha256"]) == 64
    with (here / "runs/evaluate/first/per_image.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == ["0", "1"]
    pictures = sorted(path.name[:7] for path in (here / "runs/evaluate/first/overlays").iterdir())
    assert pictures == ["best_1_", "worst_1"]


def test_the_masks_scored_are_those_that_the_options_ask_for(here, model):
    plain, averaged, emptied = (
        json.loads(evaluate(model, "--data", "data", "--json", *options).stdout)
        for options in ((), ("--tta", "flips", "--tile", "auto"), ("--min-area", "vessel=1000"))
    )
    assert (plain["prediction"]["tile"], plain["prediction"]["tta"]) == ("off", None)
    assert (averaged["prediction"]["tile"], averaged["prediction"]["tta"]) == ("auto", "flips")
    # A network that looks at single pixels sees nothing new in mirror images.
    assert averaged["regions"] == plain["regions"]
    masks = [np.asarray(Image.open(path)) for path in (here / "data/test/masks").iterdir()]
    without_vessels = np.mean(np.stack(masks) != 1)
    assert emptied["regions"]["whole_image"]["pooled"]["accuracy"] == pytest.approx(without_vessels)


def test_the_rules_of_the_recipe_are_scored_when_they_are_asked_for(here, model, monkeypatch):
    rules = {"structures": {"vessel": {"min_area": 1000}}}
    recipe = recipe_from_values(small_recipe().model_dump() | {"postprocess": rules}, "test recipe")
    write_header_only(here / "runs/train/first/weights/best.safetensors", recipe)
    contract = recipe.contract()
    monkeypatch.setattr(Predictor, "load", lambda path, **_: Predictor(PixelBackend(), contract))
    sensitivities = [
        json.loads(evaluate(model, "--data", "data", "--json", *options).stdout)["regions"]["whole_image"]["pooled"][
            "classes"
        ]["vessel"]["sensitivity"]
        for options in ((), ("--postprocess",))
    ]
    assert sensitivities[0] > 0.9
    assert sensitivities[1] == 0


def test_the_tables_in_a_file_are_plain_text_where_colours_are_forced(here, model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert evaluate(model, "--data", "data", "--output", "out").exit_code == 0
    assert "\x1b" not in (here / "out/tables.txt").read_text("utf-8")


def test_the_summary_is_a_screen_and_the_tables_are_in_a_file(here, model):
    lines = evaluate(model, "--data", "data", "--output", "out").stdout.splitlines()
    assert len(lines) <= 24
    assert max(len(line.rstrip()) for line in lines) <= 80
    start = next(index for index, line in enumerate(lines) if line.strip() == "Whole image")
    metrics = json.loads((here / "out/metrics.json").read_text("utf-8"))["regions"]["whole_image"]["pooled"]
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["vessel", "optic_disc", "mean"]
    assert lines[start + 1].split()[1] == f"{metrics['classes']['vessel']['dice']:.4f}"
    assert lines[start + 3].split()[-1] == f"{metrics['mean_iou']:.4f}"
    assert any(line.startswith("Whole image: accuracy 0.9900 (") for line in lines)
    lines = (here / "out/tables.txt").read_text("utf-8").splitlines()
    assert any(line.startswith("Whole image, 2 images") for line in lines)
    start = next(index for index, line in enumerate(lines) if "All pixels pooled" in line)
    rows = [line.split() for line in lines[start + 1 : start + 9 : 2]]
    assert [row[0] for row in rows] == ["background", "vessel", "optic_disc", "mean"]
    assert rows[3][-1] == "0.9900"
    assert any("Mean over images" in line for line in lines)
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize(("split", "images"), [("test", 2), ("validation", 1), ("train", 3), ("all", 4)])
def test_the_split_chooses_the_images(here, model, split, images):
    result = evaluate(model, "--data", "data", "--split", split, "--output", "out")
    assert result.exit_code == 0, result.output
    assert json.loads((here / "out/metrics.json").read_text("utf-8"))["images"] == images
    assert ("trained on" in result.stderr) == (split in ("train", "all"))


def test_without_a_model_the_newest_run_is_scored(here, model):
    result = evaluate("--data", "data", "--output", "out")
    assert result.exit_code == 0, result.output
    assert f"Model: {model} (the newest run; name another to choose it)" in result.stderr
    scored = json.loads((here / "out/metrics.json").read_text("utf-8"))["model"]["path"]
    assert scored == str(model / "weights/best.safetensors")


def test_json_goes_to_stdout_alone(here, model):
    result = evaluate(model, "--data", "data", "--json")
    assert json.loads(result.stdout) == json.loads((here / "runs/evaluate/first/metrics.json").read_text("utf-8"))
    assert "Results: " in result.stderr


def test_a_recipe_can_say_how_the_data_are_read(here, model):
    for path in (here / "data/test/masks").iterdir():
        with Image.open(path) as mask:
            values = np.array([0, 100, 200], np.uint8)[np.array(mask)]
        Image.fromarray(values).save(path)
    one_sentence(evaluate(model, "--data", "data"), 3, "mask_values")
    recipe = small_recipe(mask_values={0: 0, 100: 1, 200: 2})
    (here / "mine.yaml").write_text(dump_recipe(recipe), "utf-8")
    result = evaluate(model, "--data", "data", "--recipe", "mine.yaml")
    assert result.exit_code == 0, result.output


def test_a_recipe_with_other_classes_is_refused(here, model):
    one_sentence(evaluate(model, "--data", "data", "--recipe", "drive"), 3, "other classes", "optic_disc")
    assert not (here / "runs/evaluate").exists()


def test_a_recipe_with_another_intensity_window_is_refused(here, model):
    (here / "mine.yaml").write_text(dump_recipe(small_recipe(intensity_window=[0, 4095])), "utf-8")
    one_sentence(evaluate(model, "--data", "data", "--recipe", "mine.yaml"), 2, "intensity_window", "None")


def test_another_recipe_scores_the_images_that_this_run_held_out(here, model):
    own = evaluate(model, "--data", "data", "--split", "validation", "--output", "own")
    assert own.exit_code == 0, own.output
    for seed, fraction in ((1, 0.25), (2, 0.25), (3, 0.25), (0, 0.75)):
        recipe = small_recipe(validation_fraction=fraction)
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})
        (here / "mine.yaml").write_text(dump_recipe(recipe), "utf-8")
        words = ("--split", "validation", "--recipe", "mine.yaml", "--output", f"{seed}")
        result = evaluate(model, "--data", "data", *words)
        assert result.exit_code == 0, result.output
        assert images_in(here / f"{seed}") == images_in(here / "own")


def images_in(results: Path) -> list[str]:
    with (results / "per_image.csv").open(newline="", encoding="utf-8") as stream:
        return [row["image"] for row in csv.DictReader(stream)]


def test_an_empty_validation_part_is_one_sentence(here, model):
    write_header_only(here / model / "weights/best.safetensors", small_recipe(validation_fraction=0.0))
    result = evaluate(model, "--data", "data", "--split", "validation")
    one_sentence(result, 3, "no images", "--split")
    assert not (here / "runs/evaluate").exists()


def test_missing_data_are_one_sentence_and_leave_nothing(here, model):
    one_sentence(evaluate(model, "--data", "missing"), 3, "missing")
    assert not (here / "runs/evaluate").exists()


def test_a_missing_model_is_one_sentence(here):
    one_sentence(evaluate("runs/train/none", "--data", "data"), 3, "runs/train/none")


def test_a_full_output_folder_is_refused_and_untouched(here, model):
    (here / "out").mkdir()
    (here / "out/mine.txt").touch()
    one_sentence(evaluate(model, "--data", "data", "--output", "out"), 2, "not empty")
    assert [path.name for path in (here / "out").iterdir()] == ["mine.txt"]
    assert evaluate(model, "--data", "data", "--output", "out", "--overwrite").exit_code == 0


def test_overwriting_leaves_no_picture_of_former_scores_and_every_other_file(here, model):
    overlays = here / "out/overlays"
    overlays.mkdir(parents=True)
    for name in ("worst_1_gone.png", "best_3_gone.png", "worst_case.png", "best_1_notes.txt"):
        (overlays / name).touch()
    assert evaluate(model, "--data", "data", "--output", "out", "--overwrite").exit_code == 0
    names = {path.name for path in overlays.iterdir()}
    assert {"worst_case.png", "best_1_notes.txt"} < names
    assert {name[-6:] for name in names - {"worst_case.png", "best_1_notes.txt"}} == {"_0.png", "_1.png"}


def test_a_broken_image_stops_the_scoring_with_its_name(here, model):
    path = here / "data/test/images/1.png"
    path.write_bytes(path.read_bytes()[:60])
    one_sentence(evaluate(model, "--data", "data"), 3, "1.png")
    assert not (here / "runs/evaluate").exists()


def test_drive_is_scored_over_the_whole_image_and_inside_the_field_of_view(here, drive_root, tmp_path):
    small = tmp_path / "DRIVE"
    for part in ("images", "1st_manual", "mask"):
        source = drive_root / "test" / part
        (small / "test" / part).mkdir(parents=True)
        for path in sorted(source.iterdir())[:1]:
            (small / "test" / part / path.name).symlink_to(path)
    recipe = small_recipe(dataset="drive", class_names=["background", "vessel"])
    write_untrained(here / "model/weights/best.safetensors", recipe)
    result = evaluate("model", "--data", small, "--output", "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    regions = json.loads((here / "out/metrics.json").read_text("utf-8"))["regions"]
    assert regions["whole_image"]["pooled"]["pixels"] == 584 * 565
    assert 0.6 * 584 * 565 < regions["field_of_view"]["pooled"]["pixels"] < 0.75 * 584 * 565
    assert "Inside the field of view: accuracy " in result.stdout
    assert "Inside the field of view, 1 image " in (here / "out/tables.txt").read_text("utf-8")


@pytest.fixture
def eyes(here) -> Path:
    """Drawn discs with cups, 100x96 pixels, of which the second test image shows none."""
    for part, count in (("eyes", 2), ("eyes/test", 2)):
        for name in ("images", "masks"):
            (here / part / name).mkdir(parents=True)
        for index in range(count):
            mask = draw_disc((100, 96), (40 + 4 * index, 50), 12)
            Image.fromarray(mask).save(here / part / f"masks/{index}.png")
            seen = mask * 0 if part == "eyes/test" and index == 1 else mask
            Image.fromarray(image_of(seen)).save(here / part / f"images/{index}.png")
    return here / "eyes"


@pytest.fixture
def bundle(eyes, monkeypatch) -> Path:
    """A bundle of two networks that are replaced by pixel arithmetic, told apart by the name of their file."""
    localizer, segmenter = write_stage_headers(eyes.parent)
    write_bundle(localizer, segmenter, eyes.parent / "joined", rule=LocalizationRule("optic_disc"))

    def load(path, **options):
        if "localizer" in str(path):
            return Predictor(PixelBackend(2, with_edges=False), localizer_contract())
        return Predictor(PixelBackend(3), segmenter_contract(RegionOfInterest(side=0.5, size=48)))

    monkeypatch.setattr(Predictor, "load", load)
    return Path("joined")


def test_a_bundle_is_scored_around_found_and_true_centres(eyes, bundle):
    result = evaluate(bundle, "--data", "eyes", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "around the centres it finds and the true ones" in result.stderr
    text = " ".join(result.stdout.split())
    assert "Region of interest: accuracy" in text
    assert "Localization error in diameters of the structure: mean 0.000, median 0.000, max 0.000 (1 image)" in text
    assert "Nothing was found in 1 of 2 images. 1, scored as background: the optic disc was not localized" in text
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["centers"] == "found"
    true, found = (
        f"{part['regions']['region_of_interest']['pooled']['mean_foreground_dice']:.4f}"
        for part in (metrics["true_centers"], metrics)
    )
    assert f"Around the true centres, region of interest: mean Dice {true} instead of {found}" in text
    assert metrics["model"]["kind"] == "bundle"
    assert [row["image"] for row in metrics["localization"]["failed"]] == ["1"]
    for part in (metrics, metrics["true_centers"]):
        assert part["regions"].keys() == {"whole_image", "region_of_interest"}
        # One of two equal discs was found: the other one's pixels are all missed.
        assert part["regions"]["whole_image"]["pooled"]["groups"]["optic_disc"]["sensitivity"] == 0.5
    assert {path.name for path in Path("out").iterdir()} == {
        "metrics.json",
        "per_image.csv",
        "per_image_true_centers.csv",
        "localization.csv",
        "tables.txt",
        "overlays",
    }
    assert len(list(Path("out/overlays").glob("*.png"))) == 2


def test_a_network_of_regions_alone_says_that_its_centres_are_the_true_ones(eyes, bundle):
    result = evaluate("segmenter", "--data", "eyes", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "around the true centres" in result.stderr
    assert "around the TRUE centres, because this network finds none" in " ".join(result.stdout.split())
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["centers"] == "true"
    assert "localization" not in metrics
    assert {path.name for path in Path("out").iterdir()} == {"metrics.json", "per_image.csv", "tables.txt", "overlays"}


def test_held_out_images_that_the_localizer_was_trained_on_are_refused(eyes, bundle, monkeypatch):
    read = read_weights_info

    def trained_on_everything(path):
        info = read(path)
        return replace(info, training_state={"training_ids": ["0", "1"]}) if "localizer" in str(path) else info

    monkeypatch.setattr("etnet.manifest.read_weights_info", trained_on_everything)
    result = evaluate(bundle, "--data", "eyes", "--split", "validation")
    one_sentence(result, 3, "joined/localizer.safetensors: was trained on 1 of the images that are now held out")


def test_a_bundle_of_onnx_files_needs_the_recipe_of_the_data(eyes, bundle, monkeypatch):
    from helpers.onnx_graphs import write_small_onnx

    write_small_onnx(Path("segmenter.onnx"), trained_as=segmenter_contract(RegionOfInterest(side=0.5, size=48)))
    localizer = Path("localizer/weights/best.safetensors")
    write_bundle(localizer, Path("segmenter.onnx"), Path("mixed"), rule=LocalizationRule("optic_disc"))
    one_sentence(evaluate("mixed", "--data", "eyes"), 2, "segmenter.onnx", "--recipe")
    Path("eyes.yaml").write_text(dump_recipe(segmenter_recipe(validation_fraction=0.5)))
    result = evaluate("mixed", "--data", "eyes", "--recipe", "eyes.yaml", "--split", "validation", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "segmenter.onnx does not say what it was trained on" in result.stderr
