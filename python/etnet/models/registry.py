"""The networks by the name that a recipe gives them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etnet.config.networks import NETWORKS, unknown_network
from etnet.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from etnet.config.schema import ModelSection
    from etnet.models.network import SegmentationNetwork

PACKAGES = {"baselines": "segmentation_models_pytorch"}
"""The module that an extra brings for networks."""


@dataclass(frozen=True)
class ModelEntry:
    """How a network is made.

    Attributes:
        build: Makes it with random weights from the `model` part of a recipe and the number of classes.
        description: One line for users.
        extra: The extra of etnet that it needs beside `train`, or None.
    """

    build: Callable[[ModelSection, int], SegmentationNetwork]
    description: str
    extra: str | None


def build_model(section: ModelSection, num_classes: int) -> SegmentationNetwork:
    """Make the network of a recipe with random weights; see `load_encoder_weights` for `encoder_weights`.

    Args:
        section: `model` part of a recipe.
        num_classes: Classes, background included.

    Returns:
        The network in training mode on the CPU.

    Raises:
        UsageError: There is no network of this name, or its encoder does not exist or does not fit.
        EnvironmentFault: The package that the network comes from is not installed.
    """
    entry = MODELS.get(section.name)
    if entry is None:
        raise UsageError(f"model.name is {section.name!r}; {unknown_network(section.name)}")
    if entry.extra is not None and importlib.util.find_spec(PACKAGES[entry.extra]) is None:
        raise EnvironmentFault(
            f"model.name={section.name} needs {PACKAGES[entry.extra]}, which this machine lacks; install it with: "
            f"pip install 'etnet[{entry.extra}]'"
        )
    return entry.build(section, num_classes)


def _etnet(section: ModelSection, num_classes: int) -> SegmentationNetwork:
    from etnet.models.etnet import ETNet

    return ETNet(
        num_classes,
        encoder=section.encoder,
        decoder_channels=section.decoder_channels,
        edge_channels=section.edge_channels,
        use_egm=section.use_egm,
        use_wam=section.use_wam,
        high_resolution=section.high_resolution,
    )


def _fcn(section: ModelSection, num_classes: int) -> SegmentationNetwork:
    from etnet.models.baselines.fcn import FCN

    return FCN(num_classes, encoder=section.encoder)


def _mnet(section: ModelSection, num_classes: int) -> SegmentationNetwork:
    from etnet.models.baselines.mnet import MNet

    return MNet(num_classes, polar=section.polar)


def _multi_task(section: ModelSection, num_classes: int) -> SegmentationNetwork:
    from etnet.models.baselines.multi_task import MultiTask

    return MultiTask(num_classes, encoder=section.encoder, decoder_channels=section.decoder_channels)


def _from_library(section: ModelSection, num_classes: int) -> SegmentationNetwork:
    from etnet.models.baselines.library import LibraryNetwork

    return LibraryNetwork(section.name, num_classes, encoder=section.encoder)


_OWN = {"etnet": _etnet, "fcn": _fcn, "mnet": _mnet, "multi_task": _multi_task}

MODELS: dict[str, ModelEntry] = {
    name: ModelEntry(_OWN.get(name, _from_library), traits.description, traits.extra)
    for name, traits in NETWORKS.items()
}
"""Every network that `model.name` can ask for; `NETWORKS` holds what recipes know of them."""
