"""The optimizer of a recipe (paper Sec. 2.3: Adam)."""

from __future__ import annotations

import torch
from torch import nn

from etnet.config.schema import OptimizerSection


def build_optimizer(network: nn.Module, section: OptimizerSection, device: torch.device) -> torch.optim.Adam:
    """Adam over the parameters of a network that is on its device already.

    On CUDA it is the fused one: a few kernels instead of a dozen passes over all parameters, and it can leave out a
    step at the word of a number on the device, which `Stepper` needs. On a CPU it stays the one in several passes:
    there the fused one rounds in another order, so that the figures of runs on a CPU would no longer be repeated.

    Args:
        network: Its parameters are trained.
        section: Rate, moments, decay.
        device: Where the parameters are.
    """
    return torch.optim.Adam(
        network.parameters(),
        lr=section.base_lr,
        betas=(section.beta1, section.beta2),
        weight_decay=section.weight_decay,
        fused=True if device.type == "cuda" else None,
    )
