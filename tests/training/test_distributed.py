from __future__ import annotations

import copy
import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.data.loader import build_training_loader
from etnet.errors import UsageError
from etnet.manifest import read_weights_info
from etnet.training import trainer
from etnet.training.distributed import ALONE, PATIENCE, ProcessGroup, synchronize_batch_norm
from etnet.training.synchronized_norm import SynchronizedBatchNorm
from etnet.training.tracking import SilentObserver
from etnet.training.trainer import TrainingRun
from helpers.float64_run import losses_in_float64
from helpers.runs import TINY, forget_training_range, tiny_recipe, tiny_run, write_disc_folder
from helpers.torchrun import TESTS, run_together, train_words


def batches(data: Path, rank: int, world_size: int, *overrides: str) -> list[tuple[str, ...]]:
    recipe = tiny_recipe("training.batch_size=4", *overrides)
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


def test_the_parts_of_a_batch_are_those_of_one_process(tmp_path: Path) -> None:
    data = write_disc_folder(tmp_path / "discs")
    (a, b, c, d), *_ = batches(data, 0, 1)
    parts = "training.accumulate=2"
    assert [batches(data, rank, 2, parts)[0] for rank in (0, 1)] == [(a, c), (b, d)]


def test_a_batch_that_cannot_be_shared_names_one_that_can() -> None:
    assert ProcessGroup(0, 4).share_of(8) == 2
    with pytest.raises(UsageError, match="multiple of 4, for instance 8"):
        ProcessGroup(0, 4).share_of(10)
    assert ProcessGroup(0, 2).share_of(8, parts=4) == 4
    with pytest.raises(UsageError, match=r"compute theirs in 4 parts .*multiple of 8, for instance 8"):
        ProcessGroup(0, 2).share_of(12, parts=4)


def test_processes_add_up_compare_and_agree(two_processes) -> None:
    for results in two_processes:
        found = results["exchange"]
        assert torch.equal(found.pop("weight"), torch.ones(2, 2))
        assert found == {
            "total": [[2**54 + 1, 1]],  # a float64 would have lost the 1
            "largest": 15,
            "mean": [1.5],
            "any": (True, False),
            "choice": (Path("chosen"), True),
            "patience": PATIENCE,
            "met": (None, 2),
        }


class WaitingGroup(ProcessGroup):
    """One of two processes, without the other; notes how far the run's folder is whenever all would wait."""

    def __init__(self, rank: int, run: Path) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "picture", run / "training_samples.png")

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        return network

    def start_alike(self, network: nn.Module) -> None: ...

    def wait(self) -> None:
        self.seen.append(self.picture.exists())


