from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from etnet.data.file_names import how_to_rename, original_stem


@pytest.mark.parametrize(
    ("stem", "original"),
    [
        ("image (1)", "image"),
        ("image(2)", "image"),
        ("image - Copy", "image"),
        ("image - Copy (3)", "image"),
        ("image copy", "image"),
        ("image copy 2", "image"),
        ("image - Kopie", "image"),
        ("image Kopie", "image"),
        ("image (copy)", "image"),
        ("image (another copy)", "image"),
        ("image (3rd copy)", "image"),
        ("Copy of image", "image"),
        ("Copy of Copy of image", "image"),
        ("Kopie von image", "image"),
        ("Copie de image", "image"),
        ("image", None),
        ("image_copy", None),
        ("im0001.ah", None),
        ("photocopy", None),
        ("MCUCXR_0001_0", None),
        ("(1)", None),
        ("copy", None),
    ],
)
def test_what_an_operating_system_adds_to_a_copy_is_recognised(stem, original):
    assert original_stem(stem) == original


def test_the_command_can_be_pasted():
    command = how_to_rename(Path("my data/g0001 (1).jpg")).rpartition("run: ")[2]
    assert shlex.split(command) == ["mv", "-n", "my data/g0001 (1).jpg", "my data/g0001.jpg"]
