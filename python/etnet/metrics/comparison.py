"""Two evaluations of the same images, as `etnet evaluate` wrote them, compared image by image."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from etnet.errors import DataError
from etnet.metrics.overlap import FloatArray, plain
from etnet.metrics.report import plain_interval
from etnet.metrics.statistics import LEVEL, PairedDifference, paired_difference

METRICS_FILE = "metrics.json"
PER_IMAGE_FILE = "per_image.csv"
CLINICAL = "clinical"

Better = Literal["higher", "lower", "nearer to 0"]
_SHOWN = 3


@dataclass(frozen=True)
class StoredEvaluation:
    """What lies in the folder of an evaluation.

    Attributes:
        folder: The folder.
        metrics: Content of `metrics.json`.
        images: Names of the images.
        scores: Scores per image [N] by column of `per_image.csv`, NaN where undefined.
    """

    folder: Path
    metrics: dict[str, Any]
    images: tuple[str, ...]
    scores: dict[str, FloatArray]

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that were scored."""
        return tuple(self.metrics["regions"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes and groups that were scored."""
        pooled = next(iter(self.metrics["regions"].values()))["pooled"]
        return (*pooled["classes"], *pooled["groups"])


@dataclass(frozen=True)
class ScoreDifference:
    """One score of two models.

    Attributes:
        region: The region, or `clinical`.
        score: Its name within the region.
        better: Which values are better; a signed error is better when it is nearer to 0.
        paired: The comparison over images.
    """

    region: str
    score: str
    better: Better
    paired: PairedDifference

    @property
    def winner(self) -> Literal["A", "B"] | None:
        """The model with the better mean where the interval of the difference leaves out 0 and p < 0.05, or None.

        Both are asked for because the interval is too narrow for few images: of two images that favour one model it
        always leaves out 0. None too for signed errors on two sides of 0: their difference does not tell which is
        nearer to it. The absolute error, which stands beside each, does.
        """
        low, high = self.paired.interval
        if math.isnan(low) or low <= 0 <= high or not self.paired.p_value < 1 - LEVEL:
            return None
        a, b = self.paired.mean_a, self.paired.mean_b
        if self.better == "nearer to 0" and a * b <= 0:
            return None
        b_is_better = {"higher": b > a, "lower": b < a, "nearer to 0": abs(b) < abs(a)}[self.better]
        return "B" if b_is_better else "A"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; None where undefined."""
        paired = self.paired
        return {
            "region": self.region,
            "score": self.score,
            "better": self.better,
            "mean_a": plain(paired.mean_a),
            "mean_b": plain(paired.mean_b),
            "difference": plain(paired.difference),
            "interval": plain_interval(paired.interval),
            "p_value": plain(paired.p_value),
            "pairs": paired.pairs,
            "winner": self.winner,
        }


def is_evaluation(folder: Path) -> bool:
    """Whether a folder holds the files of an evaluation."""
    return all((folder / name).is_file() for name in (METRICS_FILE, PER_IMAGE_FILE))


def read_evaluation(folder: Path) -> StoredEvaluation:
    """Read the folder of an evaluation.

    Raises:
        DataError: A file is missing, damaged or of an earlier version.
    """
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text("utf-8"))
        with (folder / PER_IMAGE_FILE).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = [name for name in rows[0] if name not in ("image", "seconds")]
        scores = {name: np.array([float(row[name] or math.nan) for row in rows]) for name in columns}
        stored = StoredEvaluation(folder, metrics, tuple(row["image"] for row in rows), scores)
        complete = bool(stored.classes and metrics["model"]["path"] and metrics["ground_truth_sha256"])
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename}: no such file; expected a folder that 'etnet evaluate' wrote, with {METRICS_FILE} and "
            f"{PER_IMAGE_FILE}"
        ) from error
    except (OSError, ValueError, csv.Error, KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(
            f"{folder}: holds no complete evaluation of this version ({type(error).__name__}: {error}); write it again "
            "with etnet evaluate"
        ) from error
    if not complete:
        raise DataError(
            f"{folder}: does not say which model and ground truth it used; write it again with etnet evaluate"
        )
    return stored


def compare_evaluations(a: StoredEvaluation, b: StoredEvaluation) -> list[ScoreDifference]:
    """Compare every score that is known per image; images where either is undefined are left out of that score.

    Raises:
        DataError: The evaluations are of different images, masks, classes or regions.
        EnvironmentFault: SciPy is missing.
    """
    _require_comparable(a, b)
    position = {image: index for index, image in enumerate(b.images)}
    order = [position[image] for image in a.images]
    differences = []
    for column, values in a.scores.items():
        region, score = _place(column, a.regions)
        if column in b.scores and (region != CLINICAL or score.endswith("_error")):
            paired = paired_difference(values, b.scores[column][order])
            differences.append(ScoreDifference(region, score, _better(score), paired))
    return differences


def _require_comparable(a: StoredEvaluation, b: StoredEvaluation) -> None:
    centers = [stored.metrics.get("centers") for stored in (a, b)]
    if centers[0] != centers[1]:
        raise DataError(
            f"{a.folder} and {b.folder} cannot be compared: the first was scored around {_centers(centers[0])}, the "
            f"second around {_centers(centers[1])}; evaluate a bundle of each"
        )
    for kind, of_a, of_b in (("classes", a.classes, b.classes), ("regions", a.regions, b.regions)):
        if set(of_a) != set(of_b):
            raise DataError(
                f"{a.folder} and {b.folder} cannot be compared: they scored different {kind}, "
                f"{', '.join(of_a)} and {', '.join(of_b)}"
            )
    only_a, only_b = _missing(a.images, b.images), _missing(b.images, a.images)
    if only_a or only_b:
        told = [f"{folder} lacks {names}" for folder, names in ((b.folder, only_a), (a.folder, only_b)) if names]
        raise DataError(
            f"{a.folder} and {b.folder} cannot be compared image by image: {' and '.join(told)}; evaluate both on the "
            "same images with the same --split"
        )
    if a.metrics["ground_truth_sha256"] != b.metrics["ground_truth_sha256"]:
        raise DataError(
            f"{a.folder} and {b.folder} cannot be compared: their images have the same names but other masks or "
            "another order; evaluate both with the same --data and the same recipe of the data"
        )


def _centers(kind: str | None) -> str:
    return "no centres" if kind is None else f"{kind} centres"


def _missing(images: Sequence[str], others: Sequence[str]) -> str:
    missing = [image for image in images if image not in set(others)]
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return ", ".join(missing[:_SHOWN]) + more


def _place(column: str, regions: Sequence[str]) -> tuple[str, str]:
    """Region and score of a column; a region may begin with the name of another."""
    for region in sorted(regions, key=len, reverse=True):
        if column.startswith(f"{region}_"):
            return region, column[len(region) + 1 :]
    return CLINICAL, column


def _better(score: str) -> Better:
    if score.endswith(("_px", "_absolute_error")):
        return "lower"
    return "nearer to 0" if score.endswith("_error") else "higher"
