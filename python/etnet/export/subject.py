"""What a benchmark runs on: a model, the images with which it is scored and timed, and their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from etnet.data.datasets import open_dataset
from etnet.errors import DataError, UsageError
from etnet.export.images import (
    RunImages,
    check_size,
    fit_labelled,
    load_folder,
    load_run_images,
    open_run_images,
    suggest_size,
)
from etnet.inference.compare import ComparisonImage
from etnet.manifest import WeightsInfo, read_weights_info
from etnet.sidecar import Sidecar
from etnet.types import Contract, UInt8Array

Split = Literal["train", "validation", "test", "all"]

NOISE_SIZE = (512, 512)


@dataclass(frozen=True)
class Subject:
    """A model with images for it.

    Attributes:
        contract: Classes and image preparation.
        size: (height, width) of the network's input; None for a model that takes all.
        images: At least one; the model takes all of them.
        origin: Where they come from, in a few words; None for noise.
        without_images: Why there is only noise.
        ignore_index: Value of the masks without a label.
        calibration: Images from which int8 takes its number ranges.
    """

    contract: Contract
    size: tuple[int, int] | None
    images: Sequence[ComparisonImage]
    origin: str | None
    without_images: str = ""
    ignore_index: int | None = None
    calibration: Sequence[UInt8Array] = ()


def open_subject(path: Path, *, data: Path | None, split: str, size: tuple[int, int] | None) -> Subject:
    """Find out what a model takes and load images for it.

    Args:
        path: Weights, an ONNX file or an engine.
        data: Data set in the layout of the weights' recipe; for the other kinds of file a folder of images.
        split: Part of the data set.
        size: (height, width) wanted; None takes the size of an ONNX file or engine, and for weights the one that
            `etnet export` would.

    Raises:
        ModelFileError: The model is damaged or not of etnet.
        DataError: `data` was named and cannot be used.
        UsageError: The size is not that of the file, or none that a network can take.
    """
    if path.suffix.lower() in (".onnx", ".engine", ".plan"):
        return _deployed_subject(path, data, size)
    info = read_weights_info(path)
    if size is not None:
        check_size(size, multiple=info.contract.size_multiple, roi=info.contract.roi)
    chosen = size or suggest_size(info)[0]
    images, origin, reason = _images(info, data, cast("Split", split), chosen)
    return Subject(
        info.contract,
        chosen,
        images or [_noise(chosen)],
        origin,
        reason,
        info.recipe.data.ignore_index,
        _calibration(info, chosen) or [item.image for item in images],
    )


def _images(
    info: WeightsInfo, data: Path | None, split: Split, size: tuple[int, int]
) -> tuple[list[ComparisonImage], str | None, str]:
    ignore_index = info.recipe.data.ignore_index
    if data is not None:
        dataset = open_dataset(info.recipe.data, data, split, seed=info.recipe.training.seed)
        if not len(dataset):
            raise DataError(f"{data}: holds no images for the split '{split}'; choose another with --split")
        samples = (dataset.load(index) for index in range(len(dataset)))
        found = [fit_labelled(sample, info.contract, size, ignore_index=ignore_index) for sample in samples]
        return found, f"{data} ({split})", ""
    try:
        run_images = open_run_images(info)
    except DataError as error:
        return [], None, str(error)
    found = load_run_images(run_images, info.contract, size, ignore_index=ignore_index)
    return found, f"{info.data_root} ({run_images.kind})", ""


def _calibration(info: WeightsInfo, size: tuple[int, int]) -> list[UInt8Array]:
    """Training images, so that a network is not scored on what its number ranges were taken from."""
    try:
        dataset = open_dataset(info.recipe.data, Path(info.data_root), "train", seed=info.recipe.training.seed)
    except DataError:
        return []
    images = RunImages("training", dataset)
    found = load_run_images(images, info.contract, size, ignore_index=info.recipe.data.ignore_index)
    return [item.image for item in found]


def _deployed_subject(path: Path, data: Path | None, size: tuple[int, int] | None) -> Subject:
    sidecar = _describe(path)
    fixed = sidecar.input.size
    if size is not None and fixed is not None and size != fixed:
        raise UsageError(f"{path}: takes only {fixed[0]}x{fixed[1]}; leave --size out, or export another file")
    if size is not None:
        check_size(size, multiple=sidecar.contract.size_multiple, roi=sidecar.contract.roi)
    roi = sidecar.contract.roi
    chosen = fixed or size or (NOISE_SIZE if roi is None else (roi.size, roi.size))
    if data is None:
        reason = f"{path.name} does not say where its data are; name a folder of images with --data"
        return Subject(sidecar.contract, chosen, [_noise(chosen)], None, reason)
    images = load_folder(data, sidecar.contract, chosen)
    return Subject(sidecar.contract, chosen, images, str(data), calibration=[item.image for item in images])


def _describe(path: Path) -> Sidecar:
    from etnet.onnx_sidecar import describe_onnx
    from etnet.trt.plan import read_plan

    return describe_onnx(path) if path.suffix.lower() == ".onnx" else read_plan(path)


def _noise(size: tuple[int, int]) -> ComparisonImage:
    generator = np.random.default_rng(0)
    return ComparisonImage("noise", generator.integers(0, 256, (*size, 3), dtype=np.uint8))
