"""Small files in exactly the layouts of public data sets whose own files must not be in the repository."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import cv2
import numpy as np

from etnet.data.splits import builtin_split
from helpers.datasets import save

REFUGE_FOLDERS = {
    "challenge": {
        "gn": ("Training400", "Annotation-Training400/Disc_Cup_Masks"),
        "V": ("REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks"),
    },
    "unpacked twice as deep": {
        "gn": ("REFUGE/Training400/Training400", "REFUGE/Annotation-Training400/Annotation-Training400/Disc_Cup_Masks"),
        "V": ("REFUGE/Validation/Images", "REFUGE/Validation/GT/Disc_Cup_Masks"),
    },
    "flat copies": {"gn": ("train/Images", "train/gts"), "V": ("val/Images", "val/gts")},
}
"""Folders of images and masks by the first letters of the names."""

DRISHTI_FOLDERS = {
    "official": {"train": ("Training/Images/GLAUCOMA", "Training/GT"), "test": ("Test/Images/normal", "Test/Test_GT")},
    "nested": {"train": ("Drishti-GS1_files/Training/Images", "Drishti-GS1_files/Training/GT"),
               "test": ("Drishti-GS1_files/Test/Images", "Drishti-GS1_files/Test/GT")},
}  # fmt: skip

REFUGE_NAMES = {"gn": ("g0001", "g0002", "n0001", "n0002", "n0003"), "V": ("V0001", "V0002")}


def photographs(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Different RGB images [H, W, 3], uint8."""
    random = np.random.default_rng(7)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def refuge_mask() -> np.ndarray:
    """A disc with a cup, stored as the challenge does."""
    mask = np.full((30, 40), 255, np.uint8)
    mask[6:18, 10:22], mask[9:15, 13:19] = 128, 0
    return mask


def write_refuge(root: Path, *, layout: str = "challenge") -> Path:
    """Five training and two validation pairs; JPEG images and BMP masks."""
    pictures = iter(photographs((30, 40), 7))
    for letters, (images, masks) in REFUGE_FOLDERS[layout].items():
        for name in REFUGE_NAMES[letters]:
            folder = {"g": "Glaucoma", "n": "Non-Glaucoma"}.get(name[0], "") if layout != "flat copies" else ""
            save(root / images / folder / f"{name}.jpg", next(pictures), quality=95)
            save(root / masks / folder / f"{name}.bmp", refuge_mask())
    return root


def write_lung_ct(root: Path, *, scans: int = 10, slices: int = 1) -> Path:
    """Signed Hounsfield units in TIFF, masks {0, 255}."""
    random = np.random.default_rng(0)
    for folder in ("2d_images", "2d_masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for scan in range(scans):
        for place in range(slices):
            name = f"ID_{scan:04d}_Z_{142 + place:04d}.tif"
            units = random.integers(-1024, 2000, (24, 20)).astype(np.int16)
            cv2.imwrite(str(root / "2d_images" / name), units)
            save(root / "2d_masks" / name, np.where(units < -300, 255, 0).astype(np.uint8))
    return root


def write_chase(root: Path) -> Path:
    """All 28 images in one folder, with the masks of both observers, of one bit."""
    split = builtin_split("chase_db1")
    names = (*split.train, *split.test)
    for name, image in zip(names, photographs((24, 25), len(names)), strict=True):
        save(root / f"{name}.jpg", image, quality=95)
        vessels = image[..., 1] > 200
        save(root / f"{name}_1stHO.png", vessels)
        save(root / f"{name}_2ndHO.png", ~vessels)
    return root


def write_stare(root: Path, *, compressed: bool = False) -> Path:
    """All 20 labelled images, in the folders of the archives."""
    split = builtin_split("stare")
    names = (*split.train, *split.test)
    for name, image in zip(names, photographs((22, 26), len(names)), strict=True):
        vessels = np.where(image[..., 1] > 200, 255, 0).astype(np.uint8)
        save(root / "stare-images" / f"{name}.ppm", image)
        save(root / "labels-ah" / f"{name}.ah.ppm", vessels)
        save(root / "labels-vk" / f"{name}.vk.ppm", 255 - vessels)
    if compressed:
        for path in list(root.rglob("*.ppm")):
            with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
                shutil.copyfileobj(plain, packed)
            path.unlink()
    return root


def write_drive(root, *, count: int = 3):
    """Small files in the official layout: LZW TIFF, GIF labels {0, 255}, GIF fields of view."""
    random = np.random.default_rng(0)
    for half, first in (("training", 21), ("test", 1)):
        for number in range(first, first + count):
            folder, name = root / half, f"{number:02d}"
            image = random.integers(0, 256, (30, 28, 3), dtype=np.uint8)
            save(folder / "images" / f"{name}_{half}.tif", image, compression="tiff_lzw")
            label = random.choice(np.array([0, 255], np.uint8), (30, 28))
            save(folder / "1st_manual" / f"{name}_manual1.gif", label)
            view = np.zeros((30, 28), np.uint8)
            view[3:-3, 3:-3] = 255
            save(folder / "mask" / f"{name}_{half}_mask.gif", view)
    return root


def write_drishti(root, *, layout: str = "official", count: int = 3):
    """Small files in the archive's layout: a disc of 12x12 and a cup of 6x6 pixels, on each of which 3 or 4 agree."""
    random = np.random.default_rng(0)
    for number, (images, truth) in enumerate(DRISHTI_FOLDERS[layout].values()):
        for name in (f"drishtiGS_{index:03d}" for index in range(number * 50 + 1, number * 50 + 1 + count)):
            save(root / images / f"{name}.png", random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            disc, cup = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
            disc[4:20, 8:24], disc[6:18, 10:22] = 128, 255
            cup[9:15, 13:19] = 191
            save(root / truth / name / "SoftMap" / f"{name}_ODsegSoftmap.png", disc)
            save(root / truth / name / "SoftMap" / f"{name}_cupsegSoftmap.png", cup)
            (root / truth / name / f"{name}_cdrValues.txt").write_text("0.4 0.6 0.5 0.5")
    return root


def write_montgomery(root, *, merged: bool = False):
    """All 138 images, small, with the official masks of left and right or the merged ones."""
    split = builtin_split("montgomery")
    left, right = np.zeros((12, 16), np.uint8), np.zeros((12, 16), np.uint8)
    left[2:10, 2:6], right[2:10, 9:14] = 255, 255
    random = np.random.default_rng(0)
    for name in (*split.train, *split.test):
        save(root / "CXR_png" / f"{name}.png", random.integers(0, 4096, (12, 16)).astype(np.uint16))
        if merged:
            save(root / "masks" / f"{name}.png", left | right)
        else:
            save(root / "ManualMask" / "leftMask" / f"{name}.png", left)
            save(root / "ManualMask" / "rightMask" / f"{name}.png", right)
    return root
