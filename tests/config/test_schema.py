import pytest
from pydantic import ValidationError

from etnet.config.networks import NETWORKS
from etnet.config.schema import CLASS_PALETTE, Recipe, default_color
from etnet.types import Contract, Postprocessing, StructureRule


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


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_named_and_its_size_rule_reaches_the_contract(name: str) -> None:
    recipe = Recipe.model_validate({"model": {"name": name}})
    assert recipe.contract().size_multiple == NETWORKS[name].size_multiple


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "unet", "use_egm": False}, "use_egm=false is for name=etnet, but name is unet"),
        ({"name": "mnet", "use_wam": False}, "use_wam=false is for name=etnet, but name is mnet"),
        ({"name": "unet", "polar": True}, "polar=true is for name=mnet, but name is unet"),
        ({"name": "mnet", "polar": True}, "data.roi is not set"),
        ({"name": "unet", "high_resolution": True}, "high_resolution=true is for name=etnet, but name is unet"),
    ],
)
def test_switches_of_another_network_are_refused(model: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"model": model})


@pytest.mark.parametrize("data", [{"crop_size": 48}, {"roi": {"side": 0.3, "size": 48}}])
def test_training_sizes_follow_the_rule_of_the_network(data: dict) -> None:
    Recipe.model_validate({"data": data})
    with pytest.raises(ValidationError, match="is 48; unet needs a multiple of 32, for instance 64"):
        Recipe.model_validate({"data": data, "model": {"name": "unet"}})


def test_crops_of_a_region_of_interest_go_through_the_network_too() -> None:
    data = {"crop_size": 48, "roi": {"side": 0.3, "size": 64}}
    with pytest.raises(ValidationError, match=r"data\.crop_size is 48; unet needs a multiple of 32"):
        Recipe.model_validate({"data": data, "model": {"name": "unet"}})


def test_a_batch_that_a_network_cannot_normalise_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size is 1; deeplabv3plus needs at least 2"):
        Recipe.model_validate({"model": {"name": "deeplabv3plus"}, "training": {"batch_size": 1}})


def test_postprocessing_is_off_unless_the_recipe_names_it() -> None:
    assert Recipe().contract().postprocess == Postprocessing()


def test_postprocessing_reaches_the_contract_by_class_and_by_group() -> None:
    recipe = Recipe.model_validate(
        {
            "data": {"class_names": ["background", "rim", "cup"], "class_groups": {"disc": ["rim", "cup"]}},
            "postprocess": {"structures": {"disc": {"largest": 1, "fill_holes": True}, "cup": {"min_area": 20}}},
        }
    )
    assert recipe.contract().postprocess.structures == (
        StructureRule("disc", largest=1, fill_holes=True),
        StructureRule("cup", min_area=20),
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"structures": {"background": {"largest": 1}}}, "names 'background'; expected one of rim, cup, disc"),
        ({"structures": {"liver": {"largest": 1}}}, "names 'liver'"),
        ({"structures": {"cup": {"largest": 0}}}, "greater than or equal to 1"),
        ({"threshold": 0.4}, "for two classes, but there are 3"),
        ({"threshold": 1.0}, "less than 1"),
    ],
)
def test_postprocessing_that_does_not_fit_the_classes_is_refused(section: dict, words: str) -> None:
    data = {"class_names": ["background", "rim", "cup"], "class_groups": {"disc": ["rim", "cup"]}}
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"data": data, "postprocess": section})


def test_a_batch_that_does_not_divide_into_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch_size 16 does not divide into accumulate=3 .* batch_size of 15"):
        Recipe.model_validate({"training": {"batch_size": 16, "accumulate": 3}})
    assert Recipe.model_validate({"training": {"batch_size": 16, "accumulate": 4}}).training.accumulate == 4


def test_parts_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size is 4 and is computed in 4 parts of 1; deeplabv3plus needs"):
        Recipe.model_validate({"model": {"name": "deeplabv3plus"}, "training": {"batch_size": 4, "accumulate": 4}})


def test_patience_without_held_out_images_is_refused() -> None:
    with pytest.raises(ValidationError, match="early stopping needs held-out images"):
        Recipe.model_validate({"data": {"validation_fraction": 0}, "training": {"patience": 5}})


@pytest.mark.parametrize("decay", [0, 1, -0.5])
def test_a_decay_that_averages_nothing_or_never_moves_is_refused(decay: float) -> None:
    with pytest.raises(ValidationError, match="ema_decay"):
        Recipe.model_validate({"training": {"ema_decay": decay}})


def test_the_default_network_and_loss_are_those_of_the_paper() -> None:
    recipe = Recipe()
    assert not recipe.model.high_resolution
    assert (recipe.loss.alpha, recipe.loss.cross_entropy) == (0.3, 0.0)


@pytest.mark.parametrize("share", [-0.5, 1.5])
def test_shares_of_the_loss_that_cannot_be_are_refused(share: float) -> None:
    for key in ("alpha", "cross_entropy"):
        with pytest.raises(ValidationError, match="equal to"):
            Recipe.model_validate({"loss": {key: share}})
