"""The running part of `etnet infer`: progress on the terminal, stopping by Ctrl-C, and a Ray cluster with --ray."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import note, progress_bar, warn
from etnet.cli.refinement_options import settings

if TYPE_CHECKING:
    from etnet.cli.folder_options import FolderChoice
    from etnet.data.volumes import Plane
    from etnet.inference.folder import FolderOutcome
    from etnet.inference.inputs import Inputs
    from etnet.inference.pipeline import Step
    from etnet.inference.predictor import ImagePredictor
    from etnet.inference.ray_cluster import RayPipeline
    from etnet.inference.refinement import Refinement


@dataclass(frozen=True)
class FolderRun:
    """What one command segments, with what, and where to.

    Attributes:
        source: INPUT, as the user wrote it.
        inputs: What was found there.
        model: MODEL, as the user named it, or the newest run.
        opened: The file or bundle that it stands for.
        predictor: The network with what is done around it.
        refinement: What that is.
        target: Folder for results.
        choice: What is written, and how the work is spread.
        plane: How volumes are cut into slices.
    """

    source: Path
    inputs: Inputs
    model: Path
    opened: Path
    predictor: ImagePredictor
    refinement: Refinement
    target: Path
    choice: FolderChoice
    plane: Plane


def segment(run: FolderRun, cluster: RayPipeline | None) -> FolderOutcome:
    """Segment the inputs of a run under a progress bar; Ctrl-C and SIGTERM end the command in order.

    Args:
        run: What is to be done.
        cluster: Where it is done; None does it in this process.

    Raises:
        EtnetError: See `predict_folder`.
    """
    from etnet.inference.folder import Resumption, predict_folder
    from etnet.inference.journal import source_key
    from etnet.inference.results import Failure

    choice, failed = run.choice, 0
    with progress_bar(rate=True) as bar:
        total = len(run.inputs.items[choice.part_id or 0 :: choice.num_parts])
        task = bar.add_task("Segmenting", total=total, failed="")

        def show(step: Step) -> None:
            nonlocal failed
            failed += isinstance(step.result, Failure)
            bar.update(task, advance=1, failed=f"{failed} failed" if failed else "")

        with _stoppable(run.target):
            return predict_folder(
                run.predictor,
                run.inputs,
                run.target,
                choice=choice.outputs(),
                work=choice.work(run.plane),
                resumption=Resumption(choice.keeps, choice.part, settings(run.refinement), source_key(run.source)),
                on_step=show,
                on_note=warn,
                source=cluster.keeping if cluster else None,
            )


@contextmanager
def _stoppable(target: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run inside the block with a word on how to go on, and exit code 130."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        folder = shlex.quote(str(target))
        note(f"Stopped; finished images are kept. Go on with the same command and: --output {folder} --continue")
        click.get_current_context().exit(130)
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def ray_cluster(address: str | None, device: str) -> Iterator[None]:
    """The Ray cluster of a run with --ray; without an address nothing is connected.

    Raises:
        EtnetError: There is no such cluster, or it has no such device.
    """
    if address is None:
        yield
        return
    from etnet.inference.ray_cluster import check_address, connected

    check_address(address, device=device)
    # Ray tells of dead workers on stdout, which belongs to the results.
    with redirect_stdout(sys.stderr), connected(address):
        yield


def ray_pipeline(run: FolderRun, *, backend: str, device: str, threads: int | None) -> RayPipeline | None:
    """What spreads a run over the machines of the connected cluster; None without --ray.

    Args:
        run: What is to be done.
        backend: What runs the network on every machine.
        device: Where it runs there.
        threads: Processor threads of each network.
    """
    from etnet.inference.ray_cluster import RayPipeline
    from etnet.inference.ray_worker import ModelChoice, WorkerSetup

    choice = run.choice
    if choice.ray is None:
        return None
    model = ModelChoice(run.opened, backend, device, run.refinement)
    setup = WorkerSetup(model, threads, run.target, choice.outputs(), choice.work(run.plane), Path.cwd())
    return RayPipeline(setup, address=choice.ray, on_note=warn)
