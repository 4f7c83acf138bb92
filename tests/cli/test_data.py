from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from etnet.cli.main import main
from etnet.data.catalog import CATALOG
from helpers.datasets import save, write_pairs
from helpers.layouts import write_chase, write_drive, write_montgomery


def run(*words: object):
    return CliRunner().invoke(main, ["data", *map(str, words)])


class TestList:
    def test_names_every_known_data_set_with_source_terms_and_recipe(self):
        result = run("list")
        assert result.exit_code == 0
        for card in CATALOG.values():
            for text in (card.title, card.source, card.terms, card.layout[0], f"etnet train --recipe {card.name}"):
                assert text in result.stdout

    def test_json_holds_the_same(self):
        listed = json.loads(run("list", "--json").stdout)["datasets"]
        assert [entry["name"] for entry in listed] == list(CATALOG)
        assert listed[0]["train"] == 20


class TestCheck:
    def test_a_folder_in_order_ends_with_the_next_command_and_code_0(self, tmp_path):
        result = run("check", write_chase(tmp_path / "my data"))
        assert result.exit_code == 0
        assert "CHASE_DB1 (data.dataset chase_db1, recognised)" in result.stdout
        assert "train     20        20  25x24" in result.stdout
        assert result.stdout.endswith(f"Next: etnet train --recipe chase_db1 --data '{tmp_path / 'my data'}'\n")

    def test_errors_end_with_code_3_and_name_file_remedy_and_recipe_lines(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b", "c"], values=(0, 128, 255))
        result = run("check", root)
        assert result.exit_code == 3
        assert f"error    {root}/masks/a.png: mask holds values [0, 128, 255]" in result.stdout
        assert "also masks/b.png, masks/c.png" in result.stdout
        assert "recipe  data.mask_values: {0: 0, 128: 1, 255: 2}" in result.stdout
        assert "1 error: training or evaluation would refuse this folder." in result.stdout

    def test_the_recipe_lines_are_accepted_by_set(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 128, 255))
        names = "data.class_names=[background, one, two]"
        settled = run(
            "check", root, "--dataset", "folder", "--set", names, "--set", "data.mask_values={0: 0, 128: 1, 255: 2}"
        )
        assert settled.exit_code == 0, settled.output

    def test_values_that_a_threshold_divides_are_shown_as_expected(self, tmp_path):
        root = write_montgomery(tmp_path, merged=True)
        for path in (root / "masks").iterdir():
            save(path, np.linspace(0, 255, 12 * 16).astype(np.uint8).reshape(12, 16))
        result = run("check", root)
        assert result.exit_code == 0
        assert re.search(r"189 others +\S+% +yes \(threshold 127\) *\n", result.stdout)
        assert re.search(r" 255 +138 +\S+% +yes *\n", result.stdout)

    def test_json_is_all_of_stdout_and_keeps_the_code(self, tmp_path):
        root = write_drive(tmp_path)
        (root / "training" / "1st_manual" / "21_manual1.gif").unlink()
        result = run("check", root, "--json")
        report = json.loads(result.stdout)
        assert result.exit_code == 3
        assert report["errors"] == 1
        assert report["parts"]["train"] == {
            "pairs": 2,
            "expected_pairs": 20,
            "sizes": {"28x30": 2},
            "depths": {"RGB 8-bit": 2},
        }
        assert report["findings"][0]["rule"] == "image-without-mask"
        assert report["findings"][0]["files"] == [str(root / "training/images/21_training.tif")]
        assert report["mask_values"]["255"]["expected"] is True

    def test_several_data_sets_in_folders_of_their_own_are_a_usage_error(self, tmp_path):
        write_drive(tmp_path / "DRIVE")
        write_chase(tmp_path / "CHASE")
        result = run("check", tmp_path)
        assert result.exit_code == 2
        assert "holds several data sets (CHASE_DB1 in CHASE; DRIVE in DRIVE)" in result.stderr
        assert f"etnet data check {tmp_path}/CHASE" in result.stderr

    def test_an_unknown_layout_says_what_was_seen_and_expected(self, tmp_path):
        save(tmp_path / "scans" / "x.png", np.zeros((4, 4), np.uint8))
        result = run("check", tmp_path)
        assert result.exit_code == 3
        assert "no known layout; found scans/x.png; expected folders images/ and masks/" in result.stderr

    def test_a_missing_folder_is_named(self, tmp_path):
        result = run("check", tmp_path / "none")
        assert result.exit_code == 3
        assert "none: no such folder" in result.stderr

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--set", "data.crop_size=64"], "name one with --recipe, or the data set with --dataset"),
            (
                ["--recipe", "drive", "--dataset", "stare"],
                "--dataset stare contradicts recipe drive, which reads drive",
            ),
        ],
    )
    def test_contradictions_are_usage_errors(self, tmp_path, words, message):
        result = run("check", tmp_path, *words)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_nothing_in_the_folder_changes(self, tmp_path):
        root = write_drive(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        run("check", root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


class TestPreview:
    def test_writes_a_picture_and_names_the_next_command(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        result = run("preview", root, "--output", tmp_path / "sheet.png", "--rows", 1)
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.width > 6 * 300
        assert f"Next: etnet train --recipe folder --data {root}" in result.stdout

    def test_refuses_a_broken_folder_with_the_sentence_of_training(self, tmp_path):
        root = write_pairs(tmp_path, ["a", "b"], values=(0, 255))
        shutil.rmtree(root / "masks")
        (root / "masks").mkdir()
        result = run("preview", root, "--output", tmp_path / "sheet.png")
        assert result.exit_code == 3
        assert "masks: holds no pictures" in result.stderr
        assert not (tmp_path / "sheet.png").exists()
