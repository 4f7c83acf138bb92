"""Weights files for tests: a header alone for what only reads it, and a small untrained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from etnet.config.load import recipe_from_values
from etnet.config.schema import Recipe
from etnet.manifest import encode_header
from etnet.types import ImageStatistics, TrainingRange

if TYPE_CHECKING:
    import torch
    from torch import nn

    from etnet.models import SegmentationNetwork

TRAINING_RANGE = TrainingRange(
    ImageStatistics(0.1, 0.02, 0.3, 0.3, 0.1, -1.5), ImageStatistics(0.9, 0.5, 2.0, 0.6, 0.4, 1.5), 20
)
"""What the files of `write_confident` say about the images that they were not trained on."""


def small_recipe(**data: Any) -> Recipe:
    """A recipe of a small network without downloads; keywords replace values of its data section."""
    section = {"class_names": ["background", "vessel", "optic_disc"], **data}
    model = {"encoder": "test_resnet", "encoder_weights": "none", "decoder_channels": 16, "edge_channels": 8}
    return recipe_from_values({"name": "small", "data": section, "model": model}, "test recipe")


def write_header_only(path: Path, recipe: Recipe | None = None) -> Path:
    """A weights file with a header and no network, written without torch."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    header = encode_header(recipe=recipe or small_recipe(), iteration=1, epoch=1, data_root="data")
    save_file({"nothing": np.zeros(1, np.float32)}, path, metadata=header)
    return path


def write_untrained(path: Path, recipe: Recipe | None = None, *, seed: int = 0) -> Path:
    """A weights file with the randomly initialised network of the recipe."""
    import torch

    from etnet.models import build_model
    from etnet.training.checkpoint import save_weights

    recipe = recipe or small_recipe()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = build_model(recipe.model, len(recipe.data.class_names))
    save_weights(path, network.state_dict(), encode_header(recipe=recipe, iteration=1, epoch=1, data_root="data"))
    return path


def write_confident(path: Path, recipe: Recipe | None = None, *, seed: int = 0) -> Path:
    """A weights file of a random network as training would leave one, but for what it learned.

    Its batch normalisations have moved from their start, so that leaving them out shows, and its classes differ by more
    than rounding, so that two runtimes that compute the same give the same labels.
    """
    import torch
    from torch import nn

    from etnet.models import build_model
    from etnet.training.checkpoint import save_weights

    recipe = recipe or small_recipe()
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = build_model(recipe.model, len(recipe.data.class_names))
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3, generator=generator)
                layer.running_var.uniform_(0.5, 2.0, generator=generator)
                layer.weight.uniform_(0.7, 1.4, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
        _spread_classes(network, generator)
    header = encode_header(recipe=recipe, iteration=1, epoch=1, data_root="data", training_range=TRAINING_RANGE)
    save_weights(path, network.state_dict(), header)
    return path


def _spread_classes(network: SegmentationNetwork, generator: torch.Generator) -> None:
    """Every class somewhere: large weights, and each logit centred on what it is on the average of a smooth image."""
    import torch
    from torch import nn

    heads = classifiers(network)
    for head in heads:
        head.weight.normal_(0, 1.0, generator=generator)
    image = nn.functional.interpolate(torch.randn(2, 3, 6, 6, generator=generator), size=(64, 64), mode="bicubic")
    output = network.eval()(image)
    edges = [] if output.edge_logits is None else [output.edge_logits]
    for head, logits in zip(heads, [*(output.side_logits or [output.seg_logits]), *edges], strict=True):
        head.bias.sub_(logits.mean(dim=(0, 2, 3)))


def classifiers(network: SegmentationNetwork) -> list[nn.Conv2d]:
    """The last convolutions of a network: of the regions (of every side output, where there are any), of the edges."""
    from etnet.models.baselines.fcn import FCN
    from etnet.models.baselines.mnet import MNet
    from etnet.models.baselines.multi_task import MultiTask

    if isinstance(network, MNet):
        return list(network.classifiers)
    if isinstance(network, FCN):
        return [network.head[-1]]
    if isinstance(network, MultiTask):
        return [network.classifier, network.edge_classifier]
    if hasattr(network, "body"):
        return [network.body.segmentation_head[0]]
    return [network.classifier] + ([network.edge_guidance.classifier] if network.has_edges else [])
