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
    for letters, (images, masks) in REFUGE_FOLDERS[layout].items():
        names = REFUGE_NAMES[letters]
        for name, image in zip(names, photographs((30, 40), len(names) + ord(letters[0]) % 3), strict=False):
            folder = {"g": "Glaucoma", "n": "Non-Glaucoma"}.get(name[0], "") if layout != "flat copies" else ""
            save(root / images / folder / f"{name}.jpg", image, quality=95)
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
