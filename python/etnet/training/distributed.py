"""Training in several processes, one per GPU, as `torchrun` starts them (paper Sec. 2.3).

    torchrun --nproc-per-node 4 -m etnet train --recipe drive --data DRIVE/

The batch size of the recipe is the batch of all processes together; each takes an equal part of every batch. Batch
normalization counts the pixels of all parts and the loss is that of the whole batch, so that the run is the one that a
single process would make, up to rounding. The first process writes everything; all share the held-out images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from etnet.errors import EnvironmentFault, UsageError
from etnet.training.launch import leave_the_telling_to_another, restarts
from etnet.training.synchronized_norm import convert_batch_norm

PATIENCE = timedelta(hours=6)
"""How long processes wait for what one of them does alone. The exchanges of GPUs give up after ten minutes, in which a
slow disk may not hand out the images that are measured at the start. One that has died is noticed at once."""

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which is also the number of its GPU.
        hosts: The same processes, meeting on their processors with `PATIENCE`; None where they have not met.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    hosts: dist.ProcessGroup | None = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
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

    def start_alike(self, network: nn.Module) -> None:
        """Give every process the weights and statistics of the first: files may differ from machine to machine."""
        if not self.is_alone:
            for tensor in network.state_dict().values():
                plain = tensor.contiguous()  # channels-last memory cannot be sent by all back-ends
                dist.broadcast(plain, 0)
                tensor.copy_(plain)

    def total(self, counts: npt.NDArray[np.int64], device: torch.device) -> npt.NDArray[np.int64]:
        """Sum of whole numbers over all processes, exact."""
        if self.is_alone:
            return counts
        tensor = torch.from_numpy(counts).to(device)
        dist.all_reduce(tensor)
        return np.asarray(tensor.cpu().numpy(), np.int64)

    def largest(self, number: int, device: torch.device) -> int:
        """The largest of a number that each process has."""
        if self.is_alone:
            return number
        tensor = torch.tensor(number, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

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
        """Go on when all processes are here, however long one of them works before."""
        if not self.is_alone:
            dist.barrier(self.hosts)

    def agree_on(self, choice: _Choice) -> _Choice:
        """What the main process chose, in every process."""
        if self.is_alone:
            return choice
        choices = [choice]
        dist.broadcast_object_list(choices)
        return choices[0]


ALONE = ProcessGroup()
"""The group of a single process."""


@contextmanager
def joined_processes() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, or be alone where nothing did.

    When they fail, one of them goes on to say why, and the others end without a word.

    Raises:
        EnvironmentFault: Another process was lost, or cannot be reached.
    """
    if dist.is_available() and dist.is_initialized():
        # By Ray Train, for instance, whose business their end is too.
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), local_rank, _hosts())
        return
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ALONE
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    group = ProcessGroup(int(os.environ["RANK"]), world_size, local_rank)
    try:
        _meet(group)
        yield replace(group, hosts=_hosts())
    except Exception as error:
        # Told before the others can notice that this process is gone. The group is not taken down here: that may wait
        # for them.
        told = _lost(group, error) if _is_about_others(error) else error
        leave_the_telling_to_another(str(told), exit_code=getattr(told, "exit_code", 1))
        if told is error:
            raise
        raise told from error
    dist.destroy_process_group()


def _meet(group: ProcessGroup) -> None:
    # torchrun keeps its store from one start of the processes to the next. Without names of their own, those that are
    # started again would read the addresses of those that died.
    store, _, _ = next(rendezvous("env://"))
    names = f"etnet/{restarts()}/{group.world_size}"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore(names, store),
        rank=group.rank,
        world_size=group.world_size,
    )


def _hosts() -> dist.ProcessGroup:
    hosts = dist.new_group(backend="gloo", timeout=PATIENCE)
    if isinstance(hosts, int):
        raise AssertionError("a group without a list of its members has all of them")
    return hosts


def _is_about_others(error: Exception) -> bool:
    """Whether an exchange with the other processes failed; gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and any(word in str(error) for word in ("gloo", "Connection closed by peer", "Connection reset by peer"))
    )


def _lost(group: ProcessGroup, error: Exception) -> EnvironmentFault:
    reason = str(error).strip().splitlines()[0]
    return EnvironmentFault(
        f"process {group.rank} of {group.world_size} lost the others ({reason}); look for what ended one of them, such "
        "as too little memory, and continue with --resume, or let torchrun --max-restarts start all of them again"
    )


def synchronize_batch_norm(network: nn.Module, group: ProcessGroup, device: torch.device) -> None:
    """Make batch normalization count the pixels of all processes (paper Sec. 2.3); parameters stay the same objects.

    On GPUs with torch's layer. timm's conversion is used because torch's would drop the activations that timm fuses
    into its layers. Torch's layer refuses the CPU, so there ours is used.
    """
    if group.is_alone:
        return
    if device.type != "cuda":
        convert_batch_norm(network)
        return
    for name, child in list(network.named_children()):
        setattr(network, name, convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
