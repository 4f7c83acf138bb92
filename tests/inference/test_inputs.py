from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from etnet.errors import DataError
from etnet.inference.inputs import InputItem, assign_output_names, find_inputs, fixed_folder
from etnet.inference.results import RESULT_FOLDERS
from helpers.medical import identified, save_dicom, write_dicom


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def ids(source: Path, **options) -> list[str]:
    return [item.id for item in find_inputs(source, **options).items]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "b.tif"], ("a", "b")),
        (["a.jpg", "a.png"], ("a.jpg", "a.png")),
        (["A.png", "a.jpg"], ("A.png", "a.jpg")),
        (["a.jpg", "a.jpg.png", "a.png"], ("a.jpg", "a.jpg-2", "a.png")),
        (["x/a.png", "y/a.png", "a.png"], ("x/a", "y/a", "a")),
        (["X/a.png", "x/A.png"], ("X/a.png", "x/A.png-2")),
        (["ct.nii", "ct.nii.gz", "ct.mha"], ("ct.nii", "ct.nii.gz", "ct.mha")),
        (["a.jpg", "a.png/b.png", "c.mha/d.png", "c.nii"], ("a-2", "a.png/b", "c.mha/d", "c-2")),
        (["a.png", "a.npz/b.png", "c/D.NPZ/e.png", "c/d.tif"], ("a-2", "a.npz/b", "c/D.NPZ/e", "c/d-2")),
        (["1.2.840.1", "1.2.840.2", "IM0001", "a.dcm"], ("1.2.840.1", "1.2.840.2", "IM0001", "a")),
    ],
)
def test_output_names_are_unique_whatever_the_inputs_are_called(names, expected):
    assert assign_output_names(names) == expected
    assert len({name.lower() for name in expected}) == len(expected)


def test_a_file_is_its_own_input(tmp_path):
    touch(tmp_path, "lung.v2.nii.gz")
    source = tmp_path / "lung.v2.nii.gz"
    assert find_inputs(source).items == (InputItem("lung.v2.nii.gz", source, "lung.v2"),)


def test_hidden_files_and_other_kinds_are_left_out_and_counted(tmp_path):
    touch(tmp_path, "a.png", "._a.png", "notes.txt", "sub/b.png")
    (tmp_path / "sub.png").mkdir()
    found = find_inputs(tmp_path)
    assert [item.path for item in found.items] == [tmp_path / "a.png"]
    assert found.skipped == 1


def test_folders_below_are_taken_when_asked_for_in_natural_order(tmp_path):
    touch(tmp_path, "a.png", "s10/b.png", "s9/b.png", "s9/deep/er/c.TIF", ".hidden/d.png", "s9/notes.txt")
    found = find_inputs(tmp_path, recursive=True)
    assert [item.id for item in found.items] == ["a.png", "s9/b.png", "s9/deep/er/c.TIF", "s10/b.png"]
    assert [item.output_name for item in found.items] == ["a", "s9/b", "s9/deep/er/c", "s10/b"]
    assert found.skipped == 1
    assert ids(tmp_path) == ["a.png"]


def test_links_that_lead_round_in_circles_end(tmp_path):
    touch(tmp_path / "data", "a.png", "sub/b.png")
    (tmp_path / "data/sub/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/self").symlink_to("self")
    (tmp_path / "data/loop.png").symlink_to("loop.png")
    # A picture that leads nowhere is named when it is opened, not left out.
    assert ids(tmp_path / "data", recursive=True) == ["a.png", "loop.png", "sub/b.png"]


def test_links_to_a_big_disk_are_followed(tmp_path):
    touch(tmp_path / "disk", "x/a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/more").symlink_to(tmp_path / "disk")
    assert ids(tmp_path / "data", recursive=True) == ["more/x/a.png"]


