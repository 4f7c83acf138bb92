"""The optimizer of a recipe (paper Sec. 2.3: Adam)."""

from __future__ import annotations

import torch
from torch import nn

from etnet.config.schema import OptimizerSection


def build_optimizer(network: nn.Module, section: OptimizerSection) -> torch.optim.Adam:
    """Adam over the parameters of a network that is on its device already.

    It is the fused one: one pass over all parameters instead of a dozen. On CUDA it can leave out a step at the word of
    a number on the device, which `Stepper` needs.

    Args:
        network: Its parameters are trained.
        section: Rate, moments, decay.
    """
    return torch.optim.Adam(
        network.parameters(),
        lr=section.base_lr,
        betas=(section.beta1, section.beta2),
        weight_decay=section.weight_decay,
        fused=True,
    )
