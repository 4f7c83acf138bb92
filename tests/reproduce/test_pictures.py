from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.errors import DataError
from etnet.reproduce.job import pictured
from etnet.reproduce.pictures import draw_pictures
from etnet.reproduce.plan import Plan
from etnet.reproduce.results import collect
from etnet.reproduce.work import carry_out
from etnet.training.tracking import SilentObserver
from helpers.reproduce import tiny_plan, write_drive_of_discs

GREEN = (46, 204, 113)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A table with two trained methods."""
    root = tmp_path_factory.mktemp("reproduce")
    write_drive_of_discs(root / "data" / "DRIVE", size=64)
    plan = tiny_plan(root / "data", root / "out", methods=("fcn", "etnet"), epochs=1)
    for run in plan.wanted_runs:
        assert carry_out(run.job, SilentObserver())
    return plan


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def of_color(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Pixels [H, W], bool, close to a colour."""
    return (np.abs(picture.astype(int) - color) < 40).all(axis=-1)


def test_a_picture_has_a_row_per_method_and_a_column_per_image(plan: Plan) -> None:
    (path,) = draw_pictures(collect(plan))
    assert path == plan.request.folder / "pictures" / "drive.png"
    one_method = tiny_plan(plan.request.data_root, plan.request.output.parent / "other", epochs=1)
    carry_out(one_method.wanted_runs[0].job, SilentObserver())
    (smaller,) = draw_pictures(collect(one_method))
    assert pixels(path).shape[1] == pixels(smaller).shape[1]
    assert pixels(path).shape[0] - pixels(smaller).shape[0] > 200


def test_the_masks_are_drawn_as_they_are(plan: Plan) -> None:
    """The green of every row but the legend covers the share that the class has in the masks."""
    masks = plan.wanted_runs[0].job.evaluation_folder / "masks"
    for run, share in zip(plan.wanted_runs, (0.25, 0.0), strict=True):
        for path in (run.job.evaluation_folder / "masks").iterdir():
            labels = np.zeros((64, 64), np.uint8)
            labels[: int(64 * share)] = 1
            Image.fromarray(labels).save(path)
    picture = pixels(draw_pictures(collect(plan))[0])
    rows = np.flatnonzero(of_color(picture, GREEN).sum(axis=1) > 300)
    first_method = rows[rows > picture.shape[0] // 2]
    # Three tiles of 260 pixels, a quarter of each filled; nothing in the row below.
    assert len(list(masks.iterdir())) == 3
    assert 60 <= len(first_method) <= 70
    assert of_color(picture, GREEN)[first_method].sum() == pytest.approx(3 * 260 * 65, rel=0.05)


def test_a_mask_of_another_size_is_refused(plan: Plan) -> None:
    folder = plan.wanted_runs[1].job.evaluation_folder / "masks"
    path = next(folder.iterdir())
    before = path.read_bytes()
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(path)
    with pytest.raises(DataError, match="has another size than its image; remove the folder"):
        draw_pictures(collect(plan))
    path.write_bytes(before)


def test_a_table_without_runs_has_no_picture_of_former_ones(plan: Plan) -> None:
    empty = tiny_plan(plan.request.data_root, plan.request.output.parent / "empty")
    stale = empty.request.folder / "pictures" / "drive.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert draw_pictures(collect(empty)) == []
    assert not stale.exists()


def test_the_same_images_are_shown_of_every_method() -> None:
    assert pictured(["a"]) == ("a",)
    assert pictured(["a", "b", "c"]) == ("a", "b", "c")
    assert pictured([str(number) for number in range(51)]) == ("6", "19", "31", "44")