def test_a_pipe_is_no_input_because_reading_it_would_never_end(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    reason = (
        f"{tmp_path / 'pipe.png'}: is a pipe, socket or device, not a file; save its content as a file, or remove it"
    )
    for source in (tmp_path, tmp_path / "*"):
        found = find_inputs(source)
        assert [item.id for item in found.items] == ["a.png"]
        # Whoever calls it an image has to know that it is not among the results.
        assert found.unreadable == (("pipe.png", reason),)


def test_a_folder_called_like_an_image_is_a_folder(tmp_path):
    touch(tmp_path, "a.png", "x.png/b.png")
    assert ids(tmp_path) == ids(tmp_path / "*") == ["a.png"]
    assert ids(tmp_path, recursive=True) == ["a.png", "x.png/b.png"]
    assert ids(tmp_path / "x.png") == ["b.png"]


@pytest.mark.parametrize(
    ("name", "shown"), [("a\nb.png", r"a\x0ab.png"), ("\x1b[2J.png", r"\x1b[2J.png"), ("\udcff.png", r"\xff.png")]
)
def test_a_name_that_no_table_can_hold_is_told_with_escapes(tmp_path, name, shown):
    touch(tmp_path, "a.png", name)
    sentence = (
        f"{tmp_path / shown}: the name holds line ends, control characters or bytes that are no UTF-8; rename the file"
    )
    for source in (tmp_path, tmp_path / "*.png"):
        found = find_inputs(source)
        assert [item.id for item in found.items] == ["a.png"]
        assert found.unreadable == ((shown, sentence),)
    with pytest.raises(DataError) as caught:
        find_inputs(tmp_path / name)
    assert str(caught.value) == sentence


def test_names_in_any_language_are_inputs(tmp_path):
    names = [
        "Zo\u00eb.png",
        "\u0627\u0644\u0639\u064a\u0646.png",
        "\u773c.png",
        "at 9.41\u202fAM.png",
        "\U0001f441\ufe0f.png",
    ]
    touch(tmp_path, *names)
    assert sorted(ids(tmp_path)) == sorted(names)


def test_a_name_too_long_for_the_names_of_its_results_is_told(tmp_path):
    touch(tmp_path, f"{'x' * 240}.png", f"{'x' * 241}.png", "\u773c" * 81 + ".png")
    found = find_inputs(tmp_path)
    assert [item.output_name for item in found.items] == ["x" * 240]
    assert [reason.partition(": ")[2].split(";")[0] for _, reason in found.unreadable] == [
        f"the name has {length} bytes without its suffix" for length in (241, 243)
    ]
    with pytest.raises(DataError, match="the name has 241 bytes"):
        find_inputs(tmp_path / f"{'x' * 241}.png")


def test_names_that_only_some_file_systems_tell_apart_give_different_results():
    names = ["Caf\u00e9.png", "cafe\u0301.png", "STRASSE.jpg", "stra\u00dfe.jpg"]
    assigned = assign_output_names(names)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in assigned}) == 4


def refuse_listing(monkeypatch, folder: Path) -> None:
    """Root may list every folder, so the refusal is played."""
    scandir, iterdir = os.scandir, Path.iterdir

    def listed(path="."):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listed)
    monkeypatch.setattr(Path, "iterdir", lambda path: (listed(path), iterdir(path))[1])


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    refuse_listing(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"the folder cannot be listed \(Permission denied\)"):
        find_inputs(tmp_path)


def test_a_folder_below_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "secret/b.png", "open/c.png")
    refuse_listing(monkeypatch, tmp_path / "secret")
    found = find_inputs(tmp_path, recursive=True)
    assert [item.id for item in found.items] == ["a.png", "open/c.png"]
    assert found.unreadable == (("secret", f"{tmp_path / 'secret'}: the folder cannot be listed (Permission denied)"),)


def test_a_pattern_takes_what_matches(tmp_path):
    touch(tmp_path, "x/ct10.png", "x/ct9.png", "y/ct1.png", "y/mr1.png", "y/ct1.txt")
    found = find_inputs(tmp_path / "*" / "ct*")
    assert [item.id for item in found.items] == ["x/ct9.png", "x/ct10.png", "y/ct1.png"]
    assert found.skipped == 1
    assert ids(tmp_path / "**" / "*1.png") == ["y/ct1.png", "y/mr1.png"]


