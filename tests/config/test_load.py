from pathlib import Path

import pytest
import yaml

from etnet.config.load import builtin_recipes, dump_recipe, load_recipe
from etnet.errors import UsageError


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_builtin_recipe_loads_and_is_called_by_its_file(name: str) -> None:
    assert load_recipe(name).name == name


def test_drive_recipe_holds_the_papers_numbers() -> None:
    recipe = load_recipe("drive")
    assert (recipe.model.encoder, recipe.model.encoder_weights) == ("resnet50.tv_in1k", "imagenet")
    assert (recipe.data.crop_size, recipe.loss.alpha) == (512, 0.3)
    assert (recipe.augmentation.scale, recipe.augmentation.rotation) == ((0.5, 2.0), 10)
    assert recipe.augmentation.color_jitter == 0.5
    optimizer, training = recipe.optimizer, recipe.training
    assert (optimizer.base_lr, optimizer.beta1, optimizer.weight_decay, optimizer.poly_power) == (0.005, 0.9, 5e-4, 0.9)
    assert (training.batch_size, training.epochs) == (16, 300)


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_dumped_recipe_reads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["data.mask_values={0: 0, 7: 1}", "loss.classes=[1]"])
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    assert load_recipe(file) == recipe


def test_later_overrides_win_and_are_read_as_yaml() -> None:
    recipe = load_recipe("folder", ["training.epochs=3", "training.epochs=4", "model.use_egm=false"])
    assert recipe.training.epochs == 4
    assert recipe.model.use_egm is False


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.crop_sise=64", "did you mean data.crop_size?"),
        ("epochs=3", "did you mean training.epochs?"),
        ("trainin.epochs=3", "did you mean training?"),
        ("optimizer.lr=0.1", "keys here are base_lr"),
        ("data.crop_size=100", "data.crop_size is 100; must be a multiple of 16, for instance 96 or 112"),
        ("training.epochs=0", "training.epochs is 0; input should be greater than or equal to 1"),
        ("training.epochs", "expected section.key=value"),
        ("name.x=1", "name is a value, not a section"),
        ("data.mask_values={0:0,255:1}", "put a space after each colon"),
        ("data.mask_values={0: 0, 255: 2}", "maps to [2]"),
        ("data.class_names=[a, a]", "holds a name twice"),
        ("data.class_names=[a]", "lists 1 classes"),
        ("data.ignore_index=1", "is also a class"),
        ("data.intensity_window=[5, 5]", "low < high"),
        ("data.class_colors=[[0, 0, 0]]", "lists 1 colours for 2 classes"),
        ("loss.classes=[2]", "names a class outside 0..1"),
        ("augmentation.scale=[2, 1]", "[smallest, largest]"),
        ("training.precision=half", "training.precision"),
        ("model.name=unett", "model.name is 'unett'; there is no network of this name; did you mean unet?"),
        ("model.name=xyz", "expected one of etnet, fcn, mnet"),
        ("model.name=5", "model.name is 5; input should be a valid string"),
        ("model.polar=true", "model polar=true is for name=mnet, but name is etnet; leave it out"),
        ("data={", "is not valid YAML"),
    ],
)
def test_a_wrong_override_is_named_in_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("drive", [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean drive"):
        load_recipe("drvie")


def test_an_unknown_recipe_without_a_near_name_lists_all() -> None:
    with pytest.raises(UsageError, match=", ".join(builtin_recipes())):
        load_recipe("xyz")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("training:\n  epochs: 3\n  epochs: 4\n", "line 3 repeats the key 'epochs'"),
        ("- a\n- b\n", "holds a list"),
        ("a: [", "not valid YAML"),
        ("training: 5\n", "training is 5"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(file)
    assert str(caught.value).startswith(str(file))
    assert sentence in str(caught.value)


def test_an_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    assert load_recipe(file).training.epochs == 300


def test_a_directory_or_a_binary_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    binary = tmp_path / "weights.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for source in (tmp_path, binary):
        with pytest.raises(UsageError, match="cannot be read as a recipe"):
            load_recipe(source)


def test_yaml_never_builds_python_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_recipe(file)


def test_the_dump_is_plain_yaml() -> None:
    values = yaml.safe_load(dump_recipe(load_recipe("drive")))
    assert values["data"]["mask_values"] == {0: 0, 255: 1}
    assert values["augmentation"]["scale"] == [0.5, 2.0]
