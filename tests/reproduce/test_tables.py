from __future__ import annotations

import re

import pytest

from etnet.config.load import builtin_recipes
from etnet.errors import UsageError
from etnet.reproduce.profiles import recipe_for
from etnet.reproduce.tables import TABLES, chosen

# Typed anew from the printed tables, one line per row; "-" where the paper prints nothing.
PRINTED = {
    "table1": """
        # REFUGE: Dice_OC Dice_OD mIoU | Drishti-GS: Dice_OC Dice_OD mIoU
        FCN        | 84.67 92.56 82.47 | 87.95 95.69 83.92
        U-Net      | 85.44 93.08 83.12 | 88.06 96.43 84.87
        M-Net      | 86.48 93.59 84.02 | 88.60 96.58 85.88
        Multi-task | 86.74 94.01 84.36 | 88.96 96.55 85.94
        pOSAL      | 87.50 94.60 -     | 90.10 97.40 -
        ET-Net     | 89.12 95.29 86.70 | 93.14 97.52 87.92
    """,
    "table2": """
        # DRIVE: Acc. mIoU | MC: Acc. mIoU | LUNA: Acc. mIoU
        FCN        | 94.13 74.55 | 97.35 90.53 | 96.18 93.82
        U-Net      | 94.45 75.46 | 97.82 91.64 | 96.63 94.79
        M-Net      | 94.58 75.81 | 97.96 91.95 | 97.27 94.92
        Multi-task | 94.97 76.21 | 98.13 92.24 | 97.82 94.96
        ET-Net     | 95.60 77.44 | 98.65 94.20 | 98.68 96.23
    """,
    "table3": """
        # Drishti-GS: Dice_OC Dice_OD mIoU
        Base Network             | 90.11 95.77 84.41
        Base Network + EGM       | 91.24 97.17 86.49
        Base Network + WAM       | 91.49 97.07 86.62
        Base Network + EGM + WAM | 93.14 97.52 87.92
    """,
}


def printed_cells(text: str) -> dict[tuple[str, str, str], float | None]:
    """(method, data set, metric) and its number."""
    head, *rows = [line.strip() for line in text.strip().splitlines()]
    groups = [group.split(":") for group in head.removeprefix("# ").split(" | ")]
    cells = {}
    for row in rows:
        method, *numbers = (part.strip() for part in row.split("|"))
        for (dataset, metrics), values in zip(groups, numbers, strict=True):
            for metric, value in zip(metrics.split(), values.split(), strict=True):
                cells[method, dataset, metric] = None if value == "-" else float(value)
    return cells


@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_that_of_the_paper(name: str) -> None:
    table = TABLES[name]
    ours = {
        (method.title, dataset.title, metric.title): number
        for method in table.methods
        for dataset in table.datasets
        for metric, number in zip(dataset.metrics, table.figures(method, dataset), strict=True)
    }
    assert ours == printed_cells(PRINTED[name])
    assert len(table.published) == len(table.methods) * len(table.datasets)


def test_rows_stand_in_the_order_of_the_paper() -> None:
    for name, table in TABLES.items():
        rows = [line.split("|")[0].strip() for line in PRINTED[name].strip().splitlines()[1:]]
        assert [method.title for method in table.methods] == rows


def test_only_posal_is_never_run() -> None:
    skipped = {method.title for table in TABLES.values() for method in table.methods if method.not_run}
    assert skipped == {"pOSAL"}


def test_a_row_trains_the_network_of_its_title() -> None:
    models = {
        (name, method.title): recipe_for(table.datasets[-1], method, seed=0).model
        for name, table in TABLES.items()
        if table.datasets[-1].key in builtin_recipes()
        for method in table.methods
        if method.not_run is None
    }
    assert models["table1", "U-Net"].name == "unet"
    assert models["table1", "M-Net"].name == "mnet"
    for title, model in ((title, model) for (name, title), model in models.items() if name == "table3"):
        assert model.name == "etnet"
        assert (model.use_egm, model.use_wam) == ("EGM" in title, "WAM" in title)


def test_the_last_row_of_table_3_is_the_network_of_table_1() -> None:
    own, ablation = TABLES["table1"].methods[-1], TABLES["table3"].methods[-1]
    dataset = TABLES["table3"].datasets[0]
    assert own.key == ablation.key
    assert recipe_for(dataset, own, seed=1) == recipe_for(dataset, ablation, seed=1)


def test_the_quick_rows_exist() -> None:
    for table in TABLES.values():
        assert set(table.quick_methods) <= {method.key for method in table.methods if method.not_run is None}


@pytest.mark.parametrize("asked", ["etnt", "", "etnet,posal", ","])
def test_a_name_that_a_table_has_not_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--methods is {asked!r}; this table has fcn, etnet")):
        chosen(asked, ("fcn", "etnet"), option="--methods")


@pytest.mark.parametrize(
    ("folder", "title"),
    [
        ("DRIVE", "DRIVE"),
        ("drive", "DRIVE"),
        ("Drishti-GS1_files", "Drishti-GS"),
        ("drishti_gs", "Drishti-GS"),
        ("NLM-MontgomeryCXRSet", "MC"),
        ("REFUGE", "REFUGE"),
        ("finding-lungs-in-ct-data", "LUNA"),
        ("drive2", None),
        ("test", None),
    ],
)
def test_folders_are_recognised_by_the_names_that_they_have_after_unzipping(folder: str, title: str | None) -> None:
    datasets = {dataset for table in TABLES.values() for dataset in table.datasets}
    assert [dataset.title for dataset in datasets if dataset.is_called(folder)] == ([title] if title else [])
