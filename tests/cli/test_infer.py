from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from etnet.config.load import recipe_from_values
from etnet.inference.journal import read_journal
from etnet.inference.predictor import Predictor
from helpers.backends import image_of, pixel_predictor, random_labels
from helpers.command_line import one_sentence, run_etnet
from helpers.medical import IDENTIFIERS, identified, save_dicom, write_dicom, write_metaimage, write_nifti
from helpers.weights import small_recipe, write_header_only, write_untrained


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(here, monkeypatch) -> Path:
    """A run whose network is replaced by pixel arithmetic."""
    monkeypatch.setattr(Predictor, "load", pixel_predictor)
    write_header_only(here / "runs/train/first/weights/best.safetensors")
    return Path("runs/train/first")


def infer(*arguments: object) -> Result:
    return run_etnet("infer", *arguments)


def write_images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        Image.fromarray(image_of(random_labels(9, 12, seed=seed))).save(folder / name)
    return folder


def test_a_folder_is_segmented_into_a_fresh_numbered_folder(here, model):
    write_images(here / "eyes", "a.png", "b.png")
    for name in ("eyes", "eyes-2"):
        result = infer("eyes/", "--model", model)
        assert result.exit_code == 0, result.output
        assert f"Results: runs/infer/{name}" in result.stdout
        assert "Next: etnet infer eyes --model runs/train/first --overlay" in result.stdout
        assert "2 of 2 images segmented" in result.stdout
        assert sorted(path.name for path in (here / "runs/infer" / name / "masks").iterdir()) == ["a.png", "b.png"]


def test_the_summary_says_how_the_masks_were_made(here, model):
    write_images(here / "eyes", "a.png")
    (here / "eyes/notes.txt").touch()
    assert infer("eyes", "--output", "out", "--overlay", "--batch-size", 2).exit_code == 0
    summary = json.loads((here / "out/summary.json").read_text("utf-8"))
    assert summary["settings"] == {
        "input": "eyes",
        "recursive": False,
        "plane": "axial",
        "intensity_window": None,
        "device": "auto",
        "backend": "auto",
        "threads": None,
        "overlay": True,
        "save_edges": False,
        "save_probabilities": None,
        "batch_size": 2,
        "jobs": None,
        "part": None,
        "tile": "auto",
        "overlap": 0.25,
        "tta": None,
        "postprocess": {"threshold": None, "structures": []},
    }
    assert summary["counts"] == {"found": 1, "done": 1, "failed": 0, "skipped_other_files": 1}
    assert summary["model"]["path"] == "runs/train/first/weights/best.safetensors"
    assert len(summary["model"]["sha256"]) == 64
    assert summary["model"]["weights_sha256"] == summary["model"]["sha256"]
    assert summary["model"]["class_names"] == ["background", "vessel", "optic_disc"]
    assert summary["ran_on"] == "pixel arithmetic"
    assert summary["versions"]["numpy"] == np.__version__
    (image,) = read_journal(here / "out" / summary["journal"])
    assert sum(image.class_share.values()) == pytest.approx(1, abs=1e-5)
    assert (here / "out/overlays/a.png").is_file()


def test_without_a_model_the_newest_run_is_taken_and_named(here, model):
    write_images(here / "eyes", "a.png")
    result = infer("eyes")
    assert result.exit_code == 0, result.output
    assert "Model: runs/train/first (the newest run" in result.stderr


def test_without_a_model_and_a_run_it_is_said_how_to_get_one(here):
    write_images(here / "eyes", "a.png")
    one_sentence(infer("eyes"), 2, "no model", "etnet plan", "etnet demo")
    assert not (here / "runs").exists()


def test_json_goes_to_stdout_alone(here, model):
    write_images(here / "eyes", "a.png")
    result = infer("eyes", "--model", model, "--json")
    assert json.loads(result.stdout)["counts"]["done"] == 1
    assert "Results: runs/infer/eyes" in result.stderr


