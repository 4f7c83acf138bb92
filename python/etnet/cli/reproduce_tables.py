"""The tables that `etnet reproduce` prints: what would be trained, and what came of it, within 120 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from etnet.cli.console import counted
from etnet.reproduce.profiles import BANNERS
from etnet.reproduce.report import centers_text, duration, header_facts, paper_text, status_text

if TYPE_CHECKING:
    from etnet.reproduce.plan import Plan, Run
    from etnet.reproduce.results import CellResult, TableResult
    from etnet.reproduce.scores import Figure
    from etnet.reproduce.tables import PaperDataset


def plan_values(plan: Plan) -> dict[str, Any]:
    """The dry run for `--json`."""
    runs = [
        {
            "dataset": run.dataset.key,
            "method": run.method.key,
            "seed": run.seed,
            "folder": str(run.folder),
            "state": state_of(run),
            "iterations": run.iterations,
            "iterations_missing": missing_iterations(run),
        }
        for run in plan.wanted_runs
    ]
    return {
        "table": plan.request.table.name,
        "runs": runs,
        "iterations_missing": sum(missing_iterations(run) for run in plan.wanted_runs),
        "cells_without_runs": [
            {"dataset": cell.dataset.key, "method": cell.method.key, "reason": cell.absence}
            for cell in plan.cells
            if cell.absence is not None
        ],
        "incomplete_data": {key: list(sentences) for key, sentences in plan.incomplete.items()},
    }


def plan_table(plan: Plan) -> Table:
    """The dry run as a table: one line per run, the sum below."""
    runs = plan.wanted_runs
    missing = [run for run in runs if run.job.scores() is None]
    table = _table(f"{counted(len(missing), 'run')} of {len(runs)} to do")
    table.show_footer = True
    images = f"{sum(missing_iterations(run) for run in runs)}"
    for title, footer in (
        ("Data set", "all"),
        ("Method", ""),
        ("seed", ""),
        ("state", ""),
        ("iterations to do", images),
    ):
        table.add_column(title, footer=footer, justify="right" if title in ("seed", "iterations to do") else "left")
    table.add_column("batch", justify="right")
    for run in runs:
        batch = str(run.recipe.training.batch_size)
        table.add_row(
            run.dataset.title, run.method.title, str(run.seed), state_of(run), str(missing_iterations(run)), batch
        )
    return table


def state_of(run: Run) -> str:
    """How far a run is: `done`, `to score`, `to continue from 120` or `to train`."""
    job = run.job
    if job.scores() is not None:
        return "done"
    if job.trained() is not None:
        return "to score"
    done = job.iterations_done()
    return f"to continue from {done}" if done else "to train"


def missing_iterations(run: Run) -> int:
    """Optimizer steps that a run still needs."""
    return 0 if run.job.trained() is not None else max(0, run.iterations - run.job.iterations_done())


def result_tables(result: TableResult) -> Iterator[Table | Text]:
    """The banner of a run that is not the paper's, the facts, and one table per data set asked for or scored."""
    request = result.plan.request
    yield Text(request.table.title, style="bold")
    if request.profile in BANNERS:
        yield Text(BANNERS[request.profile], style="bold yellow")
    yield Text("\n".join(f"{name}: {value}" for name, value in header_facts(result) if name != "command"))
    for dataset in request.table.datasets:
        cells = [cell for cell in result.cells if cell.cell.dataset == dataset]
        if dataset.key not in request.datasets and not any(cell.scored for cell in cells):
            continue
        yield _dataset_table(dataset, cells)
        for sentence in result.plan.incomplete.get(dataset.key, ()):
            yield Text(f"Warning: {sentence}\n", style="yellow")
        yield from (Text(f"{centers_text(cell)}\n") for cell in cells[-1:] if cell.centers)
    for cell in result.cells:
        if cell.detail and cell.cell.method.not_run is None:
            yield Text(f"{cell.cell.method.title} on {cell.cell.dataset.title}: {cell.status}: {cell.detail}")


def _dataset_table(dataset: PaperDataset, cells: list[CellResult]) -> Table:
    """Per metric ours, its interval, and the paper's number with the difference, one below the other."""
    table = _table(dataset.title)
    table.add_column("Method")
    for metric in dataset.metrics:
        table.add_column(f"{metric.title} %\npaper (diff.)", justify="right", no_wrap=True)
    table.add_column("training", justify="right")
    for cell in cells:
        differences = cell.differences() if cell.figures else [None] * len(cell.published)
        words = [
            f"{_ours(cell.figures[index]) if cell.figures else status_text(cell)}\n"
            f"{paper_text(published, differences[index])}"
            for index, published in enumerate(cell.published)
        ]
        time = [duration(cell.training_seconds), status_text(cell)] if cell.scored else []
        table.add_row(cell.cell.method.title, *words, "\n".join(filter(None, time)))
    return table


def _ours(figure: Figure) -> str:
    deviation = "" if figure.deviation is None else f" ± {figure.deviation:.2f}"
    interval = "" if figure.interval is None else f"\n[{figure.interval[0]:.1f}, {figure.interval[1]:.1f}]"
    return f"{figure.mean:.2f}{deviation}{interval}"


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), leading=0
    )
