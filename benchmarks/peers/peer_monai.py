"""MONAI beside etnet: one large image in tiles, scores of masks, and training crops.

    benchmarks/peers/.venvs/monai/bin/python benchmarks/peers/peer_monai.py --data DRIVE/ --json FILE

- Tiles: the same network with the same weights on the same tiles, once through `SlidingWindowInferer` in mode
  `gaussian` and once through `TiledPredictor`; both begin with the bytes of the image and end with labels and
  probabilities. Both blend by a Gaussian of the same width; etnet leaves out the outer quarter of an overlap, so that
  the probabilities differ there. A network of a single 1x1 convolution shows what the blending itself costs.
- Scores: those of one pair of masks, from NumPy arrays here and from one-hot tensors there, which is what each takes.
  etnet's surface scores come from one call, which computes boundary IoU as well; MONAI has one metric for each.
- Crops: see `monai_crops.py`.

MONAI has no Lovasz loss.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import crop_sources
import numpy as np
import side_by_side
import torch
from measurement import Comparison, take_turns
from monai import metrics
from monai.inferers import SlidingWindowInferer
from monai_crops import monai_crops
from torch import Tensor, nn

from etnet.config.load import load_recipe
from etnet.config.schema import Recipe
from etnet.data.synthetic import draw_fundus
from etnet.inference.backends.torch_backend import TorchBackend
from etnet.inference.predictor import Predictor
from etnet.inference.tiling import TiledPredictor, Tiling
from etnet.metrics.overlap import OverlapScores, confusion_matrix
from etnet.metrics.surface import SurfaceScores, surface_scores
from etnet.models import ETNetOutput, build_model
from etnet.types import BoolArray, Float32Array, UInt8Array

PACKAGE = "MONAI"
VERSION = version("monai")
OVERLAP = 0.25
TOLERANCE = 2.0
SMOKE = ("model.encoder=resnet18", "data.crop_size=64", "training.batch_size=2")


class OnePixel(nn.Module):
    """Scores from a pixel alone: a network that costs nearly nothing."""

    encoder = None

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> ETNetOutput:
        """Class scores [N, 2, H, W]."""
        return ETNetOutput(seg_logits=self.convolution(images), edge_logits=None)


class TheirTiles:
    """A large image through `SlidingWindowInferer`, as its documentation does it."""

    def __init__(self, network: nn.Module, recipe: Recipe, tile: int, *, device: str, tiles_per_run: int) -> None:
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)
        contract = recipe.contract()
        self.mean, self.std = (
            torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (contract.mean, contract.std)
        )
        self.device = device
        self.inferer = SlidingWindowInferer(
            (tile, tile), sw_batch_size=tiles_per_run, overlap=OVERLAP, mode="gaussian", cache_roi_weight_map=True
        )

    @torch.inference_mode()
    def __call__(self, image: UInt8Array) -> tuple[UInt8Array, Float32Array]:
        """Labels [H, W] and probabilities [C, H, W] of an RGB image [H, W, 3]."""
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None].float()
        found = self.inferer((pixels - self.mean) / self.std, self.probabilities)[0]
        labels = found.argmax(0).to(torch.uint8)
        return labels.cpu().numpy(), found.cpu().numpy()

    def probabilities(self, tiles: Tensor) -> Tensor:
        """Class probabilities [N, C, H, W]."""
        output: ETNetOutput = self.network(tiles.contiguous(memory_format=torch.channels_last))
        return output.seg_logits.softmax(1)


def tile_row(name: str, network: nn.Module, recipe: Recipe, *, tile: int, options: Setting) -> Comparison:
    """An image of so many tiles a side, which both sides divide alike."""
    side = tile + (options.tiles - 1) * int(tile * (1 - OVERLAP))
    image = draw_fundus(size=side, generator=np.random.default_rng(1)).image
    theirs = TheirTiles(network, recipe, tile, device=options.device, tiles_per_run=options.tiles_per_run)
    backend = TorchBackend(network, recipe.contract(), device=options.device)
    tiling = Tiling(size=tile, overlap=OVERLAP, largest_whole=0)
    ours = TiledPredictor(Predictor(backend, recipe.contract()), tiling, tiles_per_run=options.tiles_per_run)
    own, (labels, probabilities) = ours.predict(image), theirs(image)
    if own.probabilities is None:
        raise AssertionError("no probabilities")
    apart = float(np.abs(own.probabilities - probabilities).max())
    equal = float((own.labels == labels).mean())
    times = take_turns({"etnet": lambda: ours.predict(image), PACKAGE: lambda: theirs(image)}, rounds=options.rounds)
    return Comparison.of_rounds(
        ("etnet TiledPredictor", times["etnet"]),
        (f"{PACKAGE} SlidingWindowInferer, gaussian", times[PACKAGE]),
        version=VERSION,
        subject=f"a large image in tiles, {name}",
        case=f"{side}x{side} in {options.tiles}x{options.tiles} tiles of {tile}x{tile}, overlap {OVERLAP:g}, float32, "
        f"{side_by_side.processor_or_gpu(options.device)}",
        unit="ms",
        result=f"{equal:.3%} equal labels, probabilities differ by at most {apart:.2g}",
    )


@dataclass(frozen=True)
class Setting:
    """Of the comparison of tiles.

    Attributes:
        device: `cpu` or `cuda`.
        rounds: Rounds that count.
        tiles: Along each side of the image.
        tiles_per_run: Tiles that go through the network together.
    """

    device: str
    rounds: int
    tiles: int
    tiles_per_run: int


def tile_rows(options: Setting, *, smoke: bool) -> list[Comparison]:
    """With ET-Net, and with a network that costs nothing."""
    recipe = load_recipe("drive", ["model.encoder_weights=none", *(SMOKE if smoke else ())])
    torch.manual_seed(0)
    network = build_model(recipe.model, len(recipe.data.class_names))
    tile = recipe.data.crop_size
    encoder = recipe.model.encoder.split(".")[0]
    plain = Setting(options.device, options.rounds, 2 * options.tiles, options.tiles_per_run)
    return [
        tile_row(f"ET-Net {encoder}", network, recipe, tile=tile, options=options),
        tile_row("a network of one 1x1 convolution", OnePixel(), recipe, tile=tile, options=plain),
    ]


@dataclass(frozen=True)
class MaskPair:
    """What is scored.

    Attributes:
        name: Structure and size.
        predicted: Mask [H, W].
        truth: Mask [H, W].
    """

    name: str
    predicted: BoolArray
    truth: BoolArray

    @staticmethod
    def draw(structure: str, index: int, size: int) -> MaskPair:
        """The mask of a drawn structure, and the same moved a little with some of it lost."""
        sample = draw_fundus(size=size, generator=np.random.default_rng(2))
        truth = sample.mask == index
        moved = np.roll(truth, (2, 3), axis=(0, 1))
        moved[: size // 3, : size // 3] = False
        return MaskPair(f"{structure}, {size}x{size}", moved, truth)

    def one_hot(self) -> tuple[Tensor, Tensor]:
        """Prediction and truth [1, 2, H, W], float32, as MONAI's metrics take them."""
        predicted, truth = (
            torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (self.predicted, self.truth)
        )
        return predicted, truth


