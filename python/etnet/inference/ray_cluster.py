"""The stages of `etnet.inference.pipeline` on the machines of a Ray cluster: Ray Data hands inputs to a pool of actors.

    inputs -> tasks of a few -> actors (read, predict, write into the shared folder) -> results -> the one journal

An actor has a GPU, or some processors, of its own. Ray starts dead actors anew and repeats their tasks; the journal is
written only here, once for each input. What an actor does is in `etnet.inference.ray_worker`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from etnet import errors
from etnet.errors import EnvironmentFault, EtnetError, UsageError
from etnet.inference.inputs import InputItem
from etnet.inference.journal import Journal
from etnet.inference.pipeline import Step
from etnet.inference.ray_worker import Ledger, RemoteAttempts, SegmentingActor, WorkerSetup, item_to_dict
from etnet.inference.results import ImageResult, result_from_dict

LOCAL = "local"
"""The address that starts a cluster of this machine's own and ends it with the run."""

_MOST_THREADS = 4
"""Processors of an actor where none are asked for: several small actors do more than a large one."""

_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_JOIN = 60.0
_TASKS_PER_ACTOR = 4
_MOST_INPUTS_PER_TASK = {"cpu": 16, "gpu": 64}
"""What is done again when an actor dies; on a GPU, where an input takes milliseconds, more share the cost of a task."""

_JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); ray.shutdown()"

Complete = Callable[[str], "ImageResult | None"]


@dataclass(frozen=True)
class Share:
    """What each actor has of the cluster, and how many there are."""

    actors: int
    cpus: int
    gpus: int = 0

    def inputs_per_task(self, inputs: int, batch_size: int) -> int:
        """Few enough that all actors have work to the end, and at least one batch.

        >>> Share(actors=2, cpus=1).inputs_per_task(10_000, batch_size=1)
        16
        >>> Share(actors=2, cpus=1).inputs_per_task(20, batch_size=1)
        3
        """
        most = _MOST_INPUTS_PER_TASK["gpu" if self.gpus else "cpu"]
        even = math.ceil(inputs / (self.actors * _TASKS_PER_ACTOR))
        return max(batch_size, min(even, max(most, 4 * batch_size)))


class RayPipeline:
    """Segments a stream of inputs on a Ray cluster; stands for `Pipeline`.

    Attributes:
        ran_on: Runtime and device of the actors; None until one has begun.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        *,
        address: str,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare a run; nothing is started yet.

        Args:
            setup: What every actor needs to know.
            address: `local`, `auto` for the cluster that this machine belongs to, or `HOST:PORT` of its head.
            on_note: Told in a sentence what the user should know.

        Raises:
            UsageError: The address or the device is none for a cluster.
            EnvironmentFault: Ray is not installed.
        """
        check_address(address, device=setup.model.device)
        import_ray()
        self.ran_on: str | None = None
        self._setup = setup
        self._address = address
        self._complete: Complete = lambda _file: None
        self._on_note = on_note

    def keeping(self, journal: Journal) -> RayPipeline:
        """This pipeline, which now keeps what a journal of the same output folder calls complete."""
        self._complete = journal.complete
        return self

    def run(self, items: Iterable[InputItem]) -> Generator[Step, None, None]:
        """Segment the inputs; every one comes out once, in the order in which tasks end.

        Raises:
            EnvironmentFault: The cluster cannot be reached or used, the disk refuses or a device fails; what is
                complete stays.
        """
        known = {item: self._known_sha256(item) for item in items}
        if not known:
            return
        with connected(self._address):
            yield from self._steps(known)

    def _known_sha256(self, item: InputItem) -> str | None:
        result = self._complete(item.id)
        return result.sha256 if result is not None and result.is_of(item, result.sha256) else None

    def _steps(self, known: Mapping[InputItem, str | None]) -> Iterator[Step]:
        share = _share(_nodes(), device=self._setup.model.device, threads=self._setup.threads)
        waiting = {item.id for item in known}
        for line in self._lines(known, share):
            if "fault" in line:
                kind, sentence = line["fault"]
                raise _error_class(kind)(sentence)
            if "note" in line and self._on_note is not None:
                self._on_note(line["note"])
            self.ran_on = line.get("ran_on", self.ran_on)
            step = self._step(line)
            # A task that Ray did twice gives the same results again.
            if step is not None and step.result.file in waiting:
                waiting.remove(step.result.file)
                yield step
        if waiting:
            raise EnvironmentFault(
                f"the Ray cluster ended without results for {len(waiting)} of {len(known)} inputs, such as "
                f"{min(waiting)}; run the command again with --continue"
            )

    def _step(self, line: dict[str, Any]) -> Step | None:
        if "kept" in line:
            kept = self._complete(line["kept"])
            return None if kept is None else Step(kept, is_new=False)
        return Step(result_from_dict(line["result"])) if "result" in line else None

    def _lines(self, known: Mapping[InputItem, str | None], share: Share) -> Iterator[dict[str, Any]]:
        """What the actors report, as it comes."""
        import ray.data
        from ray.exceptions import RayActorError

        rows = [{"input": json.dumps(item_to_dict(item, sha256))} for item, sha256 in known.items()]
        tasks = math.ceil(len(rows) / share.inputs_per_task(len(rows), self._setup.work.batch_size))
        segmented = ray.data.from_items(rows, override_num_blocks=tasks).map_batches(
            SegmentingActor,
            fn_constructor_args=(_share_of(self._setup, share), RemoteAttempts(_start_ledger())),
            # All of a block is one call, so that a task gives its results at once or not at all.
            batch_size=None,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(share.actors, tasks)),
            num_cpus=share.cpus,
            num_gpus=share.gpus or None,
        )
        try:
            for batch in segmented.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                yield from (json.loads(line) for line in batch["line"])
        except RayActorError as error:
            raise EnvironmentFault(
                f"the workers of the Ray cluster {self._address} cannot run etnet ({_last_line(error)}); install the "
                "same etnet on every machine, or see Ray's logs there"
            ) from error


