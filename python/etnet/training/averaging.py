"""The exponential moving average of a network's weights, which scores better than the weights of any single step."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from etnet.models import SegmentationNetwork

_RAMP = 9


def decay_of(step: int, *, decay: float) -> float:
    """Share of the old average that stays at a step: `decay`, but no more than step / (step + 9).

    So the first step sets the average, early ones soon leave it, and a run of fewer steps than 1 / (1 - decay) is
    averaged over about its last tenth.

    Args:
        step: Steps that the average holds already, from 0.
        decay: Share after many steps, 0 < decay < 1.

    >>> [round(decay_of(step, decay=0.99), 2) for step in (0, 1, 9, 91, 10_000)]
    [0.0, 0.1, 0.5, 0.91, 0.99]
    """
    return min(decay, step / (step + _RAMP))


class WeightAverage:
    """A second network that follows the trained one: average = d * average + (1 - d) * weights after every step.

    Running means and variances of batch normalization are averaged like the weights, so that they belong to the same
    steps: those of the last step alone describe activations that the averaged weights do not produce. Counters are
    taken over. What this leaves out: measuring the statistics anew with the averaged weights, which would cost a pass
    over the images before every validation.

    Attributes:
        network: The averaged network, on the device and in the memory layout of the trained one.
    """

    def __init__(self, network: SegmentationNetwork, *, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: SegmentationNetwork, *, step: int) -> None:
        """Take in the weights after a step.

        Args:
            network: The trained network.
            step: Steps before this one, from 0; it alone says how much the step counts, so that a resumed run goes on
                exactly.
        """
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        mine, theirs = map(list, zip(*averaged, strict=True))
        get_ema_multi_avg_fn(decay_of(step, decay=self._decay))(mine, theirs, step)
        for counter, current in pairs:
            if not counter.is_floating_point():
                counter.copy_(current)


def _tensors(network: SegmentationNetwork) -> chain[torch.Tensor]:
    return chain(network.parameters(), network.buffers())