def score_rows(*, rounds: int, smoke: bool) -> list[Comparison]:
    """Overlap and surface scores of thin and of compact structures, on the processor."""
    sizes = (64,) if smoke else (512, 1024)
    structures = (("vessels", 1), ("an optic disc", 2))
    pairs = [MaskPair.draw(name, index, size) for size in sizes for name, index in structures]
    return [row for pair in pairs for row in (overlap_row(pair, rounds), *surface_rows(pair, rounds))]


def overlap_row(pair: MaskPair, rounds: int) -> Comparison:
    """Dice, sensitivity and specificity."""
    dice = metrics.DiceMetric(include_background=False)
    rates = metrics.ConfusionMatrixMetric(include_background=False, metric_name=("sensitivity", "specificity"))
    predicted, truth = pair.one_hot()
    labels, target = pair.predicted.astype(np.uint8), pair.truth.astype(np.uint8)

    def theirs() -> list[float]:
        return [*score(dice, predicted, truth), *score(rates, predicted, truth)]

    def ours() -> list[float]:
        found = OverlapScores.from_confusion(confusion_matrix(labels, target, num_classes=2), ("background", "it"))
        return [found.dice[1], found.sensitivity[1], found.specificity[1]]

    return score_row("Dice, sensitivity, specificity", pair, ours, theirs, rounds=rounds)


