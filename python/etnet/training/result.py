"""How a training ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        run: Run folder.
        data_root: Folder of the data set.
        iterations: Optimizer steps done, earlier parts of a resumed run included.
        total: Steps that the recipe asks for.
        best_score: Mean foreground Dice of `best` on the held-out images, None without any.
        best_epoch: When it was reached.
        highest_epoch: When the score was highest; not that of `best` if the disk refused the file then.
        signal_number: The signal that stopped the run early, or None.
        stopped_early: Whether the run ended before its total because the score rose no more (`training.patience`).
    """

    run: Path
    data_root: Path
    iterations: int
    total: int
    best_score: float | None
    best_epoch: int
    highest_epoch: int
    signal_number: int | None
    stopped_early: bool
