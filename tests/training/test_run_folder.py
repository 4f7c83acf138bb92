import json
from pathlib import Path

import pytest

from etnet.config.load import load_recipe
from etnet.errors import CheckFailed, DataError, UsageError
from etnet.training.run_folder import environment, exclusive, fresh_run_folder, write_run_description
from helpers.runs import tiny_recipe


def test_default_names_are_numbered(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with fresh_run_folder(None, "drive", root=tmp_path) as folder:
            names.append(folder.name)
    assert names == ["drive", "drive-2", "drive-3"]


def test_an_output_folder_with_something_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="expected a new or empty output folder"), fresh_run_folder(tmp_path, "drive"):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="new or empty"), fresh_run_folder(file, "drive"):
        pass


def fail(folder: Path) -> None:
    (folder / "recipe.yaml").touch()
    raise DataError("no images")


def test_a_run_that_fails_at_once_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError), fresh_run_folder(tmp_path / "run", "drive") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_by_the_user_stays_and_is_empty_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError), fresh_run_folder(tmp_path, "drive") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_after_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(DataError), fresh_run_folder(tmp_path / "run", "drive") as folder:
        (folder / "weights").mkdir()
        (folder / "weights" / "last.safetensors").touch()
        fail(folder)
    assert (tmp_path / "run" / "weights" / "last.safetensors").exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(UsageError, match="another etnet train"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_the_description_holds_recipe_environment_and_split(tmp_path: Path) -> None:
    write_run_description(
        tmp_path, tiny_recipe(), data_root=Path("mine"), training_ids=("a", "b"), validation_ids=("c",)
    )
    assert load_recipe(tmp_path / "recipe.yaml") == tiny_recipe()
    split = json.loads((tmp_path / "split.json").read_text())
    assert split == {"data_root": "mine", "training": ["a", "b"], "validation": ["c"]}
    written = json.loads((tmp_path / "environment.json").read_text())
    assert written["versions"]["torch"] == environment()["versions"]["torch"] is not None


@pytest.mark.parametrize(("by_patient", "unit"), [(True, "patient"), (False, "image")])
def test_the_split_says_which_fold_was_held_out_and_how_the_folds_were_cut(
    by_patient: bool, unit: str, tmp_path: Path
) -> None:
    recipe = load_recipe("folder", ["data.validation_fraction=0.5", "data.fold=2/2", "training.seed=7"])
    write_run_description(
        tmp_path, recipe, data_root=Path("mine"), training_ids=("a",), validation_ids=("b",), by_patient=by_patient
    )
    split = json.loads((tmp_path / "split.json").read_text())
    assert split["fold"] == {"held_out": "2/2", "seed": 7, "cut_by": unit}


def test_a_fresh_folder_with_a_kept_batch_stays(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed), fresh_run_folder(tmp_path / "run", "drive") as folder:
        (folder / "nonfinite").mkdir()
        (folder / "nonfinite" / "iteration-1.safetensors").touch()
        raise CheckFailed("the loss is nan")
    assert (tmp_path / "run" / "nonfinite" / "iteration-1.safetensors").exists()