def surface_rows(pair: MaskPair, rounds: int) -> list[Comparison]:
    """HD95 alone, and with the mean surface distance and the surface Dice."""
    predicted, truth = pair.one_hot()
    hausdorff = metrics.HausdorffDistanceMetric(include_background=False, percentile=95)
    mean = metrics.SurfaceDistanceMetric(include_background=False, symmetric=True)
    dice = metrics.SurfaceDiceMetric(class_thresholds=[TOLERANCE], include_background=False)

    def ours() -> SurfaceScores:
        return surface_scores(pair.predicted, pair.truth, tolerances=(TOLERANCE,))

    def all_of_ours() -> list[float]:
        found = ours()
        return [found.hd95, found.assd, *found.surface_dice]

    def all_of_theirs() -> list[float]:
        return list(itertools.chain(*(score(metric, predicted, truth) for metric in (hausdorff, mean, dice))))

    return [
        score_row("HD95", pair, lambda: [ours().hd95], lambda: score(hausdorff, predicted, truth), rounds=rounds),
        score_row("HD95, mean surface distance, surface Dice", pair, all_of_ours, all_of_theirs, rounds=rounds),
    ]


def score(metric: metrics.CumulativeIterationMetric, predicted: Tensor, truth: Tensor) -> list[float]:
    """What a metric of MONAI says of one pair."""
    metric.reset()
    metric(predicted, truth)
    found = metric.aggregate()
    return [float(value) for value in (found if isinstance(found, list) else [found])]


def score_row(
    subject: str,
    pair: MaskPair,
    ours: Callable[[], list[float]],
    theirs: Callable[[], list[float]],
    *,
    rounds: int,
) -> Comparison:
    """One kind of score of one pair of masks."""
    values = list(zip(ours(), theirs(), strict=True))
    if not all(math.isfinite(value) for both in values for value in both):
        raise AssertionError(f"{subject} of {pair.name} is {values}")
    apart = max(abs(own - other) / max(abs(other), 1e-9) for own, other in values)
    times = take_turns({"etnet": ours, PACKAGE: theirs}, rounds=rounds)
    return Comparison.of_rounds(
        ("etnet", times["etnet"]),
        (PACKAGE, times[PACKAGE]),
        version=VERSION,
        subject=subject,
        case=f"{pair.name}, 1 thread",
        unit="ms",
        result="equal" if apart == 0 else f"equal to {apart:.1g} of the value",
    )


def crop_rows(options: argparse.Namespace) -> list[Comparison]:
    """Training crops of both ways to write them with MONAI."""
    rivals = {
        "MONAI, RandAffined": (functools.partial(monai_crops, style="fused"), VERSION),
        "MONAI, a transform each": (functools.partial(monai_crops, style="separate"), VERSION),
    }
    with tempfile.TemporaryDirectory() as scratch:
        dataset, recipe = side_by_side.open_pictures(options, Path(scratch), *(SMOKE if options.smoke else ()))
        return crop_sources.rows(dataset, recipe, rivals, forms=("float32",), rounds=options.rounds)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = side_by_side.arguments(__doc__, rounds=3, words=words)
    side_by_side.use_threads(options.threads)
    gpu = options.device == "cuda"
    setting = Setting(options.device, options.rounds, 2 if options.smoke else (8 if gpu else 3), 8 if gpu else 1)
    rows = tile_rows(setting, smoke=options.smoke)
    side_by_side.use_threads(1)
    rows += score_rows(rounds=1 if options.smoke else 3 * options.rounds, smoke=options.smoke)
    rows += crop_rows(options)
    side_by_side.conclude(
        options,
        rows,
        peer="monai",
        what="a large image in tiles, scores of masks and training crops beside MONAI",
        packages=("monai", "scipy"),
    )


if __name__ == "__main__":
    main()