def test_a_file_that_a_pattern_finds_twice_is_one_input(tmp_path):
    touch(tmp_path, "a.png", "x/y/b.png", "x/notes.txt")
    found = find_inputs(tmp_path / "**" / "**" / "*")
    assert [item.id for item in found.items] == ["a.png", "x/y/b.png"]
    assert found.skipped == 1
    assert ids(tmp_path / "*" / ".." / "*.png") == ["a.png"]
    assert ids(tmp_path / "*" / "y" / ".." / "y" / "*.png") == ["x/y/b.png"]


def test_the_parent_of_a_linked_folder_is_followed_where_it_is(tmp_path):
    touch(tmp_path, "in/x/y/a.png", "in/x/b.png", "in/c.png")
    (tmp_path / "in/z").symlink_to(tmp_path / "in/x/y")
    (item,) = find_inputs(tmp_path / "in" / "z*" / ".." / "*.png").items
    assert (item.id, item.path) == ("x/b.png", tmp_path / "in/x/b.png")


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_pattern_that_leads_out_of_its_folder_is_refused(tmp_path, monkeypatch, is_relative):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "in/x/a.png", "other/b.png", "elsewhere/c.png")
    folder = Path() if is_relative else tmp_path
    with pytest.raises(
        DataError, match=r"leads out of .*in with '\.\.', for instance to .*b\.png, and results are named"
    ):
        find_inputs(folder / "in" / "*" / ".." / ".." / "other" / "*.png")
    # In front of the placeholder it is part of the folder that names are relative to.
    assert ids(folder / "in" / ".." / "other" / "*.png") == ["b.png"]


JOURNALS = {
    "journal.jsonl": '{"etnet_journal": 1, "source": "images"}\n',
    "journal.part-0-of-4.jsonl": '{"key": "0123456789abcdef", "result": {}}\n',
    "journal.part-13-of-40.jsonl": "",
}


@pytest.mark.parametrize("name", list(JOURNALS))
def test_results_of_earlier_runs_are_not_segmented_again(tmp_path, name):
    touch(tmp_path, "a.png", "x/b.png", "runs/infer/x/masks/a.png", "runs/infer/x/overlays/left/a.png", "runs/c.png")
    (tmp_path / "runs/infer/x" / name).write_text(JOURNALS[name])
    expected = ["a.png", "runs/c.png", "x/b.png"]
    assert ids(tmp_path, recursive=True) == expected
    assert ids(tmp_path / "**" / "*.png") == expected
    assert ids(tmp_path / "*" / "**" / "*.png") == expected[1:]
    results = tmp_path / "runs/infer/x"
    # What is named is meant, such as the masks of a coarse network.
    assert ids(results / "masks") == ids(results / "masks" / "**" / "*.png") == ["a.png"]
    assert ids(tmp_path / "runs" / "infer" / "*" / "masks" / "*.png") == ["x/masks/a.png"]


def test_results_written_among_the_images_are_not_segmented_again(tmp_path):
    touch(tmp_path, "a.png", "x/b.png", "x/masks/c.png", *(f"{name}/x/b.png" for name in RESULT_FOLDERS))
    assert len(ids(tmp_path, recursive=True)) == 3 + len(RESULT_FOLDERS)
    (tmp_path / "journal.jsonl").touch()
    expected = ["a.png", "x/b.png", "x/masks/c.png"]
    assert ids(tmp_path, recursive=True) == ids(tmp_path / "**" / "*.png") == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [("journal.jsonl", '{"title": "Mon"}\n'), ("journal.jsonl.bak", ""), ("journal.2024.jsonl", "")],
)
def test_images_beside_another_journal_are_taken(tmp_path, name, content):
    touch(tmp_path, "x/b.png")
    (tmp_path / "x" / name).write_text(content)
    assert ids(tmp_path, recursive=True) == ids(tmp_path / "**" / "*.png") == ["x/b.png"]


