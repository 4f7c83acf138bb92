from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.manifest import encode_header, read_weights_info
from etnet.training.checkpoint import restore_training, save_weights, training_tensors
from helpers.runs import tiny_recipe


def trained_pair(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def header() -> dict[str, str]:
    return encode_header(recipe=tiny_recipe(), iteration=3, epoch=1, data_root="data", training_state={"steps": 2})


def test_network_optimizer_and_random_state_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    network, optimizer = trained_pair(1)
    save_weights(path, training_tensors(network, optimizer), header())
    expected_random = torch.rand(4)
    other, other_optimizer = trained_pair(2)
    restore_training(path, other, other_optimizer)
    torch.testing.assert_close(other.state_dict(), network.state_dict(), rtol=0, atol=0)
    for mine, theirs in zip(other_optimizer.state.values(), optimizer.state.values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        assert mine["exp_avg"].stride() == theirs["exp_avg"].stride()
    assert torch.equal(torch.rand(4), expected_random)


def test_the_random_generator_on_a_gpu_is_that_of_the_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnTheSecond(nn.Module):
        def parameters(self, recurse: bool = True) -> Iterator[Any]:
            yield SimpleNamespace(device=torch.device("cuda", 1))

    network, optimizer = trained_pair(1)
    states = {torch.device("cuda", 1): torch.ones(3, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda": states[device])
    assert "training/rng/cuda" not in training_tensors(network, optimizer), "a CPU run does not start CUDA"
    kept = training_tensors(OnTheSecond(), optimizer)["training/rng/cuda"]
    assert torch.equal(kept, torch.ones(3, dtype=torch.uint8))


def test_the_header_tells_recipe_and_position(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, {"a": torch.zeros(2)}, header())
    info = read_weights_info(path)
    assert info.recipe == tiny_recipe()
    assert info.contract == tiny_recipe().contract()
    assert (info.iteration, info.epoch, info.data_root, info.training_state) == (3, 1, "data", {"steps": 2})
    assert len(info.sha256) == 64
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    save_weights(path, {"a": torch.zeros(2)}, header())
    before = path.read_bytes()

    def full_disk(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("etnet.training.checkpoint.save_file", full_disk)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        save_weights(path, {"a": torch.ones(2)}, header())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_weights_without_training_state_cannot_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    network, optimizer = trained_pair(1)
    save_weights(path, network.state_dict(), header())
    with pytest.raises(ModelFileError, match="holds weights only"):
        restore_training(path, network, optimizer)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_weights(path, training_tensors(*trained_pair(1)), header())
    other = nn.Conv2d(3, 5, 3)
    with pytest.raises(ModelFileError, match="does not fit the recipe's network"):
        restore_training(path, other, torch.optim.Adam(other.parameters()))
