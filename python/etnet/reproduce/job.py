"""One network of a table: what is to be trained, and what its folder says about how far that is.

<folder>/train/             an ordinary run folder of `etnet train`
<folder>/trained.json       written when training is complete
<folder>/evaluation/        metrics.json, per_image.csv and the masks for the picture
<folder>/scores.json        counts of every test image; written last
<folder>/failure.json       why the last attempt failed
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etnet.config.load import recipe_from_values
from etnet.config.schema import Recipe
from etnet.errors import EtnetError, ModelFileError
from etnet.manifest import read_weights_info
from etnet.sidecar import file_sha256

SCORES_FORMAT = 2
"""Raised when scoring changes: older scores are then made again from the same weights."""

PICTURED = 4
"""Test images of a data set in the picture."""


@dataclass(frozen=True)
class Job:
    """What the process that trains and scores a network is told.

    Attributes:
        folder: Its own folder.
        recipe: All choices.
        data_root: Folder of the data set.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        localizer: Weights of the network that finds the region of interest; None for whole images.
        localizer_key: Changes with its recipe and data; retrained, it has other weights under the same key.
    """

    folder: Path
    recipe: Recipe
    data_root: Path
    device: str
    localizer: Path | None = None
    localizer_key: str = ""

    def to_json(self) -> str:
        """One line of text that `from_json` reads back."""
        return json.dumps(
            {
                "folder": str(self.folder),
                "recipe": self.recipe.model_dump(mode="json"),
                "data_root": str(self.data_root),
                "device": self.device,
                "localizer": None if self.localizer is None else str(self.localizer),
                "localizer_key": self.localizer_key,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job in a line of text."""
        values = json.loads(text)
        recipe = recipe_from_values(values["recipe"], "the job's recipe")
        localizer = values["localizer"]
        return cls(
            folder=Path(values["folder"]),
            recipe=recipe,
            data_root=Path(values["data_root"]),
            device=values["device"],
            localizer=None if localizer is None else Path(localizer),
            localizer_key=values["localizer_key"],
        )

    @property
    def train_folder(self) -> Path:
        """Run folder of the training."""
        return self.folder / "train"

    @property
    def last(self) -> Path:
        """The state from which training goes on."""
        return self.train_folder / "weights" / "last.safetensors"

    @property
    def weights(self) -> Path:
        """The weights that are scored: the end of training, or `best` where images were held out to choose it."""
        return self.last if self.recipe.data.validation_fraction == 0 else self.last.with_name("best.safetensors")

    @property
    def trained_file(self) -> Path:
        """Facts about the finished training."""
        return self.folder / "trained.json"

    @property
    def scores_file(self) -> Path:
        """Counts of every test image."""
        return self.folder / "scores.json"

    @property
    def failure_file(self) -> Path:
        """Why the last attempt failed."""
        return self.folder / "failure.json"

    @property
    def evaluation_folder(self) -> Path:
        """Reports and masks of the test images."""
        return self.folder / "evaluation"

    def trained(self) -> dict[str, Any] | None:
        """Content of `trained.json`, or None while training is not complete."""
        return _read(self.trained_file) if self.weights.is_file() else None

    def scores(self) -> dict[str, Any] | None:
        """Content of `scores.json`, or None where there is none that this version would make."""
        scores = _read(self.scores_file)
        if scores is None or self.trained() is None:
            return None
        same = (scores.get("format"), scores.get("localizer_key")) == (SCORES_FORMAT, self.localizer_key)
        localizer = self.localizer_sha256()
        if localizer is not None:
            same &= scores.get("localizer_sha256") == localizer
        return scores if same else None

    def localizer_sha256(self) -> str | None:
        """SHA-256 of the localizer's weights; None for whole images, and while there are no such weights."""
        if self.localizer is None or not self.localizer.is_file():
            return None
        status = self.localizer.stat()
        return _sha256(self.localizer, status.st_mtime_ns, status.st_size)

    def failure(self) -> str | None:
        """Why the last attempt failed."""
        content = _read(self.failure_file)
        return None if content is None else str(content["error"])

    def damage(self) -> str | None:
        """Why weights of the training cannot be read; None where they can, or where there are none."""
        for path in dict.fromkeys((self.last, self.weights)):
            if path.is_file():
                try:
                    read_weights_info(path)
                except ModelFileError as error:
                    return str(error)
        return None

    def iterations_done(self) -> int:
        """Optimizer steps of the newest saved state."""
        try:
            return read_weights_info(self.last).iteration
        except EtnetError:
            return 0

    def training_seconds(self) -> float:
        """Seconds spent in optimizer steps, loading included and validation not, over all parts of the run."""
        batch, seconds, before = self.recipe.training.batch_size, 0.0, 0.0
        with (self.train_folder / "metrics.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                steps = float(row["iteration"]) - before
                before = float(row["iteration"])
                seconds += steps * batch / float(row["images_per_second"])
        return seconds


def pictured(ids: Sequence[str]) -> tuple[str, ...]:
    """Images evenly spread over a test set, the same for every method.

    >>> pictured([str(number) for number in range(20)])
    ('2', '7', '12', '17')
    """
    count = min(PICTURED, len(ids))
    return tuple(ids[(2 * number + 1) * len(ids) // (2 * count)] for number in range(count))


@functools.lru_cache
def _sha256(path: Path, _modified: int, _length: int) -> str:
    """Of a file as it was then: every method of a data set asks for that of the same weights, several times."""
    return file_sha256(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        # Files are written whole; what is not JSON was not written here and is made again.
        return None
    return content if isinstance(content, dict) else None
