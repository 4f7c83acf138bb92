from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from etnet.errors import DataError, UsageError
from etnet.reproduce.plan import NO_DATA, NOT_RUN, Request, find_folders, look_at, make_plan
from etnet.reproduce.profiles import RESERVED, Profile, check_overrides
from etnet.reproduce.tables import LOCALIZER, TABLES, PaperTable
from helpers.layouts import write_drishti, write_drive, write_lung_ct, write_montgomery, write_refuge
from helpers.reproduce import tiny_plan, tiny_request, write_drishti_of_discs, write_drive_of_discs


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_drive_of_discs(root / "drive")
    return root


def test_every_cell_of_the_paper_is_in_the_plan(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, seeds=2)
    assert len(plan.cells) == 15
    assert [run.title for run in plan.wanted_runs] == ["ET-Net on DRIVE, seed 0", "ET-Net on DRIVE, seed 1"]
    states = {cell.absence for cell in plan.cells if cell.dataset.key != "drive"}
    assert states == {NO_DATA}
    assert not list(tmp_path.iterdir())


def test_every_first_seed_comes_before_every_second(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, methods=("fcn", "etnet"), seeds=2)
    assert [(run.method.key, run.seed) for run in plan.wanted_runs] == [
        ("fcn", 0),
        ("etnet", 0),
        ("fcn", 1),
        ("etnet", 1),
    ]


def test_posal_is_not_run_even_where_there_is_data(tmp_path: Path) -> None:
    write_drishti_of_discs(tmp_path / "Drishti-GS")
    plan = tiny_plan(tmp_path, tmp_path / "out", table="table1", datasets=("drishti_gs",), methods=("etnet",))
    absences = {cell.method.key: cell.absence for cell in plan.cells if cell.dataset.key == "drishti_gs"}
    assert absences == {"posal": NOT_RUN} | dict.fromkeys(("fcn", "unet", "mnet", "multi_task", "etnet"))
    assert "posal" not in {run.method.key for run in plan.wanted_runs}


def test_data_that_cannot_be_used_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "Drishti-GS").mkdir()
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "Drishti-GS"))):
        tiny_plan(tmp_path, tmp_path / "out", table="table3", datasets=("drishti_gs",))


def test_the_iterations_are_those_of_the_paper(data_root: Path, tmp_path: Path) -> None:
    (run,) = tiny_plan(data_root, tmp_path, epochs=300, overrides=("training.batch_size=3",)).wanted_runs
    assert run.iterations == 4 * 300 / 3


def test_all_training_images_are_trained_on_and_none_chooses_the_weights(data_root: Path, tmp_path: Path) -> None:
    (run,) = tiny_plan(data_root, tmp_path).wanted_runs
    assert (run.data.training_images, run.data.test_images) == (4, 3)
    assert run.job.weights.name == "last.safetensors"
    (held,) = tiny_plan(data_root, tmp_path, overrides=("data.validation_fraction=0.25",)).wanted_runs
    assert held.data.training_images == 3
    assert held.job.weights.name == "best.safetensors"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("data.workers=1",), True),
        (("training.save_every=7",), True),
        (("name=other",), True),
        (("postprocess.threshold=0.4",), True),
        (("loss.alpha=0.5",), False),
        (("data.edge_width=5",), False),
        (("model.decoder_channels=24",), False),
    ],
)
def test_a_run_is_known_by_what_decides_its_result(
    data_root: Path, tmp_path: Path, change: tuple[str, ...], same: bool
) -> None:
    (before,) = tiny_plan(data_root, tmp_path).wanted_runs
    (after,) = tiny_plan(data_root, tmp_path, overrides=change).wanted_runs
    assert (before.folder == after.folder) is same