@pytest.mark.parametrize("rank", [0, 1])
def test_all_wait_until_the_first_has_described_the_run(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = write_disc_folder(tmp_path / "discs"), tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=1"), data, run)
    forget_training_range(run / "weights" / "last.safetensors")
    (run / "training_samples.png").unlink()
    group = WaitingGroup(rank, run)
    job = TrainingRun(
        tiny_recipe(), data_root=data, run=run, device=torch.device("cpu"), observer=SilentObserver(), group=group
    )
    job.start_anew()
    assert group.seen == [rank == 0]
    monkeypatch.setattr(trainer, "measure_training_range", lambda dataset: group.seen.append("measured"))
    job.restore()
    assert group.seen[1:] == (["measured", True] if rank == 0 else [False])


def test_each_process_gets_its_own_gpu_unless_one_is_named() -> None:
    second = ProcessGroup(rank=1, world_size=2, local_rank=1)
    assert second.own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert second.own_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert second.own_device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.own_device(torch.device("cuda")) == torch.device("cuda")


def test_batch_norm_is_synchronized_and_keeps_its_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)))
    before = list(network.parameters())
    synchronize_batch_norm(network, ALONE, torch.device("cuda"))
    synchronize_batch_norm(network, ALONE, torch.device("cpu"))
    assert [type(layer) for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)] == [nn.BatchNorm2d]
    on_cpu = copy.deepcopy(network)
    synchronize_batch_norm(on_cpu, ProcessGroup(0, 2), torch.device("cpu"))
    assert [layer for layer in on_cpu.modules() if isinstance(layer, SynchronizedBatchNorm)]
    synchronize_batch_norm(network, ProcessGroup(0, 2), torch.device("cuda"))
    assert [layer for layer in network.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert all(one is other for one, other in zip(network.parameters(), before, strict=True))


WORDS = (*TINY, "training.batch_size=4", "training.ema_decay=0.9", "data.validation_fraction=0.4")
"""Three images are held out, which two processes cannot share evenly."""


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """A folder in which two processes have trained a run on the images in `discs`."""
    folder = tmp_path_factory.mktemp("together")
    write_disc_folder(folder / "discs")
    result = run_together(*train_words(Path("discs"), WORDS), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Results: runs/train/folder") == 1
    return folder


def test_two_processes_write_one_run(together: Path) -> None:
    assert [path.name for path in (together / "runs/train").iterdir()] == ["folder"]
    info = read_weights_info(together / "runs/train/folder/weights/last.safetensors")
    assert info.iteration == 5


def test_two_processes_have_the_losses_and_scores_of_one(together: Path, tmp_path: Path) -> None:
    tiny_run(load_recipe("folder", WORDS), together / "discs", tmp_path)
    ours, alone = (rows_of(run) for run in (together / "runs/train/folder", tmp_path))
    assert len(ours) == len(alone) == 4
    compared = [column for column in alone[0] if column != "images_per_second"]
    assert {"loss", "seg_loss", "edge_loss", "validation_mean_foreground_dice"} <= set(compared)
    for mine, expected in zip(ours, alone, strict=True):
        assert {column: mine[column] for column in compared} == pytest.approx(
            {column: expected[column] for column in compared}, abs=1e-4
        )


def test_two_processes_have_the_weights_and_statistics_of_one(together: Path, tmp_path: Path) -> None:
    tiny_run(load_recipe("folder", WORDS), together / "discs", tmp_path)
    other = tmp_path / "other batches"
    tiny_run(load_recipe("folder", [*WORDS, "training.accumulate=2"]), together / "discs", other)
    ours, alone, parts = (everything_in(run) for run in (together / "runs/train/folder", tmp_path, other))
    assert torch.dist(ours, alone) < 1e-2 * torch.dist(parts, alone)


def test_in_double_precision_the_losses_of_two_processes_are_those_of_one(together: Path, tmp_path: Path) -> None:
    words, discs = (*WORDS, "training.epochs=8"), together / "discs"
    script = TESTS / "helpers" / "float64_run.py"
    result = run_together(script, discs, tmp_path / "two", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    ours = [float(line) for line in (tmp_path / "two.losses").read_text().splitlines()]
    alone = losses_in_float64(words, discs, tmp_path / "one")
    assert len(alone) == 16
    assert ours == pytest.approx(alone, abs=1e-7)
    one, two = (everything_in(tmp_path / name) for name in ("one", "two"))
    assert torch.dist(one, two) < 1e-9 * torch.linalg.norm(one)


def test_what_all_processes_find_wrong_is_said_once(tmp_path: Path) -> None:
    result = run_together(*train_words(Path("nowhere"), TINY), cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count("Error: nowhere: no such folder") == 1
    # The only traceback is that of torchrun itself, with our sentence as the cause.
    assert result.stderr.count("Traceback") == 1
    assert "traceback : nowhere: no such folder" in result.stderr
    assert not (tmp_path / "runs/train/folder").exists()


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]


def everything_in(run: Path) -> torch.Tensor:
    """Trained and averaged weights and running statistics, in a row."""
    tensors = load_file(run / "weights/last.safetensors")
    kept = [name for name in sorted(tensors) if "optimizer" not in name and "rng" not in name]
    return torch.cat([tensors[name].flatten().double() for name in kept])
