import csv
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from etnet.cli.main import main
from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.data.image_statistics import image_statistics
from etnet.data.io import read_image
from etnet.data.mask_values import scan_masks
from etnet.errors import CheckFailed, DataError, EnvironmentFault, ModelFileError, UsageError
from etnet.inference.predictor import Predictor
from etnet.manifest import read_weights_info
from etnet.training.step import Stepper
from etnet.training.tracking import SilentObserver
from helpers.runs import StopAfter, forget_training_range, tiny_recipe, tiny_run, write_disc_folder


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


def tensors_of(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / "weights" / f"{name}.safetensors")


def test_a_run_leaves_everything_about_itself(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = tiny_run(tiny_recipe(), discs, run)
    assert (result.iterations, result.total, result.signal_number) == (12, 12, None)
    assert result.best_score is not None
    names = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    assert names >= {
        "weights/best.safetensors",
        "weights/last.safetensors",
        "recipe.yaml",
        "environment.json",
        "split.json",
        "metrics.csv",
        "results.png",
        "training_samples.png",
    }
    assert not [name for name in names if name.endswith(".part")]
    assert load_recipe(run / "recipe.yaml") == tiny_recipe()
    split = json.loads((run / "split.json").read_text())
    assert (len(split["training"]), len(split["validation"])) == (6, 2)
    assert not set(split["training"]) & set(split["validation"])
    assert read_image(run / "results.png").std() > 0


def test_training_learns_to_find_the_discs(discs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.epochs=40", "training.batch_size=4", "optimizer.base_lr=0.01")
    result = tiny_run(recipe, discs, tmp_path / "run")
    assert result.best_score is not None
    assert result.best_score > 0.9
    predictor = Predictor.load(tmp_path / "run" / "weights" / "best.safetensors", device="cpu")
    image = read_image(discs / "images" / "disc_0.png")
    truth = read_image(discs / "masks" / "disc_0.png")[..., 0] > 0
    assert np.mean((predictor.predict(image).labels > 0) == truth) > 0.95


EVERY_OPTION = (
    "training.batch_size=4",
    "training.accumulate=2",
    "training.ema_decay=0.9",
    "training.patience=100",
    "optimizer.clip_gradient_norm=0.5",
    "data.fold=2/4",
)


@pytest.mark.parametrize(
    ("stop_after", "options"),
    [(6, ()), (4, ()), (1, ()), (3, EVERY_OPTION), (4, EVERY_OPTION)],
    ids=["at an epoch's end", "inside an epoch", "in the first epoch", "every option", "every option, inside an epoch"],
)
def test_a_run_stopped_and_resumed_equals_an_uninterrupted_one_bit_for_bit(
    stop_after: int, options: tuple[str, ...], discs: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(*options)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    tiny_run(recipe, discs, whole)
    stopped = tiny_run(recipe, discs, halves, observer=StopAfter(stop_after))
    assert (stopped.iterations, stopped.signal_number) == (stop_after, signal.SIGINT)
    torch.manual_seed(999)
    resumed = tiny_run(recipe, discs, halves, resume=True)
    assert resumed.iterations == resumed.total
    for name in ("last", "best"):
        expected, got = tensors_of(whole, name), tensors_of(halves, name)
        assert expected.keys() == got.keys()
        assert [key for key in expected if not torch.equal(expected[key], got[key])] == []
    assert losses_in(whole) == losses_in(halves)


def losses_in(run: Path) -> list[tuple[str, ...]]:
    with (run / "metrics.csv").open() as stream:
        return [(row["epoch"], row["iteration"], row["loss"], row["edge_loss"]) for row in csv.DictReader(stream)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(discs: Path, tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    tiny_run(tiny_recipe(), discs, first)
    tiny_run(tiny_recipe("data.workers=2"), discs, second)
    tiny_run(tiny_recipe("training.seed=1"), discs, other)
    assert all(torch.equal(value, tensors_of(second)[name]) for name, value in tensors_of(first).items())
    assert not torch.equal(tensors_of(first)["classifier.weight"], tensors_of(other)["classifier.weight"])


def test_sigterm_saves_like_ctrl_c_and_the_handlers_come_back(discs: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = tiny_run(tiny_recipe(), discs, tmp_path / "run", observer=StopAfter(2, signal.SIGTERM))
    assert (result.iterations, result.signal_number) == (2, signal.SIGTERM)
    assert read_weights_info(tmp_path / "run" / "weights" / "last.safetensors").iteration == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_held_out_images_best_is_last(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = tiny_run(tiny_recipe("data.validation_fraction=0"), discs, run)
    assert result.best_score is None
    best, last = tensors_of(run, "best"), tensors_of(run)
    assert all(torch.equal(value, last[name]) for name, value in best.items())


def test_one_step_may_complete_several_epochs(discs: Path, tmp_path: Path) -> None:
    result = tiny_run(tiny_recipe("training.batch_size=16", "training.epochs=5"), discs, tmp_path / "run")
    assert (result.iterations, result.total) == (2, 2)
    assert [row[0] for row in losses_in(tmp_path / "run")] == ["2", "5"]


def test_a_loss_that_is_not_finite_names_the_samples_and_keeps_the_last_checkpoint(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=1"), discs, run)
    before = (run / "weights" / "last.safetensors").read_bytes()
    diverging = tiny_recipe("optimizer.base_lr=1e30", "training.epochs=20", "training.save_every=20")
    with pytest.raises(CheckFailed, match="disc_") as caught:
        tiny_run(diverging, discs, run, resume=True)
    assert "lower optimizer.base_lr" in str(caught.value)
    assert (run / "weights" / "last.safetensors").read_bytes() == before


def test_two_runs_cannot_write_the_same_folder(discs: Path, tmp_path: Path) -> None:
    refused: list[UsageError] = []

    class StartAnother(SilentObserver):
        def on_step(self, *, iteration: int, **_: float) -> None:
            if iteration == 1:
                with pytest.raises(UsageError, match="another etnet train is writing here") as caught:
                    tiny_run(tiny_recipe(), discs, tmp_path / "run")
                refused.append(caught.value)

    tiny_run(tiny_recipe("training.epochs=1"), discs, tmp_path / "run", observer=StartAnother())
    assert len(refused) == 1


def test_resuming_on_other_images_is_refused(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_run(tiny_recipe(), discs, run, observer=StopAfter(2))
    (discs / "images" / "disc_0.png").rename(discs / "images" / "disc_9.png")
    (discs / "masks" / "disc_0.png").rename(discs / "masks" / "disc_9.png")
    with pytest.raises(DataError, match="resume with the same --data"):
        tiny_run(tiny_recipe(), discs, run, resume=True)


def test_resuming_with_another_network_is_refused(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_run(tiny_recipe(), discs, run, observer=StopAfter(2))
    with pytest.raises(ModelFileError, match="does not fit the recipe's network"):
        tiny_run(tiny_recipe("model.decoder_channels=24"), discs, run, resume=True)


def test_resuming_a_finished_run_changes_nothing(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=1"), discs, run)
    before = (run / "weights" / "last.safetensors").read_bytes()
    result = tiny_run(tiny_recipe("training.epochs=1"), discs, run, resume=True)
    assert result.iterations == result.total
    assert (run / "weights" / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("switch", ["model.use_egm=false", "model.use_wam=false"])
def test_the_rows_of_table_3_train(switch: str, discs: Path, tmp_path: Path) -> None:
    result = tiny_run(tiny_recipe(switch, "training.epochs=1"), discs, tmp_path / "run")
    assert result.iterations == result.total


def test_bfloat16_and_gradient_clipping_train(discs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.precision=bfloat16", "optimizer.clip_gradient_norm=1.0", "training.epochs=1")
    tiny_run(recipe, discs, tmp_path / "run")
    assert all(value.isfinite().all() for value in tensors_of(tmp_path / "run").values() if value.is_floating_point())


def test_float16_on_a_cpu_is_refused(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use bfloat16 or float32"):
        tiny_run(tiny_recipe("training.precision=float16"), discs, tmp_path / "run")


def test_a_damaged_held_out_image_is_found_before_training(discs: Path, tmp_path: Path) -> None:
    held_out = open_dataset(tiny_recipe().data, discs, "validation").ids[0]
    image = discs / "images" / f"{held_out}.png"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(DataError, match=held_out):
        tiny_run(tiny_recipe(), discs, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_images_that_join_the_folder_later_do_not_turn_training_images_into_held_out_ones(
    discs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=1"), discs, run)
    trained = set(read_weights_info(run / "weights" / "best.safetensors").training_state["training_ids"])
    extra = write_disc_folder(tmp_path / "extra", count=40, seed=1)
    for folder in ("images", "masks"):
        for file in (extra / folder).iterdir():
            file.rename(discs / folder / f"new_{file.name}")
    held_out = set(open_dataset(tiny_recipe().data, discs, "validation").ids)
    result = CliRunner().invoke(main, ["evaluate", str(run), "--data", str(discs), "--split", "validation"])
    assert held_out & trained, "the folder was grown so that training images would be held out"
    assert result.exit_code == 3
    assert "was trained on" in result.stderr


class FailAt(SilentObserver):
    """Makes every step from an iteration on fail as torch does when a GPU's memory is full."""

    def __init__(self, iteration: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.iteration, self.monkeypatch, self.error = iteration, monkeypatch, error

    def on_step(self, *, iteration: int, **_: float) -> None:
        def fail(*_: object) -> None:
            raise self.error

        if iteration == self.iteration:
            self.monkeypatch.setattr(Stepper, "_run", fail)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError()],
    ids=["GPU", "CPU"],
)
def test_too_little_memory_names_what_to_lower_and_keeps_the_last_checkpoint(
    error: Exception, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvironmentFault, match=r"train on 2 crops of 32x32 pixels.*--batch-size.*data\.crop_size"):
        tiny_run(tiny_recipe(), discs, tmp_path / "run", observer=FailAt(4, monkeypatch, error))
    assert read_weights_info(tmp_path / "run" / "weights" / "last.safetensors").iteration == 3


def test_other_errors_of_a_step_are_not_taken_for_too_little_memory(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        tiny_run(
            tiny_recipe(), discs, tmp_path / "run", observer=FailAt(1, monkeypatch, RuntimeError("shape mismatch"))
        )


@pytest.mark.parametrize("fraction", [0, 0.25], ids=["nothing held out", "held out"])
def test_weights_that_the_last_step_spoilt_are_never_saved(
    fraction: float, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain_step = tmp_path / "run", Stepper.submit
    recipe = tiny_recipe(f"data.validation_fraction={fraction}")
    tiny_run(tiny_recipe(f"data.validation_fraction={fraction}", "training.epochs=3"), discs, run)
    before = {path.name: path.read_bytes() for path in (run / "weights").iterdir()}
    total = 16 if fraction == 0 else 12
    steps = iter(range(3 * total // 4 + 1, total + 1))

    def spoiling_step(self: Stepper, batch: object, rate: float, **options: float) -> None:
        plain_step(self, batch, rate, **options)
        if next(steps) == total:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))

    monkeypatch.setattr(Stepper, "submit", spoiling_step)
    with pytest.raises(CheckFailed, match=rf"not finite after iteration {total} .*not saved; lower optimizer.base_lr"):
        tiny_run(recipe, discs, run, resume=True)
    assert {path.name: path.read_bytes() for path in (run / "weights").iterdir()} == before


class Listener(SilentObserver):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


def test_a_run_begins_with_its_numbers_of_images(discs: Path, tmp_path: Path) -> None:
    listener = Listener()
    tiny_run(tiny_recipe("training.epochs=1"), discs, tmp_path / "run", observer=listener)
    assert listener.messages[:2] == [
        f"Training etnet with test_resnet on cpu into {tmp_path / 'run'}",
        "6 training images, 2 held out",
    ]
    assert not [text for text in listener.messages if text.startswith("Warning")]


def test_a_class_that_no_training_mask_holds_is_warned_of(discs: Path, tmp_path: Path) -> None:
    listener = Listener()
    recipe = tiny_recipe(
        "training.epochs=1", "data.class_names=[background, cup, disc]", "data.mask_values={0: 0, 128: 1, 255: 2}"
    )
    tiny_run(recipe, discs, tmp_path / "run", observer=listener)
    (warning,) = (text for text in listener.messages if text.startswith("Warning"))
    assert warning.startswith("Warning: no training mask holds cup, so the network")


def test_nothing_is_announced_before_the_data_were_checked(discs: Path, tmp_path: Path) -> None:
    (discs / "masks" / "disc_0.png").unlink()
    listener = Listener()
    with pytest.raises(DataError, match="disc_0"):
        tiny_run(tiny_recipe(), discs, tmp_path / "run", observer=listener)
    assert listener.messages == []


def test_every_mask_is_scanned_once_for_both_splits(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[Path] = []

    def counting(masks):
        scanned.extend(mask.path for mask in masks)
        return scan_masks(masks)

    monkeypatch.setattr("etnet.data.datasets.opening.scan_masks", counting)
    tiny_run(tiny_recipe("training.epochs=1"), discs, tmp_path / "run")
    assert sorted(scanned) == sorted((discs / "masks").iterdir())


def test_the_weights_hold_the_range_of_the_images_trained_on(discs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.epochs=1")
    tiny_run(recipe, discs, tmp_path / "run")
    info = read_weights_info(tmp_path / "run" / "weights" / "best.safetensors")
    names = info.training_state["training_ids"]
    each = [image_statistics(read_image(discs / "images" / f"{name}.png")) for name in names]
    found = info.contract.training_range
    assert found is not None
    assert found.images == len(names)
    assert (found.low.brightness, found.high.brightness) == (
        min(values.brightness for values in each),
        max(values.brightness for values in each),
    )
    assert replace(info.contract, training_range=None) == recipe.contract()


@pytest.mark.parametrize("stored", [True, False], ids=["as stored", "of a run begun before it was stored"])
def test_a_resumed_run_keeps_the_range_of_its_images(stored: bool, discs: Path, tmp_path: Path) -> None:
    recipe, last = tiny_recipe(), tmp_path / "run" / "weights" / "last.safetensors"
    tiny_run(recipe, discs, tmp_path / "run", observer=StopAfter(4))
    expected = read_weights_info(last).contract.training_range
    assert expected is not None
    if not stored:
        forget_training_range(last)
    tiny_run(recipe, discs, tmp_path / "run", resume=True)
    assert read_weights_info(last).contract.training_range == expected
