"""What runs on the workers of a Ray cluster: a pipeline of one actor, fed with tasks of a few inputs each.

Tasks and what comes back are lines of JSON. Ray repeats a task whose actor died, as often as it takes; a ledger outside
the actors counts the attempts, so that an input that kills whoever takes it ends as a failure.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from etnet.data.picture_files import check_file
from etnet.errors import EnvironmentFault, EtnetError
from etnet.inference.inputs import InputItem
from etnet.inference.pipeline import Pipeline, Work, input_sha256
from etnet.inference.predictor import ImagePredictor
from etnet.inference.refinement import Refinement, refine
from etnet.inference.result_files import OutputChoice, ResultWriter
from etnet.inference.results import Failure, Result, result_to_dict
from etnet.inference.two_stage import open_predictor

MOST_DEATHS = 2
"""How often an input may be the only one in work when an actor dies; one death may be the machine's fault."""

Line = dict[str, Any]


@dataclass(frozen=True)
class ModelChoice:
    """What every actor opens.

    Attributes:
        path: Model file, run directory or bundle, on a folder that all machines share.
        backend: What runs the network; see `Predictor.load`.
        device: `auto`, `cpu` or `cuda`.
        refinement: What is done around the network.
    """

    path: Path
    backend: str
    device: str
    refinement: Refinement


@dataclass(frozen=True)
class WorkerSetup:
    """Everything that an actor needs to know; it can be pickled.

    Attributes:
        model: What it opens.
        threads: Processor threads of the network.
        output: Folder for results, shared by all machines.
        choice: What is written beside masks.
        work: How the work is spread inside the actor.
        folder: Where the run was started; relative paths begin there.
    """

    model: ModelChoice
    threads: int | None
    output: Path
    choice: OutputChoice
    work: Work
    folder: Path


class Ledger:
    """Counts attempts that were begun and not ended; lives in an actor of its own, apart from those that may die."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Note an attempt; returns how many before it came to no end."""
        self._begun[name] += 1
        return self._begun[name] - 1

    def end(self, name: str) -> None:
        """Forget the attempts at what has succeeded."""
        self._begun.pop(name, None)


class Attempts(Protocol):
    """The ledger as the actors see it."""

    def begin(self, name: str) -> int:
        """See `Ledger.begin`."""

    def end(self, name: str) -> None:
        """See `Ledger.end`."""


class RemoteAttempts:
    """Calls the ledger's actor; goes with the setup to every worker."""

    def __init__(self, actor: Any) -> None:
        """Take the handle of a `Ledger` actor."""
        self._actor = actor

    def begin(self, name: str) -> int:
        """See `Ledger.begin`."""
        import ray

        return int(ray.get(self._actor.begin.remote(name)))

    def end(self, name: str) -> None:
        """See `Ledger.end`."""
        import ray

        ray.get(self._actor.end.remote(name))


