from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from etnet.data.datasets import open_dataset
from etnet.data.loader import build_training_loader
from etnet.errors import UsageError
from etnet.manifest import read_weights_info
from etnet.training.distributed import ALONE, ProcessGroup, synchronize_batch_norm
from helpers.runs import TINY, network_in, tiny_recipe, tiny_run, write_disc_folder


def batches(data: Path, rank: int, world_size: int) -> list[tuple[str, ...]]:
    recipe = tiny_recipe("training.batch_size=4")
    dataset = open_dataset(recipe.data, data, "train")
    loader = build_training_loader(
        dataset, recipe, start_iteration=1, total_iterations=4, workers=0, rank=rank, world_size=world_size
    )
    return [batch.ids for batch in loader]


def test_the_processes_together_take_every_sample_of_every_batch_once(tmp_path: Path) -> None:
    data = write_disc_folder(tmp_path / "discs")
    whole = batches(data, 0, 1)
    halves = zip(batches(data, 0, 2), batches(data, 1, 2), strict=True)
    assert [first + second for first, second in halves] == whole


def test_a_batch_that_cannot_be_shared_names_one_that_can() -> None:
    assert ProcessGroup(0, 4).share_of(8) == 2
    with pytest.raises(UsageError, match="multiple of 4, for instance 8"):
        ProcessGroup(0, 4).share_of(10)
    assert ProcessGroup(0, 2).share_of(8, parts=4) == 4
    with pytest.raises(UsageError, match=r"compute theirs in 4 parts .*multiple of 8, for instance 8"):
        ProcessGroup(0, 2).share_of(12, parts=4)


def test_each_process_gets_its_own_gpu_unless_one_is_named() -> None:
    second = ProcessGroup(rank=1, world_size=2, local_rank=1)
    assert second.own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert second.own_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert second.own_device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.own_device(torch.device("cuda")) == torch.device("cuda")


def test_batch_norm_is_synchronized_on_gpus_and_keeps_its_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)))
    before = list(network.parameters())
    synchronize_batch_norm(network, ALONE, torch.device("cuda"))
    assert not [layer for layer in network.modules() if isinstance(layer, nn.SyncBatchNorm)]
    synchronize_batch_norm(network, ProcessGroup(0, 2), torch.device("cuda"))
    assert [layer for layer in network.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert all(one is other for one, other in zip(network.parameters(), before, strict=True))


def test_two_processes_train_one_run(tmp_path: Path) -> None:
    data = write_disc_folder(tmp_path / "discs")
    settings = [word for override in TINY for word in ("--set", override)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    result = subprocess.run(
        [*torchrun, "etnet", "train", "--recipe", "folder", "--data", data, *settings, "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Results: runs/train/folder") == 1
    assert [path.name for path in (tmp_path / "runs/train").iterdir()] == ["folder"]
    info = read_weights_info(tmp_path / "runs/train/folder/weights/last.safetensors")
    assert info.iteration == 12


def test_two_processes_with_two_parts_each_take_the_steps_of_one_with_four(tmp_path: Path) -> None:
    data = write_disc_folder(tmp_path / "discs")
    words = ("training.batch_size=4", "training.epochs=1", "data.validation_fraction=0", "training.ema_decay=0.9")
    settings = [word for override in (*TINY, *words, "training.accumulate=2") for word in ("--set", override)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    result = subprocess.run(
        [*torchrun, "etnet", "train", "--recipe", "folder", "--data", data, *settings, "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    together = parameters_in(tmp_path / "runs/train/folder")
    tiny_run(tiny_recipe(*words, "training.accumulate=4"), data, tmp_path / "alone")
    tiny_run(tiny_recipe(*words, "training.accumulate=2"), data, tmp_path / "larger parts")
    alone, other = parameters_in(tmp_path / "alone"), parameters_in(tmp_path / "larger parts")
    assert torch.dist(together, alone) < 1e-2 * torch.dist(other, alone)


def parameters_in(run: Path) -> torch.Tensor:
    """All that is trained, in a row; running statistics are left out, which each process takes of its own part."""
    tensors = network_in(load_file(run / "weights/last.safetensors"), "training/network/")
    kept = [name for name in sorted(tensors) if "running_" not in name and "num_batches" not in name]
    return torch.cat([tensors[name].flatten().double() for name in kept])
