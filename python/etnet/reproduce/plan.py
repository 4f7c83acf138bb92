"""From what a user asks for to the training runs behind every cell, each with a folder that only it can have."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from etnet.config.schema import Recipe, encoder_weights_path
from etnet.data.dataset import PairedFiles
from etnet.data.datasets import find_part, open_dataset
from etnet.data.datasets.completeness import FEWER_PAIRS
from etnet.data.findings import Finding
from etnet.errors import DataError, UsageError
from etnet.reproduce.job import Job
from etnet.reproduce.profiles import Profile, has_recipe, localizer_recipe, recipe_for
from etnet.reproduce.tables import LOCALIZER, Method, PaperDataset, PaperTable
from etnet.sidecar import file_sha256
from etnet.training.schedule import total_iterations

RUNS = "runs"
"""Folder of the trained networks below the output; tables share them."""

WITHOUT_EFFECT = {"data": ("workers", "cache_memory", "cache_disk"), "training": ("save_every",)}
"""Recipe keys that do not change what is trained."""


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        table: The table.
        data_root: Folder with one folder per data set.
        output: Folder of runs and tables.
        datasets: Keys of the data sets whose cells are to be trained.
        methods: Keys of the methods to be trained.
        seeds: Number of runs per cell, with seeds 0, 1, ...
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        profile: Which recipes.
        epochs: Length of every run; None leaves it to the recipe.
        overrides: `section.key=value` for the recipe of every method.
        localizer_overrides: `section.key=value` for the recipe of the disc localizer.
    """

    table: PaperTable
    data_root: Path
    output: Path
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int = 3
    device: str = "auto"
    profile: Profile = "paper"
    epochs: int | None = None
    overrides: tuple[str, ...] = ()
    localizer_overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the table is written; one of another profile never replaces the paper's."""
        return self.output / (self.table.name if self.profile == "paper" else f"{self.table.name}-{self.profile}")