def test_a_bad_file_gives_exit_code_6_and_its_reason(here, model):
    write_images(here / "eyes", "a.png", "c.png")
    (here / "eyes/b.png").write_text("no picture")
    result = infer("eyes", "--output", "out")
    one_sentence(result, 6, "1 of 3 images", "out/failed.csv", "b.png")
    assert "Results: out" in result.stdout
    with (here / "out/failed.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["b.png"]
    assert json.loads((here / "out/summary.json").read_text("utf-8"))["failed"] == rows


def test_a_single_bad_file_is_an_error_of_the_data(here, model):
    (here / "b.png").touch()
    one_sentence(infer("b.png", "--model", model), 3, "b.png", "0 bytes")


def test_a_single_file_gives_its_name_to_the_results(here, model):
    write_images(here, "eye.png")
    result = infer("eye.png", "--model", model)
    assert "Results: runs/infer/eye\n" in result.stdout


def test_the_current_folder_is_an_input_too(here, model, monkeypatch):
    write_images(here / "eyes", "a.png")
    monkeypatch.chdir(here / "eyes")
    result = infer(".", "--model", here / model)
    assert "Results: runs/infer/eyes" in result.stdout


def test_a_full_output_folder_is_refused_and_untouched(here, model):
    write_images(here / "eyes", "a.png")
    (here / "out").mkdir()
    (here / "out/mine.txt").write_text("mine")
    one_sentence(infer("eyes", "--output", "out"), 2, "not empty", "--overwrite")
    assert [path.name for path in (here / "out").iterdir()] == ["mine.txt"]
    result = infer("eyes", "--output", "out", "--overwrite")
    assert result.exit_code == 0, result.output
    assert (here / "out/mine.txt").read_text() == "mine"
    assert (here / "out/masks/a.png").is_file()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: None, ("no such folder",)),
        (lambda folder: folder.mkdir(), ("holds no file", "png")),
        (lambda folder: write_images(folder / "images", "a.png"), ("sub-folder images",)),
    ],
)
def test_inputs_without_images_are_one_sentence_and_leave_nothing(here, model, prepare, words):
    prepare(here / "eyes")
    one_sentence(infer("eyes", "--model", model), 3, "eyes", *words)
    assert not (here / "runs/infer").exists()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: None, "no such"),
        (lambda path: path.write_bytes(b"junk"), "safetensors"),
        (lambda path: path.mkdir(), "weights"),
    ],
)
def test_a_model_that_is_none_is_one_sentence_and_leaves_nothing(here, make, word):
    write_images(here / "eyes", "a.png")
    make(here / "model")
    one_sentence(infer("eyes", "--model", "model"), 3, "model", word)
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--batch-size", "0"), ("--device", "gpu"), ("--batch", "x"), ("--backend", "tf"), ("--threads", "0")],
)
def test_a_wrong_option_is_a_usage_error(here, option, value):
    write_images(here / "eyes", "a.png")
    write_untrained(here / "runs/train/first/weights/best.safetensors")
    result = infer("eyes", option, value)
    assert result.exit_code == 2
    assert not (here / "runs/infer").exists()


def test_a_trained_network_segments_from_the_command_line(here):
    write_untrained(here / "runs/train/first/weights/best.safetensors", small_recipe())
    write_images(here / "eyes", "a.png", "b.png")
    result = infer("eyes", "--device", "cpu", "--overlay", "--save-edges")
    assert result.exit_code == 0, result.output
    for kind in ("masks", "edges"):
        with Image.open(here / f"runs/infer/eyes/{kind}/a.png") as picture:
            assert picture.size == (12, 9)


def test_drive_photographs_give_masks_of_their_size(here, drive_root):
    write_untrained(here / "model/weights/best.safetensors", small_recipe())
    photograph = sorted((drive_root / "test/images").iterdir())[0]
    result = infer(photograph, "--model", "model", "--output", "out", "--device", "cpu", "--overlay")
    assert result.exit_code == 0, result.output
    with Image.open(here / f"out/masks/{photograph.stem}.png") as mask:
        assert mask.size == (565, 584)
        assert mask.mode == "P"


def write_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_of(labels)).save(path)


