"""`etnet infer` on a folder as hospitals have them: good files of all kinds, broken ones of all kinds among them."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from helpers.broken_files import KINDS
from helpers.medical import IDENTIFIERS, write_dicom, write_metaimage, write_nifti
from helpers.weights import small_recipe, write_confident

GOOD_KINDS = (
    *("grey.png", "color.png", "photo.jpg", "grey.bmp", "palette.gif", "grey.tif", "deep.tif"),
    *("ct.dcm", "IM", "volume.nii", "volume.nii.gz", "volume.mha", "volume.mhd"),
)
NAMES_OF_NO_TABLE = ("line\nend.png", "no\udcfftext.png", f"{'long' * 61}x.png")


def write_good(folder: Path, number: int) -> Path:
    """One of `GOOD_KINDS`, with pixels, a size and a name of its own."""
    kind = GOOD_KINDS[number % len(GOOD_KINDS)]
    stem, dot, suffix = kind.partition(".")
    path = folder / f"{stem}{number:04}{dot}{suffix}"
    generator = np.random.default_rng(number)
    height, width = 24 + number % 5, 30 + number % 3
    grey = generator.integers(0, 256, (height, width)).astype(np.uint8)
    if stem == "volume":
        values = generator.integers(-1000, 400, (width, height, 2)).astype(np.int16)
        return write_nifti(path, values, np.eye(4)) if "nii" in suffix else write_metaimage(path, values)
    if kind in ("ct.dcm", "IM"):
        return write_dicom(path, generator.integers(-1000, 400, (height, width)).astype(np.int16))
    if stem in ("color", "photo"):
        grey = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if stem == "deep":
        grey = generator.integers(0, 2**16, (height, width)).astype(np.uint16)
    picture = Image.fromarray(grey)
    (picture.quantize(16) if stem == "palette" else picture).save(path)
    return path


def write_60_broken(folder: Path) -> set[str]:
    """Their names as a table tells them."""
    names = set()
    for number in range(60 - len(NAMES_OF_NO_TABLE)):
        kind = KINDS[number % len(KINDS)]
        names.add(kind.write_to(folder, number // len(KINDS)).name)
    for name in NAMES_OF_NO_TABLE:
        (folder / name).write_bytes(b"whatever it holds")
        names.add(name.replace("\n", r"\x0a").replace("\udcff", r"\xff"))
    return names


def infer(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etnet", "infer", *map(str, words), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def size_of_mask(path: Path) -> tuple[int, ...]:
    if path.suffix == ".png":
        with Image.open(path) as mask:
            return mask.size
    if path.suffix == ".mha":
        return SimpleITK.ReadImage(str(path)).GetSize()
    return nibabel.load(path).shape


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.long
def test_200_good_files_are_segmented_and_60_broken_ones_named(tmp_path):
    weights = write_confident(tmp_path / "small.safetensors", small_recipe(intensity_window=[-1000, 400]))
    mixed, alone = tmp_path / "mixed", tmp_path / "alone"
    for folder in (mixed, alone):
        folder.mkdir()
        good = [write_good(folder, number).name for number in range(200)]
    broken = write_60_broken(mixed)
    assert (len(set(good)), len(broken)) == (200, 60)

    result = infer(mixed, "--model", weights, "--output", tmp_path / "out", "--batch-size", 4)
    assert result.returncode == 6, result.stderr
    assert "60 of 260 images" in result.stderr
    assert "Traceback" not in result.stderr

    with (tmp_path / "out/failed.csv").open(newline="", encoding="utf-8") as stream:
        failed = list(csv.DictReader(stream))
    assert {row["file"] for row in failed} == broken
    assert len(failed) == 60
    for row in failed:
        assert row["file"] in row["reason"]
        assert "\n" not in row["reason"]
    # What is left of a reason without the file's name is about the kind, and no catch-all.
    assert len({row["reason"].rpartition(row["file"])[2] for row in failed}) > 20

    masks = {path.name for path in (tmp_path / "out/masks").iterdir()}
    assert len(masks) == 200
    for number, name in enumerate(good):
        stem, suffix = name.split(".")[0], name.partition(".")[2]
        mask = tmp_path / "out/masks" / f"{stem}.{suffix.replace('mhd', 'mha') if stem[:6] == 'volume' else 'png'}"
        sides = (30 + number % 3, 24 + number % 5)
        assert size_of_mask(mask) == ((*sides, 2) if stem.startswith("volume") else sides), name

    result = infer(alone, "--model", weights, "--output", tmp_path / "clean", "--batch-size", 4)
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "clean/masks") == contents(tmp_path / "out/masks")


@pytest.mark.long
def test_nothing_is_left_over_and_nobody_is_named(tmp_path):
    weights = write_confident(tmp_path / "small.safetensors", small_recipe(intensity_window=[-1000, 400]))
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number in range(2 * len(GOOD_KINDS)):
        write_good(mixed, number)
    write_60_broken(mixed)
    before = contents(mixed)
    result = infer(mixed, "--model", weights, "--output", tmp_path / "out", "--overlay")
    assert result.returncode == 6, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed", "out", "small.safetensors"]
    assert contents(mixed) == before
    written = contents(tmp_path / "out")
    hidden = {name for name in written if name.endswith((".part", ".tmp")) or Path(name).name.startswith(".")}
    assert hidden <= {".journal.lock"}
    said = (result.stdout + result.stderr).encode()
    for name, content in {**written, "what was said": said}.items():
        plain = gzip.decompress(content) if name.endswith(".gz") else content
        assert not [word for word in IDENTIFIERS if word.encode() in plain], name
    # Neither Python nor a decoder in C warns of anything; what is to be said is said in sentences.
    assert not [line for line in result.stderr.splitlines() if "warn" in line.lower() or "error with" in line.lower()]