@dataclass(frozen=True)
class FoundData:
    """A data set on disk.

    Attributes:
        root: Its folder.
        training_images: Number of images trained on.
        test_images: Number of images scored.
        identity: Changes when a file or the split does, not when the folder moves.
        incomplete: A sentence per part that holds fewer pairs than the official download.
    """

    root: Path
    training_images: int
    test_images: int
    identity: str
    incomplete: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One network to train and score.

    Attributes:
        dataset: Data set.
        method: Method.
        recipe: All choices.
        data: Where the images are.
        output: Folder of runs and tables.
        device: Where to train.
        localizer: The network that finds its region of interest; None for whole images.
    """

    dataset: PaperDataset
    method: Method
    recipe: Recipe
    data: FoundData
    output: Path
    device: str
    localizer: Run | None = None

    @property
    def seed(self) -> int:
        """Seed of weights, order and augmentation."""
        return self.recipe.training.seed

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that decides what is trained: the recipe, the data and a file of encoder weights."""
        recipe = self.recipe.model_dump(mode="json", exclude={"name", "postprocess"})
        for section, keys in WITHOUT_EFFECT.items():
            for key in keys:
                del recipe[section][key]
        decides: list[object] = [recipe, self.data.identity]
        weights = encoder_weights_path(self.recipe.model.encoder_weights)
        if weights is not None and weights.is_file():
            decides.append(file_sha256(weights))
        text = json.dumps(decides, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return f"{self.method.title} on {self.dataset.title}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Its own folder, below which `train/` is an ordinary run folder."""
        return self.output / RUNS / f"{self.dataset.key}-{self.method.key}-seed{self.seed}-{self.key[:10]}"

    @property
    def job(self) -> Job:
        """What the process that trains it is told."""
        job = Job(self.folder, self.recipe, self.data.root, self.device)
        if self.localizer is None:
            return job
        return replace(job, localizer=self.localizer.job.weights, localizer_key=self.localizer.key)

    @property
    def iterations(self) -> int:
        """Optimizer steps that the recipe asks for."""
        training = self.recipe.training
        return total_iterations(
            num_images=self.data.training_images, epochs=training.epochs, batch_size=training.batch_size
        )


@dataclass(frozen=True)
class Cell:
    """One method on one data set.

    Attributes:
        dataset: Column group.
        method: Row.
        runs: Networks behind it, one per seed; none where `absence` says why.
        wanted: Whether the user asked for it to be trained.
        absence: Why nothing can be shown: `no data`, `not run`, `no small recipe` or `data not usable`.
    """

    dataset: PaperDataset
    method: Method
    runs: tuple[Run, ...] = ()
    wanted: bool = True
    absence: str | None = None


@dataclass(frozen=True)
class Plan:
    """All cells of a table, row by row.

    Attributes:
        request: What was asked for.
        cells: Every cell of the paper's table.
        broken: Sentence per data set that is there and cannot be used.
    """

    request: Request
    cells: tuple[Cell, ...]
    broken: dict[str, str]

    @property
    def wanted_runs(self) -> tuple[Run, ...]:
        """Runs to have: localizers, then the first seed of every cell, so that an early table has no holes."""
        runs = [run for cell in self.cells if cell.wanted for run in cell.runs]
        localizers = {run.localizer.key: run.localizer for run in runs if run.localizer is not None}
        return (*localizers.values(), *sorted(runs, key=lambda run: run.seed))

    @property
    def incomplete(self) -> dict[str, tuple[str, ...]]:
        """Sentences per data set that lacks pairs: figures on it do not compare with the paper's."""
        found = {cell.dataset.key: cell.runs[0].data.incomplete for cell in self.cells if cell.runs}
        return {key: sentences for key, sentences in found.items() if sentences}


NO_DATA, NOT_RUN = "no data", "not run"


def make_plan(request: Request) -> Plan:
    """Find the data, read the recipes and name every run; nothing is written.

    Raises:
        DataError: The data folder does not exist, holds two folders for one data set, or nothing usable of those asked
            for.
        UsageError: An override does not fit a recipe, or there is no such recipe.
    """
    folders = find_folders(request.data_root, request.table.datasets)
    if not set(request.datasets) & set(folders):
        asked = [dataset for dataset in request.table.datasets if dataset.key in request.datasets]
        raise DataError(
            f"{request.data_root}: holds no folder of {', '.join(dataset.title for dataset in asked)}; expected "
            f"{request.data_root / asked[0].folders[0]} or the like; give the folder that holds it with --data-root"
        )
    found, broken = _open_data(request, folders)
    cells = [
        _cell(dataset, method, request, folders=folders, found=found)
        for method in request.table.methods
        for dataset in request.table.datasets
    ]
    plan = Plan(request, tuple(cells), broken)
    if not plan.wanted_runs:
        _refuse(plan)
    return plan


def _open_data(request: Request, folders: dict[str, Path]) -> tuple[dict[str, FoundData], dict[str, str]]:
    """What is known about each data set that is asked for or was trained on before, and what is wrong with others."""
    found: dict[str, FoundData] = {}
    broken: dict[str, str] = {}
    for dataset in request.table.datasets:
        if dataset.key not in folders or not has_recipe(dataset, request.profile):
            continue
        trained_before = any((request.output / RUNS).glob(f"{dataset.key}-*"))
        # Reading the other data sets would only cost time.
        if dataset.key in request.datasets or trained_before:
            recipe = _recipe(dataset, request.table.methods[0], request, seed=0)
            try:
                found[dataset.key] = look_at(recipe, folders[dataset.key])
            except DataError as error:
                broken[dataset.key] = str(error)
    return found, broken


def _refuse(plan: Plan) -> None:
    """Say why not a single run of those asked for is possible, though there is data."""
    request = plan.request
    for key in request.datasets:
        if key in plan.broken:
            raise DataError(plan.broken[key])
    raise UsageError(
        f"there is no {request.profile} recipe of {', '.join(request.datasets)}; choose other data sets with --only, "
        f"or leave --{request.profile} away"
    )


def find_folders(root: Path, datasets: tuple[PaperDataset, ...]) -> dict[str, Path]:
    """Folders of data sets by key: `root` itself or one inside it, by its name without case and punctuation.

    Raises:
        DataError: The folder is missing, or two folders bear names of one data set.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected the folder that holds DRIVE/, Drishti-GS/ and the like")
    candidates = [root.resolve(), *sorted(path for path in root.iterdir() if path.is_dir())]
    found: dict[str, Path] = {}
    for dataset in datasets:
        matches = [path for path in candidates if dataset.is_called(path.name)]
        inside = [path for path in matches if path != candidates[0]]
        if len(inside) > 1:
            raise DataError(
                f"{root}: {' and '.join(path.name for path in inside)} are both names of {dataset.title}; "
                "expected one folder per data set, so move the other one away"
            )
        if matches:
            found[dataset.key] = (inside or matches)[0]
    return found


def look_at(recipe: Recipe, root: Path) -> FoundData:
    """Open both parts of a data set and take its fingerprint.

    Raises:
        DataError: The data cannot be used for training and testing.
    """
    training = open_dataset(recipe.data, root, "train", seed=recipe.training.seed)
    test = open_dataset(recipe.data, root, "test", seed=recipe.training.seed)
    if not len(training) or not len(test):
        raise DataError(
            f"{root}: gives {len(training)} training and {len(test)} test images; expected some of both for a table"
        )
    return FoundData(root, len(training), len(test), _identity(training, test), _fewer_pairs(recipe, root))


def _fewer_pairs(recipe: Recipe, root: Path) -> tuple[str, ...]:
    """What `etnet data check` says of parts with fewer pairs than the official ones."""
    findings: list[Finding] = []
    find_part(recipe.data, root, "train", report=findings.append)
    find_part(recipe.data, root, "test", report=findings.append)
    return tuple(finding.sentence for finding in findings if finding.rule == FEWER_PAIRS)


def _identity(*parts: PairedFiles) -> str:
    """SHA-256 over names and contents of the files that are used; other files in the folder do not count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"part")
        for name, image, mask in zip(part.ids, part.images, part.masks, strict=True):
            digest.update(f"\n{name}\n".encode())
            digest.update("".join(file_sha256(path) for path in (image, *mask.files)).encode())
    return digest.hexdigest()