def test_other_images_are_another_run_and_another_place_is_not(data_root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "DRIVE"
    shutil.copytree(data_root / "drive", moved)
    (moved / "notes.png").touch()
    (before,) = tiny_plan(data_root, tmp_path).wanted_runs
    (after,) = tiny_plan(moved.parent, tmp_path).wanted_runs
    assert after.key == before.key
    label = moved / "training/1st_manual/21_manual1.gif"
    label.write_bytes((moved / "training/1st_manual/22_manual1.gif").read_bytes())
    (changed,) = tiny_plan(moved.parent, tmp_path).wanted_runs
    assert changed.key != before.key


def test_another_file_of_encoder_weights_under_the_same_name_is_another_run(data_root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    overrides = (f"model.encoder_weights={weights}",)
    keys = []
    for content in (b"first", b"first", b"second"):
        weights.write_bytes(content)
        keys.append(tiny_plan(data_root, tmp_path, overrides=overrides).wanted_runs[0].key)
    assert keys[0] == keys[1] != keys[2]


def test_a_data_set_that_lacks_images_says_so_for_each_part(tmp_path: Path) -> None:
    write_drive_of_discs(tmp_path / "DRIVE", training=20, test=10)
    held = f"{tmp_path / 'DRIVE'}: holds 10 of the 20 pairs of DRIVE for testing; expected all of them"
    (sentence,) = tiny_plan(tmp_path, tmp_path / "out").incomplete["drive"]
    assert sentence.startswith(held)
    write_drive_of_discs(tmp_path / "DRIVE", training=20, test=20)
    assert tiny_plan(tmp_path, tmp_path / "out").incomplete == {}


def test_methods_and_seeds_have_folders_of_their_own(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_plan(data_root, tmp_path, methods=("fcn", "multi_task", "etnet"), seeds=2)
    assert len({run.folder for run in plan.wanted_runs}) == 6


def test_a_folder_may_be_given_itself(data_root: Path) -> None:
    found = find_folders(data_root / "drive", TABLES["table2"].datasets)
    assert found == {"drive": (data_root / "drive").resolve()}


def test_two_folders_of_one_data_set_are_refused(tmp_path: Path) -> None:
    for name in ("DRIVE", "drive"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"DRIVE and drive are both names of DRIVE; expected one folder"):
        find_folders(tmp_path, TABLES["table2"].datasets)


@pytest.mark.parametrize("missing", [True, False])
def test_no_folder_at_all_is_refused_with_the_expected_name(tmp_path: Path, missing: bool) -> None:
    root = tmp_path / "nothing" if missing else tmp_path
    expected = "no such folder" if missing else f"holds no folder of DRIVE; expected {tmp_path / 'DRIVE'}"
    with pytest.raises(DataError, match=re.escape(expected)):
        tiny_plan(root, tmp_path)


def test_a_data_set_that_cannot_be_used_does_not_cost_the_others(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "drive", tmp_path / "DRIVE")
    (tmp_path / "Montgomery").mkdir()
    plan = tiny_plan(tmp_path, tmp_path / "out", datasets=("drive", "montgomery"))
    assert [run.dataset.key for run in plan.wanted_runs] == ["drive"]
    assert "Montgomery" in plan.broken["montgomery"]
    states = {cell.absence for cell in plan.cells if cell.dataset.key == "montgomery"}
    assert states == {"data not usable", NOT_RUN}


@pytest.mark.parametrize("key", RESERVED)
def test_what_a_row_means_cannot_be_overridden(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} is chosen by --"):
        check_overrides(["loss.alpha=0.5", f"{key}=1"])


@pytest.mark.parametrize("override", ["training.seed=3", "data.dataset=refuge"])
def test_what_the_table_chooses_for_the_localizer_cannot_be_set(override):
    key = override.partition("=")[0]
    with pytest.raises(UsageError, match=rf"--set-localizer {key}=\w+: {key} is chosen by .*leave it out"):
        check_overrides([], localizer_overrides=["training.epochs=2", override])


def test_small_networks_are_trained_where_there_is_a_recipe(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "drive", tmp_path / "DRIVE")
    (tmp_path / "LUNA").mkdir()
    plan = make_plan(replace(tiny_request(tmp_path, tmp_path / "out", datasets=("drive", "lung_ct")), profile="small"))
    (run,) = plan.wanted_runs
    assert (run.dataset.key, run.recipe.name) == ("drive", "drive_small")
    assert {cell.absence for cell in plan.cells if cell.dataset.key == "lung_ct"} == {"no small recipe"}
    assert plan.broken == {}
    with pytest.raises(UsageError, match="there is no small recipe of lung_ct; choose other data sets with --only"):
        make_plan(replace(tiny_request(tmp_path, tmp_path / "out", datasets=("lung_ct",)), profile="small"))


@pytest.fixture(scope="module")
def all_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every data set of the paper, small, in the layout of its download."""
    root = tmp_path_factory.mktemp("all")
    write_refuge(root / "REFUGE")
    write_drishti(root / "Drishti-GS1_files")
    write_drive(root / "DRIVE")
    write_montgomery(root / "MontgomerySet")
    write_lung_ct(root / "finding-lungs-in-ct-data")
    return root


@pytest.mark.parametrize("profile", ["paper", "quick"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_can_be_trained_on_every_data_set_as_downloaded(
    all_data: Path, tmp_path: Path, table: PaperTable, profile: Profile
) -> None:
    runnable = tuple(method.key for method in table.methods if method.not_run is None)
    datasets = tuple(dataset.key for dataset in table.datasets)
    plan = make_plan(Request(table, all_data, tmp_path, datasets, runnable, seeds=1, profile=profile))
    assert plan.broken == {}
    trained = [(run.dataset.key, run.method.key) for run in plan.wanted_runs if run.method != LOCALIZER]
    assert len(trained) == len(set(trained)) == len(runnable) * len(datasets)
    localized = [run.dataset.key for run in plan.wanted_runs if run.method == LOCALIZER]
    assert localized == [key for key in datasets if key in ("refuge", "drishti_gs")]
    for run in plan.wanted_runs:
        # The localizer sees the disc as a whole, in the same files.
        assert look_at(run.recipe, run.data.root) == run.data
