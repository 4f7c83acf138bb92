"""What a run keeps of decoded images: it never changes the weights, and nothing of it is left in the run folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from etnet.data.dataset import PairedFiles
from etnet.errors import CheckFailed
from etnet.training.run_folder import CACHE
from etnet.training.step import Stepper
from etnet.training.tracking import SilentObserver
from helpers.runs import StopAfter, network_in, tiny_recipe, tiny_run, write_disc_folder

ON_DISK = ("data.cache_memory=0", "training.epochs=2")
TRAINED = 6


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disc_folder(tmp_path_factory.mktemp("discs") / "data")


@pytest.fixture(scope="module")
def expected(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run that keeps nothing."""
    run = tmp_path_factory.mktemp("runs") / "run"
    tiny_run(tiny_recipe("data.cache_memory=0", "data.cache_disk=0", "training.epochs=2"), discs, run)
    return weights(run)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return network_in(load_file(run / "weights" / "last.safetensors"))


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Watch(SilentObserver):
    """Notes after each step what lies in the cache, and every message; `copy` gets what the last step left there."""

    def __init__(self, folder: Path, copy: Path | None = None) -> None:
        self.folder, self.copy = folder, copy
        self.counts: list[int] = []
        self.messages: list[str] = []

    def on_step(self, **_: float) -> None:
        self.counts.append(len(list(self.folder.glob("*"))))
        if self.copy is not None:
            shutil.copytree(self.folder, self.copy, dirs_exist_ok=True)

    def on_message(self, sentence: str) -> None:
        self.messages.append(sentence)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_files_serve_while_a_run_trains_and_go_with_its_end(discs, expected, tmp_path, workers):
    run = tmp_path / "run"
    watch = Watch(run / CACHE)
    tiny_run(tiny_recipe(*ON_DISK, f"data.workers={workers}"), discs, run, observer=watch)
    assert watch.counts[-1] == TRAINED
    assert not (run / CACHE).exists()
    assert_same(weights(run), expected)


def test_a_run_that_is_stopped_leaves_no_files_and_goes_on_without_them(discs, expected, tmp_path):
    run = tmp_path / "run"
    tiny_run(tiny_recipe(*ON_DISK), discs, run, observer=StopAfter(4))
    assert not (run / CACHE).exists()
    tiny_run(tiny_recipe("training.epochs=2"), discs, run, resume=True)
    assert_same(weights(run), expected)


def test_a_run_that_fails_leaves_no_files(discs, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def fails(stepper: Stepper, *_: object, **__: object) -> None:
        assert any((run / CACHE).iterdir())
        raise CheckFailed("this step fails")

    monkeypatch.setattr(Stepper, "submit", fails)
    with pytest.raises(CheckFailed):
        tiny_run(tiny_recipe(*ON_DISK), discs, run)
    assert not (run / CACHE).exists()


def test_files_of_a_killed_run_serve_its_continuation_also_when_some_are_damaged(
    discs, expected, tmp_path, monkeypatch
):
    run, left = tmp_path / "run", tmp_path / "left"

    class StopLater(Watch):
        def on_step(self, *, iteration: int, **numbers: float) -> None:
            super().on_step(**numbers)
            StopAfter(3).on_step(iteration=iteration)

    tiny_run(tiny_recipe(*ON_DISK), discs, run, observer=StopLater(run / CACHE, left))
    shutil.copytree(left, run / CACHE)
    first, second, *_ = sorted((run / CACHE).iterdir())
    first.write_bytes(first.read_bytes()[:1000])
    second.write_bytes(bytes(second.stat().st_size))
    (run / CACHE / ".0123456789abcdef.1.0.part").write_bytes(b"half a sample")
    decoded = []
    real = PairedFiles.load
    monkeypatch.setattr(PairedFiles, "load", lambda self, index: decoded.append(index) or real(self, index))
    watch = Watch(run / CACHE)
    tiny_run(tiny_recipe(*ON_DISK), discs, run, resume=True, observer=watch)
    held_out = 2 * 2  # before training, and once in the validation of the epoch that remains
    assert len(decoded) == held_out + 2
    assert not (run / CACHE).exists()
    assert_same(weights(run), expected)


def test_a_disk_that_is_full_is_told_once_and_the_run_goes_on(discs, expected, tmp_path, monkeypatch):
    run = tmp_path / "run"
    real = Path.open

    def full(path: Path, *arguments, **options):
        if path.parent.name == CACHE and path.suffix == ".part":
            real(path, *arguments, **options).close()
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    watch = Watch(run / CACHE)
    tiny_run(tiny_recipe(*ON_DISK), discs, run, observer=watch)
    (sentence,) = (sentence for sentence in watch.messages if "decoded images" in sentence)
    assert sentence.startswith(f"Warning: {run / CACHE}: no more decoded images can be kept there")
    assert_same(weights(run), expected)
