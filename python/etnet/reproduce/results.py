"""What every cell of a table shows, read from the folders of its runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from etnet import __version__
from etnet.reproduce.plan import NOT_RUN, Cell, Plan, Run
from etnet.reproduce.scores import Figure, figures_of
from etnet.reproduce.tables import Figures

DONE, FAILED, INCOMPLETE = "done", "failed", "incomplete"


@dataclass(frozen=True)
class CellResult:
    """One cell as it stands.

    Attributes:
        cell: The cell.
        published: The paper's numbers.
        status: `done`, `incomplete`, `failed`, or why there is nothing: `no data`, `not run`, `data not usable`.
        detail: A sentence about a status other than `done`.
        figures: Our numbers, one per metric; none unless at least one run is scored.
        facts: Content of `trained.json` of every scored run.
        scored: Runs that are scored.
        images: Test images.
        centers: Where the scored squares lie: `found`, `true`, or nothing for whole images.
        true_center_figures: Our numbers with true centres instead of found ones.
        localization: What finding the centres gave, as `LocalizationReport.to_dict` says it.
    """

    cell: Cell
    published: Figures
    status: str
    detail: str = ""
    figures: tuple[Figure, ...] = ()
    facts: tuple[dict[str, Any], ...] = ()
    scored: tuple[Run, ...] = ()
    images: int = 0
    centers: str = ""
    true_center_figures: tuple[Figure, ...] = ()
    localization: dict[str, Any] | None = None

    @property
    def training_seconds(self) -> float:
        """Seconds of training behind the cell."""
        return sum(float(facts["training_seconds"]) for facts in self.facts)

    def differences(self) -> list[float | None]:
        """Ours minus the paper's, per metric, in percentage points."""
        return [
            None if published is None or math.isnan(figure.mean) else figure.mean - published
            for figure, published in zip(self.figures, self.published, strict=True)
        ]


@dataclass(frozen=True)
class TableResult:
    """A whole table as it stands.

    Attributes:
        plan: What it was made from.
        cells: In the order of `plan.cells`.
        when: Time of writing, ISO 8601, UTC.
        localizers: Content of `trained.json` of the localizer behind each data set, by its title.
    """

    plan: Plan
    cells: tuple[CellResult, ...]
    when: str
    localizers: dict[str, dict[str, Any]]

    @property
    def training_seconds(self) -> float:
        """Seconds of training behind all cells, localizers included."""
        localizers = sum(float(facts["training_seconds"]) for facts in self.localizers.values())
        return localizers + sum(cell.training_seconds for cell in self.cells)

    def distinct(self, fact: str) -> list[str]:
        """The different values of a fact over all scored runs, in order of appearance."""
        return list(dict.fromkeys(str(facts[fact]) for cell in self.cells for facts in cell.facts))

    def seeds(self) -> str:
        """Number of seeds per scored cell: one number, or the range; nothing while no cell is scored."""
        counts = sorted({len(cell.scored) for cell in self.cells if cell.scored})
        return "-".join(map(str, counts[:1] + counts[1:][-1:]))

    def to_dict(self) -> dict[str, Any]:
        """Everything, for `table.json`."""
        request = self.plan.request
        return {
            "table": request.table.name,
            "title": request.table.title,
            "profile": request.profile,
            "written": self.when,
            "etnet_version": __version__,
            "data_root": str(request.data_root),
            "seeds": request.seeds,
            "overrides": list(request.overrides),
            "localizer_overrides": list(request.localizer_overrides),
            "localizers": self.localizers,
            "incomplete_data": {key: list(sentences) for key, sentences in self.plan.incomplete.items()},
            "training_seconds": round(self.training_seconds, 1),
            "footnotes": list(request.table.footnotes),
            "cells": [_cell_dict(cell) for cell in self.cells],
        }


def collect(plan: Plan) -> TableResult:
    """Read what is there for every cell; cells that were not asked for are shown too if their runs exist."""
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    cells = tuple(_result(cell, plan) for cell in plan.cells)
    return TableResult(plan, cells, when, _localizers(cells))


def _localizers(cells: Iterable[CellResult]) -> dict[str, dict[str, Any]]:
    runs = {
        cell.cell.dataset.title: run.localizer for cell in cells for run in cell.scored if run.localizer is not None
    }
    return {title: facts for title, run in runs.items() if (facts := run.job.trained()) is not None}


def _result(cell: Cell, plan: Plan) -> CellResult:
    published = plan.request.table.figures(cell.method, cell.dataset)
    if cell.absence is not None:
        detail = cell.method.not_run or (plan.broken.get(cell.dataset.key, "") if cell.wanted else "")
        return CellResult(cell, published, cell.absence, detail)
    scored = [(run, scores) for run in cell.runs if (scores := run.job.scores()) is not None]
    status, detail = _status(cell.runs, [run for run, _ in scored], wanted=cell.wanted)
    if not scored:
        return CellResult(cell, published, status, detail)
    contents = [scores for _, scores in scored]
    first = contents[0]
    around_true = [scores | {"images": scores["images_around_true_centers"]} for scores in contents if first["centers"]]
    return CellResult(
        cell,
        published,
        status,
        detail,
        figures=tuple(figures_of(contents, cell.dataset.metrics)),
        facts=tuple(run.job.trained() or {} for run, _ in scored),
        scored=tuple(run for run, _ in scored),
        images=len(first["images"]),
        centers=first["centers"],
        true_center_figures=tuple(figures_of(around_true, cell.dataset.metrics)) if around_true else (),
        localization=first.get("localization"),
    )


def _status(runs: Iterable[Run], scored: list[Run], *, wanted: bool) -> tuple[str, str]:
    others = [run for run in runs if run not in scored]
    if not others:
        return DONE, ""
    failures = [(run, failure) for run in others if (failure := run.job.failure()) is not None]
    if failures:
        run, failure = failures[0]
        return FAILED, f"seed {run.seed}: {failure}"
    begun = [(run, done) for run in others if (done := run.job.iterations_done())]
    if begun:
        run, done = begun[0]
        return INCOMPLETE, f"seed {run.seed}: {done} of {run.iterations} iterations"
    if scored or wanted:
        return INCOMPLETE, f"{len(scored)} of {len(scored) + len(others)} seeds"
    return NOT_RUN, ""


def _figure_dict(figure: Figure) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(figure).items()
    }


def _cell_dict(result: CellResult) -> dict[str, Any]:
    metrics = []
    for index, metric in enumerate(result.cell.dataset.metrics):
        ours: dict[str, Any] = {"mean": None, "deviation": None, "interval": None, "image_mean": None}
        difference = None
        if result.figures:
            ours = _figure_dict(result.figures[index])
            difference = result.differences()[index]
        values = {"metric": metric.key, "title": metric.title, **ours}
        values |= {"paper": result.published[index], "difference": difference}
        if result.true_center_figures:
            values["around_true_centers"] = _figure_dict(result.true_center_figures[index])
        metrics.append(values)
    return {
        "dataset": result.cell.dataset.key,
        "method": result.cell.method.key,
        "title": result.cell.method.title,
        "status": result.status,
        "detail": result.detail,
        "test_images": result.images,
        "centers": result.centers,
        "localization": result.localization,
        "metrics": metrics,
        "training_seconds": round(result.training_seconds, 1),
        "runs": [
            {"seed": run.seed, "folder": str(run.folder), "key": run.key, **facts}
            for run, facts in zip(result.scored, result.facts, strict=True)
        ],
    }
