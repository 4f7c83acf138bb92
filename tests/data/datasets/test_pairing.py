from __future__ import annotations

from pathlib import Path

import pytest

from etnet.data.datasets.pairing import files_by_id, matched_ids, part_of
from etnet.data.findings import Finding, refuse
from etnet.data.splits import SplitFile
from etnet.errors import DataError


def id_of(path: Path) -> str | None:
    return path.stem if path.stem.startswith("im") and path.stem[2:].isdigit() else None


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_files_are_found_by_id_in_natural_order():
    found = files_by_id(paths("b/im10.png", "a/im9.png", "notes.png"), id_of, report=refuse)
    assert list(found.items()) == [("im9", Path("a/im9.png")), ("im10", Path("b/im10.png"))]


def test_a_sample_in_two_folders_is_reported_and_the_first_is_kept():
    told: list[Finding] = []
    found = files_by_id(paths("a/im1.png", "b/im1.png"), id_of, report=told.append)
    assert found == {"im1": Path("a/im1.png")}
    assert [finding.rule for finding in told] == ["sample-twice"]
    assert told[0].files == (Path("a/im1.png"), Path("b/im1.png"))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("im1.png", "im1 (1).png"), "looks like a copy of im1.png that was made by the operating system; remove it"),
        (("im2.png", "im1 (1).png"), "renamed a file; run: mv -n 'im1 (1).png' im1.png"),
    ],
)
def test_names_changed_by_an_operating_system_are_reported(names, sentence):
    with pytest.raises(DataError) as refusal:
        files_by_id(paths(*names), id_of, report=refuse)
    assert str(refusal.value).startswith("im1 (1).png: expected the name im1.png; ")
    assert str(refusal.value).endswith(sentence)


def test_samples_without_partner_are_reported_on_both_sides_and_the_rest_is_paired():
    told: list[Finding] = []
    images = {name: Path(f"{name}.png") for name in ("im1", "im2", "im3")}
    masks = {name: Path(f"{name}.bmp") for name in ("im3", "im4")}
    ids = matched_ids(images, masks, mask_name=lambda name: f"{name}.bmp", remedy="unpack it", report=told.append)
    assert ids == ("im3",)
    assert [(finding.rule, len(finding.files)) for finding in told] == [
        ("image-without-mask", 2),
        ("mask-without-image", 1),
    ]
    assert told[0].sentence == "im1.png: image without mask (2 of 3); expected im1.bmp; unpack it"


def test_a_split_that_names_missing_ids_is_reported_and_the_others_are_kept():
    told: list[Finding] = []
    split = SplitFile("split.json", train=("a", "b"), test=("c",))
    assert part_of(("a", "c"), split, "train", where=Path("root"), report=told.append) == ("a",)
    assert "b is missing" in told[0].sentence
