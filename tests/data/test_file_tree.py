from __future__ import annotations

import pytest

from etnet.data.file_tree import list_files
from etnet.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_are_told_apart_by_name_in_natural_order(tmp_path):
    touch(
        tmp_path,
        "b/image_10.PNG",
        "b/image_9.png",
        "notes.txt",
        "set.zip",
        "im0001.ppm.gz",
        "rest.zip.crdownload",
        "__MACOSX/b/._image_9.png",
        "b/._image_10.PNG",
        "b/Thumbs.db",
        ".cache/image_1.png",
    )
    files = list_files(tmp_path)
    assert [path.name for path in files.pictures] == ["image_9.png", "image_10.PNG"]
    assert [path.name for path in files.archives] == ["im0001.ppm.gz", "set.zip"]
    assert [path.name for path in files.unfinished] == ["rest.zip.crdownload"]
    assert sorted(path.name for path in files.litter) == ["._image_10.PNG", "._image_9.png", "Thumbs.db"]


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "disk", "images/a.png")
    touch(tmp_path / "data", "b.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "data")
    assert [path.name for path in list_files(tmp_path / "data").pictures] == ["b.png", "a.png"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="none: no such folder"):
        list_files(tmp_path / "none")
