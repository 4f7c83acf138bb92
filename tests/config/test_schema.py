import pytest
from pydantic import ValidationError

from etnet.config.schema import CLASS_PALETTE, Recipe, default_color
from etnet.types import Contract


def test_a_recipe_cannot_be_changed_after_checking() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError):
        recipe.training.epochs = 5


def test_the_contract_carries_the_data_section() -> None:
    recipe = Recipe.model_validate(
        {"data": {"class_names": ["background", "rim", "cup"], "image_size": [64, 96], "intensity_window": [0, 4095]}}
    )
    contract = recipe.contract()
    assert isinstance(contract, Contract)
    assert contract.class_names == ("background", "rim", "cup")
    assert contract.num_classes == len(contract.class_colors) == 3
    assert contract.image_size == (64, 96)
    assert contract.intensity_window == (0.0, 4095.0)


def test_given_colors_replace_the_default_ones() -> None:
    recipe = Recipe.model_validate({"data": {"class_colors": [[1, 2, 3], [4, 5, 6]]}})
    assert recipe.contract().class_colors == ((1, 2, 3), (4, 5, 6))


def test_default_colors_are_distinct_and_only_the_background_is_black() -> None:
    assert len(set(CLASS_PALETTE)) == len(CLASS_PALETTE)
    assert [index for index in range(255) if default_color(index) == (0, 0, 0)] == [0]
