"""The network with its contract around it: from 8-bit RGB images to labels, edges and probabilities.

Written so that every exporter and runtime takes it: no transposition of 8-bit integers, 8-bit results by way of float,
and for two classes the difference of the logits in place of argmax and softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from etnet.inference.backends import NOT_FINITE

if TYPE_CHECKING:
    from etnet.models import SegmentationNetwork
    from etnet.types import Contract


_LARGEST = torch.finfo(torch.float32).max
"""Comparing with it is false for infinities and for NaN, by operators that every runtime has."""


class ContractNetwork(nn.Module):
    """Normalisation, network and what is made of its logits.

    Args:
        network: In evaluation mode; its parameters say in which precision it computes.
        contract: Mean and standard deviation, and the number of classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: SegmentationNetwork, contract: Contract) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype
        self.register_buffer("mean", torch.tensor(contract.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(contract.std, dtype=torch.float32).view(1, 3, 1, 1))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in their order."""
        return ("labels", "edges", "probabilities") if self.network.has_edges else ("labels", "probabilities")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Segment a batch.

        Args:
            image: RGB images [N, H, W, 3], uint8.

        Returns:
            `labels` uint8 [N, H, W], 255 where logits (also those of the edges) are not finite; `edges` uint8
            [N, H, W], the probability of a boundary times 255, where the network predicts edges; `probabilities`
            float32 [N, C, H, W].
        """
        normalised = (image.float().permute(0, 3, 1, 2) - self.mean) / self.std
        output = self.network(normalised.to(self.dtype))
        # What decides about a pixel is computed in float32 in every precision.
        labels, certain, probabilities = _classes(output.seg_logits.float())
        finite = certain.abs() <= _LARGEST
        if output.edge_logits is None:
            return _marked(labels, finite), probabilities
        edge_logits = output.edge_logits.float()
        edge_margin = edge_logits[:, 1] - edge_logits[:, 0]
        finite = finite & (edge_margin.abs() <= _LARGEST)
        edges = (torch.sigmoid(edge_margin) * 255).round().to(torch.uint8)
        return _marked(labels, finite), edges, probabilities


def _classes(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels [N, H, W] as floats, a number per pixel that is finite where all logits are, and probabilities."""
    if logits.shape[1] == 2:
        margin = logits[:, 1] - logits[:, 0]
        probabilities = torch.stack((torch.sigmoid(-margin), torch.sigmoid(margin)), dim=1)
        return (margin > 0).float(), margin, probabilities
    return logits.argmax(dim=1).float(), logits.sum(dim=1), torch.softmax(logits, dim=1)


def _marked(labels: Tensor, finite: Tensor) -> Tensor:
    # Without this, a network that diverged, or overflowed in half precision, would say "background".
    return torch.where(finite, labels, float(NOT_FINITE)).to(torch.uint8)


def fold_batch_norms(network: nn.Module, example: Tensor) -> None:
    """Move each batch normalisation into the convolution that feeds it, in place.

    Exporters fold most of them by themselves, but not all where sizes are free, and in the precision of the network:
    in half precision small variances would be lost.

    Args:
        network: In evaluation mode; computes the same afterwards.
        example: An input of the network; one run of it shows which convolution feeds which normalisation.
    """
    # Outputs are kept, so that no two of them share an address.
    convolved: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    names = {layer: name for name, layer in network.named_modules()}

    def remember(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            convolved[id(output)] = (layer, output)

    def match(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, nn.BatchNorm2d) and id(inputs[0]) in convolved:
            pairs.append((convolved[id(inputs[0])][0], layer))

    hooks = [layer.register_forward_hook(remember) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks += [
        layer.register_forward_pre_hook(match) for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        network(example)
        for hook in hooks:
            hook.remove()
        for convolution, norm in pairs:
            if norm.running_mean is not None and norm.running_var is not None:
                _fold(convolution, norm, norm.running_mean, norm.running_var)
                network.set_submodule(names[norm], _without_normalisation(norm))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        mean,
        variance,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def _without_normalisation(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a normalisation layer: nothing, or in timm's combined layer its activation."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