def test_options_refine_masks_and_are_in_the_summary(here, model):
    labels = np.zeros((90, 110), np.uint8)
    labels[10:30, 10:30] = labels[40:50, 40:50] = labels[60, 60] = 1
    labels[15:18, 15:18] = 0
    labels[70, 5:8] = labels[80, 5:15] = 2
    write_labels(here / "eyes/a.png", labels)
    options = ("--tile", 64, "--overlap", 0.5, "--tta", "flips", "--batch-size", 2)
    rules = ("--largest-component", "vessel=2", "--fill-holes", "vessel", "--min-area", "optic_disc=4")
    result = infer("eyes", "--output", "out", *options, *rules)
    assert result.exit_code == 0, result.output
    expected = labels.copy()
    expected[15:18, 15:18] = 1
    expected[60, 60] = expected[70, 5:8] = 0
    np.testing.assert_array_equal(np.asarray(Image.open(here / "out/masks/a.png")), expected)
    summary = json.loads((here / "out/summary.json").read_text("utf-8"))
    assert summary["ran_on"] == "pixel arithmetic, mean of 4 flips"
    chosen = {name: summary["settings"][name] for name in ("tile", "overlap", "tta", "postprocess")}
    assert chosen == {
        "tile": 64,
        "overlap": 0.5,
        "tta": "flips",
        "postprocess": {
            "threshold": None,
            "structures": [
                {"structure": "vessel", "largest": 2, "min_area": 0, "fill_holes": True},
                {"structure": "optic_disc", "largest": None, "min_area": 4, "fill_holes": False},
            ],
        },
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tile", "100"), ("multiple of 16", "96 or 112")),
        (("--threshold", "0.4"), ("two classes", "knows 3")),
        (("--fill-holes", "liver"), ("no structure 'liver'", "vessel, optic_disc")),
    ],
)
def test_a_refinement_that_the_network_cannot_take_is_one_sentence_and_leaves_nothing(here, model, options, words):
    write_images(here / "eyes", "a.png")
    one_sentence(infer("eyes", *options), 2, *words)
    assert not (here / "runs/infer").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--tile", "half"),
        ("--tile", "0"),
        ("--overlap", "0.9"),
        ("--threshold", "1"),
        ("--largest-component", "vessel=0"),
        ("--min-area", "vessel"),
        ("--min-area", "=5"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(here, model, options):
    write_images(here / "eyes", "a.png")
    result = infer("eyes", *options)
    assert result.exit_code == 2
    assert options[0] in result.stderr


def test_the_rules_of_the_recipe_hold_unless_they_are_left_out(here, monkeypatch):
    from etnet.inference.model_file import ModelDescription
    from etnet.manifest import read_weights_info
    from helpers.backends import PixelBackend

    rules = {"structures": {"vessel": {"largest": 1}}}
    recipe = recipe_from_values(small_recipe().model_dump() | {"postprocess": rules}, "test recipe")
    weights = write_header_only(here / "runs/train/first/weights/best.safetensors", recipe)
    described = ModelDescription.of_weights(read_weights_info(weights))
    opened = Predictor(PixelBackend(), described.contract, description=described)
    monkeypatch.setattr(Predictor, "load", lambda path, **_: opened)
    labels = np.zeros((20, 20), np.uint8)
    labels[2:6, 2:6] = labels[10:12, 10:12] = 1
    write_labels(here / "eyes/a.png", labels)
    for options, area in (((), 16), (("--no-postprocess",), 20)):
        result = infer("eyes", "--output", "out", "--overwrite", *options)
        assert result.exit_code == 0, result.output
        assert np.count_nonzero(np.asarray(Image.open(here / "out/masks/a.png"))) == area


def test_folders_below_patterns_and_tables_are_inputs_too(here, model):
    write_images(here / "eyes/left", "a.png")
    write_images(here / "eyes/right", "a.png")
    (here / "list.csv").write_text("id,path\nfirst,eyes/right/a.png\n")
    for arguments, masks in (
        (("eyes", "--recursive"), ["left/a.png", "right/a.png"]),
        (("eyes/*/a.png",), ["left/a.png", "right/a.png"]),
        (("list.csv",), ["first.png"]),
    ):
        result = infer(*arguments, "--output", "out", "--overwrite", "--json")
        assert result.exit_code == 0, result.output
        summary = json.loads(result.stdout)
        assert [image.mask for image in read_journal(here / "out" / summary["journal"])] == [
            f"masks/{m}" for m in masks
        ]
        assert all((here / "out/masks" / mask).is_file() for mask in masks)


def test_results_of_a_pattern_are_named_after_its_folder_and_of_a_table_after_itself(here, model):
    write_images(here / "eyes", "a.png")
    (here / "list.csv").write_text("id,path\nfirst,eyes/a.png\n")
    assert "Results: runs/infer/eyes\n" in infer("eyes/*.png").stdout
    assert "Results: runs/infer/list\n" in infer("list.csv").stdout


def test_a_table_whose_only_file_is_bad_is_a_run_with_a_failure(here, model):
    (here / "list.csv").write_text("id,path\nfirst,gone.png\n")
    one_sentence(infer("list.csv", "--output", "out"), 6, "1 of 1 image", "gone.png")


def test_patients_are_named_nowhere(here, model):
    """Good and bad medical files; nothing that is printed or written repeats a word of their headers."""
    values = np.random.default_rng(0).integers(0, 3, (8, 8, 4)).astype(np.uint8)
    write_dicom(here / "scans/xray.dcm", values[..., 0], PixelSpacing=["0.5", "0.5"])
    write_nifti(here / "scans/ct.nii", values, np.eye(4))
    write_metaimage(here / "scans/ct.mha", values)
    write_dicom(here / "scans/movie.dcm", np.zeros((3, 4, 5), np.uint8), frames=3)
    write_dicom(here / "scans/spacing.dcm", values[..., 0], PixelSpacing=["-1", "1"])
    write_dicom(here / "scans/signed.dcm", values[..., 0].astype(np.int16))
    save_dicom(here / "scans/report.dcm", identified())
    for name in ("xray.dcm", "ct.nii", "ct.mha"):
        content = (here / "scans" / name).read_bytes()
        (here / "scans" / f"half_{name}").write_bytes(content[: len(content) // 2])
    result = infer("scans", "--output", "out", "--overlay")
    one_sentence(result, 6, "7 of 10 images")
    assert len(list((here / "out/masks").iterdir())) == 3
    said = result.output.encode() + b"".join(path.read_bytes() for path in (here / "out").rglob("*") if path.is_file())
    for word in IDENTIFIERS:
        assert word.encode() not in said, word


def test_the_plane_of_volumes_is_an_option(here, model):
    write_nifti(here / "ct.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    result = infer("ct.nii", "--plane", "sagittal", "--json")
    assert result.exit_code == 0, result.output
    (image,) = read_journal(here / "runs/infer/ct/journal.jsonl")
    assert (image.slices, image.height, image.width) == (3, 5, 4)
