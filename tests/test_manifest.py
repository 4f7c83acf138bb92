import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from etnet.errors import ModelFileError
from etnet.manifest import METADATA_KEY, encode_header, newest_run, read_weights_info, resolve_model
from etnet.types import ImageStatistics, TrainingRange
from helpers.runs import tiny_recipe


def write_weights(path: Path, **changes: object) -> Path:
    header = json.loads(encode_header(recipe=tiny_recipe(), iteration=1, epoch=1, data_root="d")[METADATA_KEY])
    header |= changes
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.zeros(1)}, path, {METADATA_KEY: json.dumps(header)})
    return path


def test_a_run_directory_stands_for_best_then_last(tmp_path: Path) -> None:
    last = write_weights(tmp_path / "weights" / "last.safetensors")
    assert resolve_model(tmp_path) == last
    best = write_weights(tmp_path / "weights" / "best.safetensors")
    assert resolve_model(tmp_path) == best
    assert resolve_model(last) == last


def test_a_missing_model_or_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such run directory"):
        resolve_model(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="is it a run directory"):
        resolve_model(tmp_path)


def test_the_newest_run_is_the_one_written_last(tmp_path: Path) -> None:
    assert newest_run(tmp_path) is None
    for age, name in ((30, "new"), (60, "old")):
        file = write_weights(tmp_path / name / "weights" / "last.safetensors")
        stamp = file.stat().st_mtime - age
        os.utime(file, (stamp, stamp))
    assert newest_run(tmp_path) == tmp_path / "new"


def test_a_foreign_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="not written by etnet train"):
        read_weights_info(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 64, b"\xff" * 4096])
def test_a_damaged_file_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        read_weights_info(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "best.safetensors")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        read_weights_info(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 99}, "file format 99"),
        ({"contract": {"colour": 1}}, "header is damaged"),
        ({"recipe": {"nonsense": 1}}, "nonsense is not a recipe key"),
        ({"recipe": 5}, "recipe in"),
    ],
)
def test_a_header_of_another_version_is_refused(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = write_weights(tmp_path / "best.safetensors", **changes)
    with pytest.raises(ModelFileError, match=sentence):
        read_weights_info(path)


def test_the_training_range_comes_back_from_the_header(tmp_path: Path) -> None:
    low, high = ImageStatistics(0.1, 0.2, 0.3, 0.4, 0.1, -1.0), ImageStatistics(0.5, 0.6, 0.7, 0.5, 0.2, -0.5)
    trained = TrainingRange(low, high, 20)
    header = encode_header(recipe=tiny_recipe(), iteration=1, epoch=1, data_root="d", training_range=trained)
    save_file({"a": torch.zeros(1)}, tmp_path / "best.safetensors", header)
    assert read_weights_info(tmp_path / "best.safetensors").contract == replace(
        tiny_recipe().contract(), training_range=trained
    )


def test_a_file_of_before_the_range_was_stored_takes_the_edge_width_from_its_recipe(tmp_path: Path) -> None:
    recipe = tiny_recipe("data.edge_width=7")
    contract = asdict(recipe.contract())
    del contract["edge_width"], contract["training_range"]
    path = write_weights(tmp_path / "best.safetensors", contract=contract, recipe=recipe.model_dump(mode="json"))
    assert read_weights_info(path).contract == recipe.contract()
    assert recipe.contract().edge_width == 7
