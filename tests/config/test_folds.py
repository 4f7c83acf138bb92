from __future__ import annotations

import pytest
import yaml

from etnet.config.folds import Fold
from etnet.config.load import dump_recipe, load_recipe, recipe_from_values
from etnet.errors import UsageError


@pytest.mark.parametrize("text", ["", "3", "0/5", "6/5", "1/1", "1/", "-1/5", "1/5/5", "a/b", "1.0/5", "1/99999"])
def test_a_fold_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="for instance 1/5"):
        Fold.parse(text)


@pytest.mark.parametrize("number", [2, 3, 7, 10, 49])
def test_a_recipe_with_a_fold_comes_back_from_its_file(number: int) -> None:
    recipe = recipe_from_values({"data": {"fold": f"1/{number}"}}, "mine")
    assert recipe.data.validation_fraction == 1 / number
    assert recipe_from_values(yaml.safe_load(dump_recipe(recipe)), "mine") == recipe


def test_one_fold_has_one_spelling() -> None:
    assert recipe_from_values({"data": {"fold": "01/05"}}, "mine").data.fold == "1/5"


@pytest.mark.parametrize("fraction", [0, 0.1, 0.5])
def test_a_fraction_that_the_fold_contradicts_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match=rf"fold 1/5 holds out 0\.2 .*validation_fraction is {fraction:g}; leave one"):
        load_recipe("folder", ["data.fold=1/5", f"data.validation_fraction={fraction}"])


@pytest.mark.parametrize("value", ["0.5", "[1, 5]", "7/5", "null and void"])
def test_a_value_that_is_no_fold_is_one_sentence(value: str) -> None:
    with pytest.raises(UsageError, match=r"^recipe demo: data\.fold"):
        load_recipe("demo", [f"data.fold={value}"])