def test_a_pipe_called_like_a_journal_is_not_waited_for(tmp_path):
    touch(tmp_path, "x/b.png")
    os.mkfifo(tmp_path / "x/journal.jsonl")
    assert ids(tmp_path, recursive=True) == ["x/b.png"]


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    touch(tmp_path, "scan [1].png", "set [2]/a.png")
    assert ids(tmp_path / "scan [1].png") == ["scan [1].png"]
    assert ids(tmp_path / "set [2]") == ["a.png"]


def test_a_pattern_looks_in_its_first_parts(tmp_path):
    assert fixed_folder(Path("*.png")) == Path()
    assert fixed_folder(Path("a/b/c?/*.png")) == Path("a/b")


def test_dicom_files_without_a_suffix_are_found_by_their_content(tmp_path):
    for name in ("IM000001", "1.2.840.113619.2", "SCAN.0007"):
        write_dicom(tmp_path / name, np.zeros((4, 4), np.uint8))
    save_dicom(tmp_path / "DICOMDIR", identified())
    touch(tmp_path, "README", "notes.2")
    found = find_inputs(tmp_path)
    assert [item.id for item in found.items] == ["1.2.840.113619.2", "IM000001", "SCAN.0007"]
    assert [item.output_name for item in found.items] == ["1.2.840.113619.2", "IM000001", "SCAN.0007"]
    assert found.skipped == 3


def test_what_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no such folder, image file or table, and no pattern"):
        find_inputs(tmp_path / "missing")
    with pytest.raises(DataError, match="no image matches this pattern; 0 file"):
        find_inputs(tmp_path / "*.png")


def test_a_folder_without_images_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"holds no file; expected .*dcm.*nii\.gz.*png.*tif"):
        find_inputs(tmp_path)
    touch(tmp_path, "notes.txt")
    with pytest.raises(DataError, match=r"1 file\(s\), none of them an image"):
        find_inputs(tmp_path)


def test_a_sub_folder_with_images_is_named(tmp_path):
    touch(tmp_path, "DRIVE/1st_manual/a.png", "DRIVE/images/a.png")
    with pytest.raises(DataError, match=r"sub-folder images does; use .*DRIVE/images, or add --recursive"):
        find_inputs(tmp_path / "DRIVE")


MISSING = """
import sys
from pathlib import Path
sys.modules[sys.argv[2]] = None
from etnet.errors import EnvironmentFault
from etnet.inference.inputs import find_inputs
try:
    print(len(find_inputs(Path(sys.argv[1])).items))
except EnvironmentFault as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "package"),
    [("a.dcm", "pydicom"), ("a.nii.gz", "nibabel"), ("a.mha", "nibabel"), ("a.mhd", "SimpleITK"), ("a.png", None)],
)
def test_a_missing_package_is_said_before_anything_is_read(tmp_path, name, package):
    touch(tmp_path, name, "b.png")
    result = subprocess.run(
        [sys.executable, "-c", MISSING, str(tmp_path), package or "pydicom"], capture_output=True, text=True, check=True
    )
    expected = "2" if package is None else f"{tmp_path / name}: is read with {package}, which is not installed; run: "
    assert result.stdout.startswith(expected)
    if package:
        assert result.stdout.strip().endswith("pip install 'etnet[medical]'")


def test_pictures_alone_import_no_medical_package(tmp_path):
    touch(tmp_path, "a.png")
    program = (
        "import sys\nfrom pathlib import Path\nfrom etnet.inference import folder, inputs\n"
        f"inputs.find_inputs(Path({str(tmp_path)!r}))\n"
        "print({'pydicom', 'nibabel', 'SimpleITK'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_a_hundred_thousand_names_are_told_apart_in_no_time():
    names = [f"s{index % 100}/im{index}.png" for index in range(100_000)]
    assert len(set(assign_output_names(names))) == 100_000
