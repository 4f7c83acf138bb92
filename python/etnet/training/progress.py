"""What a run remembers from step to step beside its weights: means of the epoch and the best score so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from etnet.training.step import StepResult
from etnet.training.tracking import LOSS_COLUMNS


@dataclass
class Progress:
    """Goes into `last` as JSON and comes back on resume.

    Attributes:
        best_score: Mean foreground Dice of `best` on the held-out images; None before there is one.
        best_epoch: When it was reached.
        highest_score: The highest of all validations, also where the disk refused to take it as `best`.
        highest_epoch: When it was reached.
        validated_epoch: When the held-out images were scored last.
        sums: Sums of the losses over the steps of the running epoch.
        steps: How many those are.
        seconds: How long they took.
    """

    best_score: float | None = None
    best_epoch: int = 0
    highest_score: float | None = None
    highest_epoch: int = 0
    validated_epoch: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LOSS_COLUMNS, 0.0))
    steps: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Complete what older versions saved, which knew one of both scores."""
        if self.highest_score is None:
            self.highest_score, self.highest_epoch = self.best_score, self.best_epoch

    def add(self, result: StepResult, seconds: float) -> None:
        """Count a step into the running epoch."""
        for column in LOSS_COLUMNS:
            self.sums[column] += getattr(result, column)
        self.steps += 1
        self.seconds += seconds

    def close_epoch(self, batch_size: int) -> dict[str, float]:
        """Means over the epoch's steps; starts the next epoch."""
        means = {column: total / self.steps for column, total in self.sums.items()}
        means["images_per_second"] = self.steps * batch_size / self.seconds
        self.sums, self.steps, self.seconds = dict.fromkeys(LOSS_COLUMNS, 0.0), 0, 0.0
        return means

    def is_best(self, score: float, *, epoch: int) -> bool:
        """Note a score of the held-out images; whether it is above that of `best`."""
        self.validated_epoch = epoch
        if self.highest_score is None or score > self.highest_score:
            self.highest_score, self.highest_epoch = score, epoch
        if self.best_score is not None and score <= self.best_score:
            return False
        self.best_score, self.best_epoch = score, epoch
        return True

    def has_stalled(self, patience: int | None) -> bool:
        """Whether the last validation was the one to stop at: so many epochs brought no better score."""
        return patience is not None and self.validated_epoch - self.highest_epoch >= patience
