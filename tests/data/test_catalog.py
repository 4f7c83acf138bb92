from __future__ import annotations

import pytest

from etnet.config.load import builtin_recipes, load_recipe
from etnet.data.catalog import CATALOG, dataset_of
from etnet.data.datasets import FINDERS
from etnet.data.splits import builtin_split


def test_every_data_set_but_ones_own_has_a_card_an_opener_and_a_recipe():
    assert set(CATALOG) == set(FINDERS) - {"folder"}
    for name in CATALOG:
        assert name in builtin_recipes()
        assert load_recipe(name).data.dataset == name


@pytest.mark.parametrize("card", CATALOG.values(), ids=CATALOG)
def test_the_example_of_a_card_is_recognised_as_that_data_set_only(card):
    assert dataset_of(card.example) == card.name
    assert [other.name for other in CATALOG.values() if other.image_pattern.fullmatch(card.example)] == [card.name]


@pytest.mark.parametrize("name", ["montgomery", "chase_db1", "stare"])
def test_counts_are_those_of_the_split_file(name):
    split, card = builtin_split(name), CATALOG[name]
    assert (len(split.train), len(split.test)) == (card.train, card.test)
