"""A model folder of nnU-Net v2 with random weights, written by nnU-Net itself, whose network costs what it is told to.

nnU-Net takes the fingerprint of a raw data set, plans its 2D configuration and builds its trainer; only the numbers of
features are ours, and the weights are saved before the first step.
"""

from __future__ import annotations

import os
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from etnet.data.dataset import SegmentationDataset
from etnet.data.io import write_png

DATASET = "Dataset001_Pictures"
CONFIGURATION = "2d"
MOST_FEATURES = 512
"""Of a stage, as nnU-Net limits them in 2D."""


@dataclass(frozen=True)
class PlannedModel:
    """What was made.

    Attributes:
        folder: For `nnUNetv2_predict_from_modelfolder -m`.
        network: Class and features.
        parameters: Millions.
        gmacs: Thousand millions of multiplications for one image of the counted size.
        patch: (height, width) of what goes through the network at once.
    """

    folder: Path
    network: str
    parameters: float
    gmacs: float
    patch: tuple[int, int]


def plan_model(dataset: SegmentationDataset, scratch: Path, *, gmacs: float, size: int) -> PlannedModel:
    """Plan for a data set and write the model folder.

    Args:
        dataset: Its images and masks are what nnU-Net plans by.
        scratch: Folder for nnU-Net's three folders.
        gmacs: What the network is meant to cost for an image of `size` x `size`; the nearest number of features is
            taken.
        size: A multiple of 128.
    """
    folders = {name: scratch / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        os.environ[name] = str(folder)
    # nnU-Net reads these names when it is imported.
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning

    write_raw(dataset, folders["nnUNet_raw"] / DATASET)
    with redirect_stdout(StringIO()):
        planning.extract_fingerprint_dataset(1, num_processes=1, verbose=False, show_progress_bar=False)
        plans, _ = planning.plan_experiment_dataset(1)
        plans = with_features(plans, dataset_json(len(dataset)), gmacs=gmacs, size=size)
        return save(plans, dataset_json(len(dataset)), folders["nnUNet_preprocessed"] / DATASET, size=size)


def dataset_json(count: int) -> dict[str, Any]:
    """What nnU-Net wants to know of RGB pictures with one foreground class."""
    return {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "vessel": 1},
        "numTraining": count,
        "file_ending": ".png",
    }


def write_raw(dataset: SegmentationDataset, folder: Path) -> None:
    """A data set in nnU-Net's layout."""
    from batchgenerators.utilities.file_and_folder_operations import save_json

    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    save_json(dataset_json(len(dataset)), str(folder / "dataset.json"))
    for index in range(len(dataset)):
        sample = dataset.load(index)
        write_png(folder / "imagesTr" / f"{index:03d}_0000.png", sample.image)
        write_png(folder / "labelsTr" / f"{index:03d}.png", sample.mask)


def with_features(plans: dict[str, Any], described: dict[str, Any], *, gmacs: float, size: int) -> dict[str, Any]:
    """Plans whose network costs about so many GMACs: each stage has twice the features of the one before."""
    architecture = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    stages = len(architecture["features_per_stage"])

    def cost(first: int) -> float:
        architecture["features_per_stage"] = [min(first * 2**stage, MOST_FEATURES) for stage in range(stages)]
        with torch.device("meta"):
            return cost_of(build(plans, described), size)

    # The cost grows with the features: halve the range that holds the wanted one.
    low, high = 1, 128
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= gmacs else (low, middle)
    cost(min((low, high), key=lambda first: abs(cost(first) - gmacs)))
    return plans


def build(plans: dict[str, Any], described: dict[str, Any]) -> nn.Module:
    """The network of the plans, as nnU-Net builds it for predictions."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    heads = manager.get_label_manager(described).num_segmentation_heads
    network: nn.Module = nnUNetTrainer.build_network_architecture(
        manager, configuration, len(described["channel_names"]), heads, enable_deep_supervision=False
    )
    return network


def cost_of(network: nn.Module, size: int) -> float:
    """GMACs of one image of `size` x `size`."""
    # On the device `meta` nothing is computed.
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval().to("meta")(torch.zeros(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2e9


def save(plans: dict[str, Any], described: dict[str, Any], preprocessed: Path, *, size: int) -> PlannedModel:
    """Write plans.json, dataset.json and fold_0/checkpoint_final.pth as at the end of a training."""
    from batchgenerators.utilities.file_and_folder_operations import save_json
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    gmacs = cost_of(build(plans, described), size)
    torch.manual_seed(0)
    network = build(plans, described)
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    architecture = plans["configurations"][CONFIGURATION]["architecture"]
    name = architecture["network_class_name"].rsplit(".", 1)[-1]
    trainer = nnUNetTrainer(
        {**plans, "continue_training": False}, CONFIGURATION, 0, described, device=torch.device("cpu")
    )
    # What `initialize` does beside this needs the preprocessed images, which only a training reads.
    trainer.network = network
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    folder = Path(trainer.output_folder_base)
    save_json(plans, str(folder / "plans.json"), sort_keys=False)
    save_json(described, str(folder / "dataset.json"), sort_keys=False)
    shutil.copyfile(preprocessed / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    height, width = plans["configurations"][CONFIGURATION]["patch_size"]
    features = "-".join(map(str, architecture["arch_kwargs"]["features_per_stage"]))
    return PlannedModel(folder, f"{name} {features}", parameters, gmacs, (int(height), int(width)))
