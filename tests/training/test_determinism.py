from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from etnet.errors import UsageError
from etnet.models.blocks import upsample
from etnet.training.determinism import WORKSPACE, fix_workspace, reproducible
from etnet.training.tracking import SilentObserver
from etnet.training.trainer import train
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder

POLAR = ("model.name=mnet", "data.crop_size=64", "data.roi={side: 1.0, size: 64}", "model.polar=true")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":4096:8")
    monkeypatch.delenv(WORKSPACE)


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights" / "last.safetensors")


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_cpu_two_runs_are_the_same_bits_for_any_number_of_workers(
    precision: str, discs: Path, tmp_path: Path
) -> None:
    short = ("training.epochs=1", f"training.precision={precision}")
    for name, workers in (("none", 0), ("again", 0), ("three", 3)):
        tiny_run(tiny_recipe(*short, f"data.workers={workers}"), discs, tmp_path / name)
    for name in ("again", "three"):
        assert_same_bits(weights_of(tmp_path / "none"), weights_of(tmp_path / name))


def test_asking_for_it_on_a_cpu_changes_no_bit(discs: Path, tmp_path: Path) -> None:
    tiny_run(tiny_recipe("training.epochs=1"), discs, tmp_path / "plain")
    tiny_run(tiny_recipe("training.epochs=1", "training.deterministic=true"), discs, tmp_path / "asked")
    assert_same_bits(weights_of(tmp_path / "plain"), weights_of(tmp_path / "asked"))


def settings() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.allow_tf32,
    )


def test_settings_hold_inside_and_are_as_before_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_float32_matmul_precision("high")
    try:
        before = settings()
        with reproducible(True):
            assert settings() == (True, False, "highest", False, True, False)
            assert os.environ[WORKSPACE] == ":4096:8"
        assert settings() == before
        with pytest.raises(ZeroDivisionError), reproducible(True):
            raise ZeroDivisionError
        assert settings() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_without_asking_nothing_changes() -> None:
    before = settings()
    with reproducible(False):
        assert settings() == before
        assert WORKSPACE not in os.environ


def test_an_operation_without_a_deterministic_algorithm_is_one_sentence() -> None:
    words = "max_unpooling2d_forward_out does not have a deterministic implementation, but you set ..."
    sentence = "operation max_unpooling2d_forward_out has no deterministic algorithm"
    with pytest.raises(UsageError, match=sentence), reproducible(True):
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="another fault"), reproducible(True):
        raise RuntimeError("another fault")


def test_what_torch_refuses_has_the_words_that_are_looked_for() -> None:
    with pytest.raises(UsageError, match="has no deterministic algorithm on this device"), reproducible(True):
        torch.nn.functional.max_unpool1d(torch.ones(1, 1, 2), torch.tensor([[[0, 2]]]), 2)


def test_a_workspace_that_cublas_is_not_deterministic_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(UsageError, match="CUBLAS_WORKSPACE_CONFIG is ':0:0'"):
        fix_workspace()
    monkeypatch.setenv(WORKSPACE, ":16:8")
    fix_workspace()
    assert os.environ[WORKSPACE] == ":16:8"


def test_a_workspace_cannot_be_fixed_after_cuda_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(UsageError, match="CUDA runs already without CUBLAS_WORKSPACE_CONFIG"):
        fix_workspace()


@pytest.mark.gpu
@pytest.mark.parametrize("options", [(), ("loss.cross_entropy=0.5", "model.high_resolution=true"), POLAR])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_on_a_gpu_two_runs_are_the_same_bits(
    precision: str, options: tuple[str, ...], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests of this process have started CUDA; its products did not need a workspace then.
    monkeypatch.setenv(WORKSPACE, ":4096:8")
    recipe = tiny_recipe("training.deterministic=true", f"training.precision={precision}", *options)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        train(recipe, data_root=discs, run=tmp_path / name, device=torch.device("cuda"), observer=SilentObserver())
    assert_same_bits(weights_of(tmp_path / "one"), weights_of(tmp_path / "other"))


@pytest.mark.gpu
def test_on_a_gpu_enlarging_repeats_inside() -> None:
    with reproducible(True):
        leaf = torch.randn(2, 8, 32, 32, device="cuda", requires_grad=True)
        assert type(upsample(leaf, 4).grad_fn).__name__ == "_UpsampleBackward"
