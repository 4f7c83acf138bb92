"""Training in several processes, one per GPU, as `torchrun` starts them (paper Sec. 2.3).

    torchrun --nproc-per-node 4 -m etnet train --recipe drive --data DRIVE/

The batch size of the recipe is the batch of all processes together; each takes an equal part of every batch. The first
process writes everything and validates. What this leaves out: elastic restarts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from etnet.errors import UsageError


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which is also the number of its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, validates and talks."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no others, so that nothing need be exchanged."""
        return self.world_size == 1

    def own_device(self, device: torch.device) -> torch.device:
        """The GPU of this process, where a GPU was asked for without a number."""
        if str(device) == "cuda" and not self.is_alone:
            return torch.device("cuda", self.local_rank)
        return device

    def share_of(self, batch_size: int, *, parts: int = 1) -> int:
        """Samples of each batch that this process takes.

        Args:
            batch_size: Samples of all processes together.
            parts: In how many parts each process computes its own.

        Raises:
            UsageError: The batch does not divide evenly.
        """
        shares = self.world_size * parts
        if batch_size % shares:
            each = "" if parts == 1 else f" that compute theirs in {parts} parts (training.accumulate)"
            raise UsageError(
                f"training.batch_size is {batch_size}, shared by {self.world_size} processes{each}; expected a "
                f"multiple of {shares}, for instance {max(1, batch_size // shares) * shares}"
            )
        return batch_size // self.world_size

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over all processes."""
        if self.is_alone:
            return network
        return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a tensor over all processes."""
        if not self.is_alone:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def any_of(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in one of the processes."""
        if self.is_alone:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if not self.is_alone:
            dist.barrier()

    def agree_on(self, folder: Path | None) -> Path:
        """The folder that the main process chose, in every process."""
        if self.is_alone and folder is not None:
            return folder
        choice = [folder]
        dist.broadcast_object_list(choice)
        if choice[0] is None:
            raise AssertionError("the main process names the folder")
        return choice[0]


ALONE = ProcessGroup()
"""The group of a single process."""


@contextmanager
def joined_processes() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, or be alone where it did not."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ALONE
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield ProcessGroup(int(os.environ["RANK"]), world_size, local_rank)
    finally:
        dist.destroy_process_group()


def synchronize_batch_norm(network: nn.Module, group: ProcessGroup, device: torch.device) -> None:
    """Make batch normalization count the pixels of all processes (paper Sec. 2.3); parameters stay the same objects.

    Deviation: torch synchronizes batch normalization on GPUs only; on CPUs each process normalizes its own part.
    timm's conversion is used because torch's would drop the activations that timm fuses into its layers.
    """
    if group.is_alone or device.type != "cuda":
        return
    for name, child in list(network.named_children()):
        setattr(network, name, convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
