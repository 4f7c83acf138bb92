"""The learning-rate range test: `etnet train --find-lr` (Smith, WACV 2017, arXiv:1506.01186, Sec. 3.3).

The rate rises from step to step, and the loss over it shows from where the network learns and where it no longer does.
Ours: Smith raises the rate linearly and reads the bounds off the accuracy; here it rises exponentially, since the right
rate may lie anywhere over several orders of magnitude, and the training loss is read, which every step gives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d

from etnet.config.schema import Recipe
from etnet.data.sample_cache import removed_at_the_end
from etnet.errors import CheckFailed
from etnet.models import load_encoder_weights
from etnet.output import replacing, write_csv
from etnet.training.determinism import reproducible
from etnet.training.distributed import ALONE
from etnet.training.run_folder import CACHE
from etnet.training.step import NotFinite
from etnet.training.tracking import Observer
from etnet.training.trainer import TrainingRun

STEPS = 100
RATES = (1e-6, 1.0)
TABLE, PICTURE = "lr_finder.csv", "lr_finder.png"

_FIRST = 10
_KEPT = 0.9
_NOISE = 2.0
_WIDTH = 0.04


@dataclass(frozen=True)
class RangeTest:
    """Losses over rising rates.

    Attributes:
        folder: Where `lr_finder.csv` and `lr_finder.png` are.
        rates: Learning rate of each step, ascending.
        losses: Loss of each step, finite.
        smoothed: The losses, smoothed.
        suggestion: Rate at which the smoothed loss falls fastest, two digits; None if it does not fall.
        diverged: Whether the test ended because the loss rose again or was not finite.
    """

    folder: Path
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    diverged: bool


def find_learning_rate(
    recipe: Recipe, *, data_root: Path, folder: Path, device: torch.device, observer: Observer, steps: int = STEPS
) -> RangeTest:
    """Train with a rising learning rate until the loss diverges.

    Network, data, batch size, number format and parts of a batch are the recipe's; its `base_lr` is not used. No
    weights are written.

    Args:
        recipe: All choices, as for training.
        data_root: Folder of the data set.
        folder: An existing folder for table and picture.
        device: Where to run.
        observer: Told about progress.
        steps: Steps from the lowest rate to the highest.

    Raises:
        EtnetError: As for training.
        CheckFailed: The loss was not finite before the test could tell anything.
    """
    planned = np.geomspace(*RATES, steps).tolist()
    with reproducible(recipe.training.deterministic), removed_at_the_end(folder / CACHE):
        run = TrainingRun(recipe, data_root=data_root, run=folder, device=device, observer=observer, group=ALONE)
        load_encoder_weights(run.network, recipe.model.encoder_weights)
        losses, diverged = _losses(run, planned)
    if len(losses) < _FIRST:
        raise CheckFailed(
            f"--find-lr: the loss was not finite after {len(losses)} steps at rates up to "
            f"{planned[len(losses)]:.1e}; look at the images, or set "
            "optimizer.clip_gradient_norm=1.0"
        )
    rates = tuple(planned[: len(losses)])
    smooth = smoothed(losses, steps=steps)
    result = RangeTest(folder, rates, tuple(losses), tuple(smooth), steepest_descent(rates, losses, steps), diverged)
    columns = ("iteration", "learning_rate", "loss", "smoothed_loss")
    numbered = enumerate(zip(rates, losses, smooth, strict=True), start=1)
    write_csv(folder / TABLE, columns, ([row, *(f"{value:.6g}" for value in values)] for row, values in numbered))
    draw_range_test(result, folder / PICTURE)
    return result


def _losses(run: TrainingRun, rates: Sequence[float]) -> tuple[list[float], bool]:
    """Losses of the steps until they diverge, and whether they did."""
    run.network.train()
    run.observer.on_start(done=0, total=len(rates))
    watch = Divergence()
    losses: list[float] = []
    began = time.perf_counter()
    for rate, batch in zip(rates, run.batches(0, len(rates)), strict=True):
        try:
            loss = run.stepper.run(batch, rate).loss
        except NotFinite:
            return losses, True
        losses.append(loss)
        now = time.perf_counter()
        run.observer.on_step(
            iteration=len(losses), loss=loss, learning_rate=rate, images_per_second=run.batch_size / (now - began)
        )
        began = now
        if watch.add(loss):
            return losses, True
    return losses, False


class Divergence:
    """Says when a loss has risen for good.

    Lovasz-Softmax lies in 0..1 and cannot reach the multiple of its lowest value that other range tests wait for. Here
    the loss has diverged when its running mean has lost all that it had gained since the first steps and stands above
    its beginning by more than single losses vary, which the differences between neighbours tell.
    """

    def __init__(self) -> None:
        self._mean, self._variance, self._count = 0.0, 0.0, 0
        self._start = self._former = math.inf

    def add(self, loss: float) -> bool:
        """Take in the loss of a step; whether it has diverged."""
        change = loss - self._former if self._count else 0.0
        self._count, self._former = self._count + 1, loss
        self._mean = _KEPT * self._mean + (1 - _KEPT) * loss
        # A difference of two has twice the variance of one.
        self._variance = _KEPT * self._variance + (1 - _KEPT) * change**2 / 2
        # Begun at 0, both are too small by what is missing of their weights (as in Adam).
        weights = 1 - _KEPT**self._count
        mean, spread = self._mean / weights, math.sqrt(self._variance / weights)
        if self._count <= _FIRST:
            self._start = mean
            return False
        return mean > self._start + spread


def smoothed(losses: Sequence[float], *, steps: int) -> npt.NDArray[np.float64]:
    """Losses smoothed by a Gaussian over their neighbours on both sides, which does not lag behind as a running mean.

    Args:
        losses: [K], finite.
        steps: Steps of the whole test; the Gaussian's standard deviation is 4 % of them.

    Returns:
        [K], float64.
    """
    result: npt.NDArray[np.float64] = gaussian_filter1d(np.asarray(losses, np.float64), _WIDTH * steps, mode="nearest")
    return result


def steepest_descent(rates: Sequence[float], losses: Sequence[float], steps: int) -> float | None:
    """The rate at which the loss falls fastest over the logarithm of the rate: the suggested `base_lr`.

    The poly schedule only lowers the rate from there. Only the part up to the lowest smoothed loss is looked at.

    Args:
        rates: Rates of the steps [K], ascending in equal ratios.
        losses: Losses [K], finite.
        steps: Steps of the whole test, at least K.

    Returns:
        The rate, rounded to two digits; None where the smoothed loss falls by less than twice the noise of the first
        steps.
    """
    smooth = smoothed(losses, steps=steps)
    lowest = int(smooth.argmin())
    noise = float(np.std(losses[:_FIRST]))
    if lowest == 0 or smooth[: lowest + 1].max() - smooth[lowest] <= _NOISE * noise:
        return None
    slopes = np.gradient(smooth)[: lowest + 1]
    return float(f"{rates[int(slopes.argmin())]:.1e}")


def draw_range_test(result: RangeTest, path: Path) -> None:
    """Draw the losses over the rate, and the suggestion, into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, ".", color="0.7", markersize=4, label="loss of a step")
    axes.plot(result.rates, result.smoothed, color="C0", label="smoothed")
    if result.suggestion is not None:
        axes.axvline(result.suggestion, color="C3", linestyle="--", label=f"steepest descent: {result.suggestion:.1e}")
    axes.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="loss",
        title="Learning-rate range test" + (" (ended: the loss rose)" if result.diverged else ""),
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