def _cell(
    dataset: PaperDataset,
    method: Method,
    request: Request,
    *,
    folders: dict[str, Path],
    found: dict[str, FoundData],
) -> Cell:
    wanted = method.not_run is None and dataset.key in request.datasets and method.key in request.methods
    if method.not_run is not None:
        return Cell(dataset, method, wanted=False, absence=NOT_RUN)
    if dataset.key not in folders:
        return Cell(dataset, method, wanted=wanted, absence=NO_DATA)
    if not has_recipe(dataset, request.profile):
        return Cell(dataset, method, wanted=wanted, absence=f"no {request.profile} recipe")
    if dataset.key not in found:
        return Cell(dataset, method, wanted=wanted, absence="data not usable" if wanted else NOT_RUN)
    data = found[dataset.key]
    recipes = [_recipe(dataset, method, request, seed=seed) for seed in range(request.seeds)]
    localizer = None if recipes[0].data.roi is None else _localizer(dataset, data, request)
    runs = [Run(dataset, method, recipe, data, request.output, request.device, localizer) for recipe in recipes]
    return Cell(dataset, method, tuple(runs), wanted=wanted)


def _localizer(dataset: PaperDataset, data: FoundData, request: Request) -> Run:
    recipe = localizer_recipe(dataset, profile=request.profile, overrides=request.localizer_overrides)
    return Run(dataset, LOCALIZER, recipe, data, request.output, request.device)


def _recipe(dataset: PaperDataset, method: Method, request: Request, *, seed: int) -> Recipe:
    return recipe_for(
        dataset, method, seed=seed, profile=request.profile, epochs=request.epochs, overrides=request.overrides
    )