def check_address(address: str, *, device: str) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: The text is no address of a cluster, or the device is one of a single machine.
    """
    host, _, port = address.rpartition(":")
    if address not in (LOCAL, "auto") and not (host and "/" not in host and port.isdecimal()):
        raise UsageError(
            f"--ray {address}: expected local, auto or HOST:PORT of the cluster's head; for a cluster of this machine "
            "alone write --ray local"
        )
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device}: with --ray every actor has the GPU that Ray gives it; use --device cuda")


def import_ray() -> Any:
    """Import Ray, without its reports to its makers and without its notes on this terminal.

    Raises:
        EnvironmentFault: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EnvironmentFault(
            f"--ray needs Ray Data, which cannot be imported ({error}); install it with: pip install 'etnet[ray]'"
        ) from error
    # Faults reach the user as one sentence; a death that was made good is none.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be the driver of a cluster inside the block; one that the process is connected to already is used and stays.

    Raises:
        EnvironmentFault: There is none at the address, or it runs another Ray or Python.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    if address != LOCAL:
        _require_cluster(address)
    try:
        own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_cluster(address: str) -> None:
    """Try to join from another process, because Ray itself waits for a head for minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, str(error)) from error
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_TO_JOIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer of a Ray head in {_SECONDS_TO_JOIN:.0f} s") from error
    if tried.returncode:
        raise _unreachable(address, tried.stderr)


def _unreachable(address: str, reason: str) -> EnvironmentFault:
    lines = reason.strip().splitlines() or ["no reason given"]
    return EnvironmentFault(
        f"--ray {address}: no Ray cluster can be joined there ({lines[-1]}); start one with 'ray start --head' and "
        "join this machine with 'ray start --address HOST:PORT', or use --ray local"
    )


def _nodes() -> list[dict[str, float]]:
    """The resources of each machine of the cluster."""
    ray: Any = import_ray()
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _share(nodes: Sequence[Mapping[str, float]], *, device: str, threads: int | None) -> Share:
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if device == "cuda" and not gpus:
        raise EnvironmentFault("--device cuda: no machine of the Ray cluster has a GPU; use --device auto or cpu")
    if gpus and device != "cpu":
        return Share(gpus, cpus=1, gpus=1)
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    cpus = threads or min(_MOST_THREADS, most)
    actors = sum(int(node.get("CPU", 0) // cpus) for node in nodes) if cpus else 0
    if not actors:
        raise EnvironmentFault(
            f"no machine of the Ray cluster has {cpus or 1} processors, the most is {most}; give fewer --threads"
        )
    return Share(actors, cpus)


def _share_of(setup: WorkerSetup, share: Share) -> WorkerSetup:
    """The setup with as many threads as an actor has processors; on a GPU the threads are the run's own choice."""
    if share.gpus:
        return setup
    work = replace(setup.work, jobs=setup.work.jobs or max(1, share.cpus // 2))
    return replace(setup, threads=share.cpus, work=work)


def _start_ledger() -> Any:
    """On this machine, where it outlives a worker machine that an input brings down."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(Ledger).options(**options).remote()


def _error_class(name: str) -> type[EtnetError]:
    found = getattr(errors, name, EnvironmentFault)
    return found if isinstance(found, type) and issubclass(found, EtnetError) else EnvironmentFault


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
