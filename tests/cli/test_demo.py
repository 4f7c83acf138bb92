from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from etnet.cli import demo
from etnet.cli.main import main


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_demo(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", *arguments])


def test_a_small_demo_trains_scores_segments_and_shows_each_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAINING_IMAGES", 3), ("TEST_IMAGES", 2), ("IMAGE_SIZE", 64)):
        monkeypatch.setattr(demo, name, value)
    result = run_demo("--epochs", "1", "--device", "cpu")
    assert result.exit_code == 0, result.output
    for command in ("train --recipe demo", "evaluate runs/demo/train", "infer runs/demo/data/test/images"):
        assert f"$ etnet {command}" in result.stderr
    folder = Path("runs/demo")
    assert json.loads((folder / "evaluate/metrics.json").read_text("utf-8"))["images"] == 2
    assert len(list((folder / "infer/masks").iterdir())) == 2
    pictures = result.stderr.partition("Pictures to look at:")[2].split()
    assert len(pictures) == 4
    assert all(Path(picture).exists() for picture in pictures)
    assert result.stdout.splitlines()[-2:] == [
        "Results: runs/demo",
        "Next: etnet plan my_folder/   (with images/ and masks/)",
    ]


def test_a_used_output_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    for output in ("file", "full"):
        result = run_demo("--output", output)
        assert result.exit_code == 2, result.exception
        assert result.stderr == f"Error: {output}: expected a new or empty output folder; name another with --output\n"
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_command_that_fails_ends_the_demo_with_its_exit_code() -> None:
    result = run_demo("--device", "tpu", "--epochs", "1")
    assert result.exit_code == 2
    assert "device is 'tpu'" in result.stderr
    assert "Results:" not in result.stdout
