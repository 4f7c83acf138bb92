"""What two processes compute together, written to the folder given; the tests compare it with one process's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from etnet.losses import EdgeSupervisedLoss
from etnet.training.distributed import ProcessGroup, joined_processes
from etnet.training.synchronized_norm import convert_batch_norm
from etnet.training.whole_batch import WholeOutput, whole_batch

CPU = torch.device("cpu")


def norm_layer(kind: str) -> nn.Module:
    """A layer whose weights and statistics are not those of the start."""
    layer = nn.BatchNorm2d(5) if kind == "plain" else BatchNormAct2d(5)
    generator = torch.Generator().manual_seed(1)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        tensor.data.copy_(torch.rand(5, generator=generator) + 0.5)
    return layer


def norm_input() -> tuple[Tensor, Tensor]:
    """Activations about 3, [6, 5, 7, 9], and the gradient of what the layer makes of them."""
    generator = torch.Generator().manual_seed(2)
    x = 3 + torch.randn(6, 5, 7, 9, generator=generator) * torch.arange(1, 6).view(1, 5, 1, 1)
    gradient = torch.randn(6, 5, 7, 9, generator=generator)
    return x.to(memory_format=torch.channels_last), gradient


def through_norm(layer: nn.Module, part: slice, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Output, gradients and statistics of a layer on part of the input."""
    x, gradient = norm_input()
    x = x[part].to(dtype).detach().requires_grad_()
    out = layer(x)
    out.backward(gradient[part].to(dtype))
    return {
        "out": out.detach(),
        "x": x.grad,
        "weight": layer.weight.grad,
        "bias": layer.bias.grad,
        "mean": layer.running_mean,
        "variance": layer.running_var,
        "batches": layer.num_batches_tracked,
    }


def loss_of(part: slice | None, **options: object) -> dict[str, Tensor]:
    """Loss terms of a batch of four, and the gradients of the logits; with a part, through `whole_batch`."""
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(4, classes, 6, 6, generator=generator) for classes in (3, 2, 3)]
    masks = torch.randint(3, (4, 6, 6), generator=generator)
    edges = torch.randint(2, (4, 6, 6), generator=generator)
    masks[3], edges[3] = 255, 255
    own = [tensor[part if part is not None else slice(None)].clone().requires_grad_() for tensor in logits]
    output = WholeOutput(own[0], own[1], [own[2]])
    if part is not None:
        output, masks, edges = whole_batch(output, masks[part], edges[part])
    terms = EdgeSupervisedLoss(ignore_index=255, **options)(output, masks, edges)
    terms.total.backward()
    return {"terms": torch.stack(list(terms)).detach(), **{f"grad{i}": t.grad for i, t in enumerate(own)}}


LOSSES = {"batch": {}, "images": {"per_image": True, "cross_entropy": 0.5}}


def exchange(group: ProcessGroup) -> dict[str, object]:
    """Numbers that the processes add up, compare and hand on."""
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, group.rank + 1.0)
    group.start_alike(network)
    return {
        "total": group.total(np.array([[2**53 + group.rank, group.rank]]), CPU).tolist(),
        "largest": group.largest(15 * group.rank, CPU),
        "mean": group.mean(torch.tensor([1.0 + group.rank])).tolist(),
        "any": (group.any_of(group.rank == 1, CPU), group.any_of(False, CPU)),
        "choice": group.agree_on((Path("chosen"), True) if group.is_main else (None, False)),
        "weight": network.weight.detach(),
        "patience": group.hosts._get_backend(CPU).options._timeout,
        "met": (group.wait(), group.hosts.size()),
    }


def main() -> None:
    torch.set_num_threads(1)
    with joined_processes() as group:
        halves = slice(3 * group.rank, 3 * group.rank + 3)
        uneven = slice(0, 1) if group.rank == 0 else slice(1, 6)
        results = {
            "norm/plain": through_norm(convert_batch_norm(norm_layer("plain")), halves),
            "norm/timm": through_norm(convert_batch_norm(norm_layer("timm")), uneven),
            "norm/float64": through_norm(convert_batch_norm(norm_layer("plain").double()), uneven, torch.float64),
            "norm/bfloat16": through_norm(convert_batch_norm(norm_layer("plain")), halves, torch.bfloat16),
            "exchange": exchange(group),
        }
        for name, options in LOSSES.items():
            results[f"loss/{name}"] = loss_of(slice(2 * group.rank, 2 * group.rank + 2), **options)
        torch.save(results, Path(sys.argv[1]) / f"{group.rank}.pt")


if __name__ == "__main__":
    main()
