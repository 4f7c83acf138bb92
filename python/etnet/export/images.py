"""The real images with which an export is calibrated and compared, and the size that they suggest for it.

A network with a region of interest is compared on such regions: cut at the true centre out of images with masks. Images
of a folder, which have no masks, are taken as regions that were cut already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from etnet.data.dataset import PairedFiles
from etnet.data.datasets import open_dataset
from etnet.data.io import read_image, read_size
from etnet.data.resize import resize_image, resize_mask
from etnet.data.roi import cut, cut_mask, true_center, window_around
from etnet.errors import DataError, EtnetError, UsageError
from etnet.inference.compare import ComparisonImage
from etnet.inference.inputs import find_inputs, is_medical
from etnet.inference.preprocess import plan, region_contract
from etnet.manifest import WeightsInfo
from etnet.types import Contract, RegionOfInterest, Sample

DEFAULT_SIZE = (512, 512)
MOST_IMAGES = 16
"""Images of a run that an export is compared on; more of them change the figures little and take minutes."""

LARGEST_SIDE = 65536


@dataclass(frozen=True)
class RunImages:
    """Images of a training run, with their masks.

    Attributes:
        kind: `validation`, or `training` where nothing was held out.
        dataset: The images.
    """

    kind: str
    dataset: PairedFiles


def open_run_images(info: WeightsInfo) -> RunImages:
    """The images that a network was validated on, or where there are none, trained on.

    Raises:
        DataError: The data folder is not where it was, or does not hold the data set any more.
    """
    root = Path(info.data_root)
    if not root.is_dir():
        raise DataError(f"{root}: the data that {info.path} was trained on is not there")
    trained = set(info.training_state.get("training_ids", ()))
    every = open_dataset(info.recipe.data, root, "all")
    held_out = [index for index, name in enumerate(every.ids) if name not in trained]
    # Weights that do not say what they were trained on were trained on what the recipe says.
    if not trained:
        part = open_dataset(info.recipe.data, root, "validation", seed=info.recipe.training.seed)
        return RunImages("validation", part) if len(part) else RunImages("training", every)
    return RunImages("validation", every.subset(held_out)) if held_out else RunImages("training", every)


def check_size(size: tuple[int, int], *, multiple: int, roi: RegionOfInterest | None = None) -> None:
    """Refuse a (height, width) that a network cannot take.

    Args:
        size: (height, width) wanted.
        multiple: Both must be multiples of this.
        roi: The network's region of interest, which has one size only.

    Raises:
        UsageError: Names the nearest size that it can take.
    """
    if roi is not None and size != (roi.size, roi.size):
        raise UsageError(
            f"size {size[0]}x{size[1]} (height x width): this network segments regions of interest at "
            f"{roi.size}x{roi.size}; leave --size out, or train with another data.roi.size"
        )
    if any(side < multiple or side % multiple or side > LARGEST_SIDE for side in size):
        fitting = [min(max(1, round(side / multiple)) * multiple, LARGEST_SIDE) for side in size]
        raise UsageError(
            f"size {size[0]}x{size[1]} (height x width): expected multiples of {multiple} up to {LARGEST_SIDE}, "
            f"for instance {fitting[0]}x{fitting[1]}"
        )


def suggest_size(info: WeightsInfo) -> tuple[tuple[int, int], str]:
    """The (height, width) to export for when the user names none, and the reason in a few words."""
    contract = info.contract
    if contract.roi is not None:
        return (contract.roi.size, contract.roi.size), "the size of the region of interest"
    if contract.image_size is not None:
        return plan(contract.image_size, contract).padded, "the size that the recipe resizes images to"
    try:
        images = open_run_images(info).dataset
        sizes = {plan(read_size(path), contract).padded for path in images.images}
    except EtnetError:
        return DEFAULT_SIZE, "the images of the run are not there"
    if len(sizes) == 1:
        return sizes.pop(), "the size of the run's images"
    return DEFAULT_SIZE, "the run's images have different sizes; --dynamic takes all of them"


def load_run_images(
    images: RunImages, contract: Contract, size: tuple[int, int] | None, *, ignore_index: int | None = None
) -> list[ComparisonImage]:
    """Up to `MOST_IMAGES` images of a run, evenly spread over it, with masks; see `fit_labelled`."""
    count = len(images.dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).round().astype(int))
    # One at a time: of photographs that are resized, only the small version stays in memory.
    samples = (images.dataset.load(int(index)) for index in chosen)
    return [fit_labelled(sample, contract, size, ignore_index=ignore_index) for sample in samples]


def fit_labelled(
    sample: Sample, contract: Contract, size: tuple[int, int] | None, *, ignore_index: int | None = None
) -> ComparisonImage:
    """A labelled image to compare on: its region of interest where the contract has one, else see `fit_fixed_size`.

    Args:
        sample: Image with its mask.
        contract: Size rules.
        size: Fixed (height, width) of the network; None where it takes all.
        ignore_index: Value of the mask without a label.

    Raises:
        DataError: The mask has nothing to centre the region of interest on.
    """
    center = true_center(sample, contract.roi, ignore_index=ignore_index)
    if contract.roi is None or center is None:
        return fit_fixed_size(ComparisonImage(sample.id, sample.image, sample.mask), contract, size)
    window, side = window_around(center, sample.mask.shape, contract.roi), contract.roi.size
    return ComparisonImage(sample.id, cut(sample.image, window, side), cut_mask(sample.mask, window, side))


def load_folder(folder: Path, contract: Contract, size: tuple[int, int] | None) -> list[ComparisonImage]:
    """All images of a folder, without masks; see `fit_fixed_size`. With a region of interest, each image is one.

    Raises:
        DataError: There is no image, or one of them cannot be read; it is named.
    """
    files: Sequence[Path] = [item.path for item in find_inputs(folder).items if not is_medical(item.path)]
    if not files:
        raise DataError(f"{folder}: holds medical files only; expected pictures, such as png or tif, to compare with")
    found = (ComparisonImage(path.stem, read_image(path, intensity_window=contract.intensity_window)) for path in files)
    return [fit_fixed_size(item, region_contract(contract), size) for item in found]


def fit_fixed_size(item: ComparisonImage, contract: Contract, size: tuple[int, int] | None) -> ComparisonImage:
    """Resize an image (and its mask) that a network of fixed size could not take; others stay as they are.

    Args:
        item: Image of any size.
        contract: Size rules.
        size: Fixed (height, width) of the network; None where it takes all.
    """
    if size is None or plan(item.image.shape[:2], contract).padded == size:
        return item
    mask = None if item.mask is None else resize_mask(item.mask, size)
    return replace(item, image=resize_image(item.image, size), mask=mask)
