"""Trains in double precision, in one process or in several: what is left of rounding can no longer be seen."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from etnet.config.load import load_recipe
from etnet.training.distributed import joined_processes
from etnet.training.normalisation import Normalisation
from etnet.training.tracking import SilentObserver
from etnet.training.trainer import train


class _Losses(SilentObserver):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, *, loss: float, **_: float) -> None:
        self.values.append(loss)


def losses_in_float64(overrides: tuple[str, ...], data: Path, run: Path) -> list[float]:
    """The loss of every step; the exact loss of `loss.method=reference` is the one that keeps double precision."""
    torch.set_default_dtype(torch.float64)
    normalise = Normalisation.__call__

    def in_double(normalisation: Normalisation, images: Tensor) -> Tensor:
        return normalise(normalisation, images).double()

    Normalisation.__call__ = in_double
    run.mkdir(exist_ok=True)
    losses = _Losses()
    try:
        with joined_processes() as group:
            recipe = load_recipe("folder", [*overrides, "loss.method=reference", "data.validation_fraction=0"])
            train(recipe, data_root=data, run=run, device=torch.device("cpu"), observer=losses, group=group)
    finally:
        Normalisation.__call__ = normalise
        torch.set_default_dtype(torch.float32)
    return losses.values


def main() -> None:
    data, run, *overrides = sys.argv[1:]
    losses = losses_in_float64(tuple(overrides), Path(data), Path(run))
    Path(f"{run}.losses").write_text("\n".join(map(repr, losses)))


if __name__ == "__main__":
    main()