class SegmentingActor:
    """Opens the model once and segments tasks; the callable class of `ray.data.Dataset.map_batches`."""

    def __init__(self, setup: WorkerSetup, attempts: Attempts) -> None:
        """Open the model; where that fails, every task says why."""
        self._setup = setup
        self._attempts = attempts
        self._notes: list[str] = []
        self._fault: EtnetError | None = None
        self._predictor: ImagePredictor | None = None
        try:
            _enter(setup)
            self._predictor = self._open()
        except EtnetError as error:
            self._fault = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Segment a task: `input` holds a line for each of its inputs, `line` will hold one for each event."""
        tasks = [json.loads(line) for line in batch["input"]]
        return {"line": [json.dumps(line, allow_nan=False) for line in self._lines(tasks)]}

    def _lines(self, tasks: Sequence[Line]) -> Iterator[Line]:
        if self._predictor is None:
            yield fault_line(self._fault or EnvironmentFault("the model was not opened"))
            return
        yield {"ran_on": self._predictor.runs_on}
        kept, items = self._part_by_hash(tasks)
        yield from kept
        name = f"task {tasks[0]['id']}"
        deaths = self._attempts.begin(name)
        try:
            # After a death nothing shows which input was the cause, so that they are taken one at a time.
            results = self._run(items) if deaths == 0 else self._run_apart(items)
            yield from ({"result": result_to_dict(result)} for result in results)
        except EtnetError as error:
            yield fault_line(error)
        self._attempts.end(name)
        yield from ({"note": self._notes.pop(0)} for _ in range(len(self._notes)))

    def _part_by_hash(self, tasks: Sequence[Line]) -> tuple[list[Line], list[InputItem]]:
        """Inputs that are as an earlier run saw them, whose results are complete, and those to segment."""
        known = [task for task in tasks if task["known_sha256"] is not None]
        with ThreadPoolExecutor(self._setup.work.threads) as threads:
            hashes = list(threads.map(_sha256_or_none, (Path(task["path"]) for task in known)))
        kept = {task["id"] for task, sha256 in zip(known, hashes, strict=True) if sha256 == task["known_sha256"]}
        lines: list[Line] = [{"kept": task["id"]} for task in tasks if task["id"] in kept]
        return lines, [item_from_dict(task) for task in tasks if task["id"] not in kept]

    def _run(self, items: Iterable[InputItem]) -> Iterator[Result]:
        setup = self._setup
        if self._predictor is None:
            return
        writer = ResultWriter(setup.output, self._predictor.contract, setup.choice)
        pipeline = Pipeline(self._predictor, writer, setup.work, finished=lambda _item, _sha256: None)
        with closing(pipeline.run(items)) as steps:
            yield from (step.result for step in steps)

    def _run_apart(self, items: Iterable[InputItem]) -> Iterator[Result]:
        for item in items:
            name = f"input {item.id}"
            deaths = self._attempts.begin(name)
            if deaths >= MOST_DEATHS:
                yield Failure(item.id, _killed_sentence(item, deaths))
                continue
            yield from self._run([item])
            self._attempts.end(name)

    def _open(self) -> ImagePredictor:
        model = self._setup.model
        network = open_predictor(model.path, backend=model.backend, device=model.device, threads=self._setup.threads)
        return refine(network, model.refinement, on_smaller_batch=self._note_smaller_batch)

    def _note_smaller_batch(self, size: int) -> None:
        self._notes.append(f"{socket.gethostname()}: the device has too little memory; going on with batches of {size}")


def item_to_dict(item: InputItem, known_sha256: str | None) -> Line:
    """An input for a task; the hash is that of an earlier run whose result is complete."""
    return {
        "id": item.id,
        "path": str(item.path),
        "output_name": item.output_name,
        "spacing": item.spacing,
        "known_sha256": known_sha256,
    }


def item_from_dict(content: Line) -> InputItem:
    """The input that `item_to_dict` described."""
    spacing = content["spacing"]
    return InputItem(
        content["id"],
        Path(content["path"]),
        content["output_name"],
        None if spacing is None else (float(spacing[0]), float(spacing[1])),
    )


def fault_line(error: EtnetError) -> Line:
    """What stops the run, with the machine where it happened."""
    return {"fault": [type(error).__name__, f"{error} (on {socket.gethostname()})"]}


def _enter(setup: WorkerSetup) -> None:
    """Work in the folder where the run was started, so that relative paths mean and read the same."""
    try:
        os.chdir(setup.folder)
    except OSError as error:
        raise EnvironmentFault(
            f"{setup.folder}: this worker of the Ray cluster cannot enter the folder where the run was started "
            f"({error.strerror}); start it in a folder that all machines share"
        ) from error


def _sha256_or_none(path: Path) -> str | None:
    try:
        check_file(path)  # a pipe or a device has no end to hash
        return input_sha256(path)
    except EtnetError:
        return None


def _killed_sentence(item: InputItem, deaths: int) -> str:
    return (
        f"{item.path}: the process that segmented it died {deaths} times, for lack of memory or by a crash; see the "
        "logs of the Ray worker, or cut the image into parts"
    )
