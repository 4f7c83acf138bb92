"""`etnet infer` and what it must never do: write outside its folder, replace one result by another, or run for ever."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from etnet.inference.predictor import Predictor
from helpers.backends import image_of, pixel_predictor, random_labels
from helpers.command_line import one_sentence, run_etnet
from helpers.weights import write_header_only

ONLY_OTHERS = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a model, whose network is replaced by pixel arithmetic."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Predictor, "load", pixel_predictor)
    write_header_only(tmp_path / "runs/train/first/weights/best.safetensors")
    return tmp_path


def infer(*arguments: object) -> Result:
    return run_etnet("infer", *arguments)


def write_images(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_of(random_labels(9, 12 + seed, seed=seed))).save(folder / name)
    return folder


def masks(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def reasons(folder: Path) -> dict[str, str]:
    with (folder / "failed.csv").open(newline="", encoding="utf-8") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "..", r"..\escaped", "C:escaped"])
def test_no_id_of_a_table_leads_out_of_the_output_folder(here, name):
    write_images(here / "eyes", "a.png")
    (here / "list.csv").write_text(f"id,path\n{name},eyes/a.png\n", "utf-8")
    before = masks(here)
    one_sentence(infer("list.csv", "--output", "out"), 3, "list.csv", "line 2", "cannot name a result")
    assert masks(here) == before
    assert not Path("/tmp/escaped.png").exists()


def test_inputs_that_share_a_name_but_for_case_suffix_or_accent_keep_their_results_apart(here):
    names = ["a.png", "A.bmp", "a.tif", "Caf\u00e9.png", "cafe\u0301.bmp", "sub.png", "sub/a.png"]
    write_images(here / "eyes", *names)
    result = infer("eyes", "--output", "out", "--recursive")
    assert result.exit_code == 0, result.output
    written = masks(here / "out/masks")
    assert len(written) == len({name.casefold() for name in written}) == len(names)
    sizes = []
    for name in written:
        with Image.open(here / "out/masks" / name) as mask:
            sizes.append(mask.size)
    assert sorted(sizes) == [(12 + seed, 9) for seed in range(len(names))]


def test_tables_of_spreadsheets_are_read_and_their_results_named_by_the_ids(here):
    write_images(here / "eyes", "a.png", "b.png")
    text = "\ufeffid;path;spacing_row;spacing_col\r\nleft/one;eyes/a.png;0,5;0,25\r\ntwo;eyes/b.png;;\r\n"
    (here / "list.csv").write_text(text, "utf-8", newline="")
    result = infer("list.csv", "--output", "out")
    assert result.exit_code == 0, result.output
    assert masks(here / "out/masks") == ["left/one.png", "two.png"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["id,file", "a,eyes/a.png"], ("first line is id,file", "expected id,path")),
        (["id,path", "a,eyes/a.png", "A,eyes/b.png"], ("lines 2 and 3", "the id A")),
        (["id,path,spacing_row,spacing_col", "a,eyes/a.png,nan,1"], ("line 2", "spacing nan")),
        (["id,path,spacing_row,spacing_col", "a,eyes/a.png,-0.5,1"], ("line 2", "spacing -0.5")),
    ],
)
def test_a_wrong_table_is_one_sentence_and_leaves_nothing(here, lines, words):
    write_images(here / "eyes", "a.png", "b.png")
    (here / "list.csv").write_text("\n".join(lines), "utf-8")
    one_sentence(infer("list.csv", "--output", "out"), 3, "list.csv", *words)
    assert not (here / "out").exists()


def test_lines_of_a_table_that_name_no_image_are_failures_and_the_others_are_done(here):
    write_images(here / "eyes", "a.png")
    os.mkfifo(here / "pipe.png")
    lines = ["id,path", "good,eyes/a.png", "gone,eyes/z.png", "folder,eyes", "pipe,pipe.png", "endless,/dev/zero"]
    (here / "list.csv").write_text("\n".join(lines), "utf-8")
    one_sentence(infer("list.csv", "--output", "out"), 6, "4 of 5 images")
    assert masks(here / "out/masks") == ["good.png"]
    found = reasons(here / "out")
    assert {name: reason.split(": ")[1].split(" (")[0].split(";")[0] for name, reason in found.items()} == {
        "gone": "cannot be opened",
        "folder": "is a folder, not a file",
        "pipe": "is a pipe, socket or device, not a file",
        "endless": "is a pipe, socket or device, not a file",
    }


def test_names_that_no_table_can_hold_are_failures_with_escapes(here):
    write_images(here / "eyes", "a.png")
    for name in ("line\nend.png", "no\udcfftext.png", "x" * 246 + ".png"):
        (here / "eyes" / name).write_bytes((here / "eyes/a.png").read_bytes())
    one_sentence(infer("eyes", "--output", "out"), 6, "3 of 4 images")
    assert masks(here / "out/masks") == ["a.png"]
    assert set(reasons(here / "out")) == {r"line\x0aend.png", r"no\xfftext.png", "x" * 246 + ".png"}


def test_a_link_that_leads_round_in_circles_is_followed_once_or_named(here):
    write_images(here / "eyes", "a.png", "sub/b.png")
    (here / "eyes/sub/up").symlink_to(here / "eyes")
    (here / "eyes/self.png").symlink_to("self.png")
    one_sentence(infer("eyes", "--recursive", "--output", "out"), 6, "1 of 3 images", "self.png")
    assert masks(here / "out/masks") == ["a.png", "sub/b.png"]


def test_an_output_folder_that_cannot_be_made_is_one_sentence(here):
    write_images(here / "eyes", "a.png")
    (here / "file").write_text("mine")
    one_sentence(infer("eyes", "--output", "file/out"), 4, "file/out", "could not be written (Not a directory)")
    assert (here / "file").read_text() == "mine"


@ONLY_OTHERS
def test_an_output_folder_that_may_not_be_written_is_one_sentence(here):
    write_images(here / "eyes", "a.png")
    (here / "locked").mkdir(mode=0o500)
    one_sentence(infer("eyes", "--output", "locked/out"), 4, "locked/out", "could not be written (Permission denied)")


@ONLY_OTHERS
def test_a_folder_that_may_not_be_listed_is_a_failure_and_the_others_are_done(here):
    write_images(here / "eyes", "a.png", "secret/b.png")
    (here / "eyes/secret").chmod(0)
    try:
        one_sentence(infer("eyes", "--recursive", "--output", "out"), 6, "1 of 2 images", "cannot be listed")
    finally:
        (here / "eyes/secret").chmod(0o700)
    assert masks(here / "out/masks") == ["a.png"]
