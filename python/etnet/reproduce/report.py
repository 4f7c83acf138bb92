"""`table.md`, `table.csv` and `table.json`: our figures beside the paper's, and what has to be known about ours."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from etnet.output import disk_faults, write_csv, write_json, write_text
from etnet.reproduce.plan import Request
from etnet.reproduce.profiles import BANNERS
from etnet.reproduce.results import DONE, CellResult, TableResult
from etnet.reproduce.scores import Figure
from etnet.reproduce.tables import PaperDataset

READING = (
    "Each cell: ours in percent (mean over seeds, standard deviation over seeds where there are several) with the 95 % "
    "bootstrap interval over test images in brackets, then the paper's number and ours minus the paper's in percentage "
    "points. The pixels of all test images are counted together; means over images are in table.csv and table.json."
)

COLUMNS = (
    "table", "dataset", "method", "metric", "status",
    "ours", "deviation", "interval_low", "interval_high", "image_mean", "around_true_centers", "paper", "difference",
    "seeds", "test_images", "centers", "epochs", "encoder", "encoder_weights", "device", "training_seconds", "profile",
)  # fmt: skip


def write_report(result: TableResult, *, pictures: Sequence[Path] = ()) -> None:
    """Write the table in its three forms into the request's folder.

    Raises:
        EnvironmentFault: A file cannot be written.
    """
    folder = result.plan.request.folder
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.md", markdown(result, pictures=[path.relative_to(folder) for path in pictures]))
    write_csv(folder / "table.csv", COLUMNS, _rows(result))
    write_json(folder / "table.json", result.to_dict())


def markdown(result: TableResult, *, pictures: Sequence[Path] = ()) -> str:
    """The table as a Markdown document; one part per data set."""
    request = result.plan.request
    lines = [f"# {request.table.title}", ""]
    if request.profile in BANNERS:
        lines += [f"> **{BANNERS[request.profile]}**", ""]
    lines += [f"- {name}: {value}" for name, value in header_facts(result)]
    lines += ["", READING]
    for dataset in request.table.datasets:
        cells = [cell for cell in result.cells if cell.cell.dataset == dataset]
        lines += ["", f"## {dataset.title}", ""]
        for sentence in result.plan.incomplete.get(dataset.key, ()):
            lines += [f"> **Warning: {sentence}**", ""]
        lines += [*_dataset_facts(cells), *_grid(dataset, cells)]
        if any(cell.true_center_figures for cell in cells):
            lines += ["", "The same networks around the true disc centres:", "", *_true_center_grid(dataset, cells)]
        lines += [
            f"\n![Segmentations of {dataset.title}]({path.as_posix()})" for path in pictures if path.stem == dataset.key
        ]
    notes = [*request.table.footnotes, *_details(result)]
    lines += ["", "## Notes", "", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def header_facts(result: TableResult) -> list[tuple[str, str]]:
    """What must be known to read the figures, as far as it is: seeds, epochs, hardware, encoder, its weights, time."""
    request = result.plan.request

    def listed(fact: str) -> str:
        return ", ".join(result.distinct(fact))

    localizers = [
        (f"disc localizer of {title}", f"{facts['encoder']}, epochs: {facts['epochs']}")
        for title, facts in result.localizers.items()
    ]
    changed = [
        (f"changed recipe keys{whose}", ", ".join(overrides))
        for whose, overrides in (("", request.overrides), (" of the localizer", request.localizer_overrides))
        if overrides
    ]
    facts = [
        ("seeds per cell", result.seeds()),
        ("epochs", listed("epochs")),
        ("encoder", listed("encoder")),
        ("encoder weights", listed("encoder_weights")),
        *localizers,
        ("device", listed("device")),
        ("training time, all runs", duration(result.training_seconds) if result.training_seconds else ""),
        ("etnet", listed("etnet_version")),
        ("written", result.when),
        ("command", f"`{command_line(request)}`"),
        *changed,
    ]
    return [(name, value) for name, value in facts if value]


def command_line(request: Request) -> str:
    """The command that makes this table, or goes on with it."""
    words = ["etnet", "reproduce", request.table.name, "--data-root", str(request.data_root)]
    if len(request.datasets) < len(request.table.datasets):
        words += ["--only", ",".join(request.datasets)]
    runnable = [method.key for method in request.table.methods if method.not_run is None]
    if len(request.methods) < len(runnable):
        words += ["--methods", ",".join(request.methods)]
    words += [] if request.profile == "paper" else [f"--{request.profile}"]
    words += ["--seeds", str(request.seeds)]
    words += ["--epochs", str(request.epochs)] if request.epochs is not None else []
    words += ["--device", request.device] if request.device != "auto" else []
    words += ["--output", str(request.output)]
    for override in request.overrides:
        words += ["--set", override]
    for override in request.localizer_overrides:
        words += ["--set-localizer", override]
    return shlex.join(words)


def ours_text(figure: Figure) -> str:
    """Our figure: `88.12 ± 0.40 [87.01, 89.10]`."""
    if math.isnan(figure.mean):
        return "undefined"
    text = f"{figure.mean:.2f}"
    if figure.deviation is not None:
        text += f" ± {figure.deviation:.2f}"
    return text if figure.interval is None else f"{text} [{figure.interval[0]:.2f}, {figure.interval[1]:.2f}]"


def paper_text(published: float | None, difference: float | None) -> str:
    """The paper's figure and how far ours lies from it: `93.14 (-5.02)`."""
    if published is None:
        return "-"
    return f"{published:.2f}" if difference is None else f"{published:.2f} ({difference:+.2f})"


def status_text(result: CellResult) -> str:
    """What a cell without figures says; of one with figures, what is missing."""
    if result.status == DONE:
        return ""
    seeds = f", {len(result.scored)} of {len(result.cell.runs)} seeds" if result.scored else ""
    return f"{result.status}{seeds}"


def duration(seconds: float) -> str:
    """Time for people.

    >>> duration(75), duration(7500)
    ('1 min 15 s', '2 h 5 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _dataset_facts(cells: Sequence[CellResult]) -> Iterator[str]:
    scored = [cell for cell in cells if cell.scored]
    if scored:
        yield f"{scored[0].images} test images. {centers_text(scored[0])}".rstrip()
        yield ""


def centers_text(cell: CellResult) -> str:
    """Where the scored squares lie, and how far from the true places; nothing for whole images."""
    if cell.localization is None:
        return "Scored in the squares around the true disc centres." if cell.centers else ""
    error = cell.localization["error_in_disc_diameters"]
    text = "Scored in the squares around the disc, whose centres the disc localizer finds"
    text += f" (mean error {error['mean']:.3f} disc diameters)" if error is not None else ""
    failed = len(cell.localization["failed"])
    return f"{text}; {failed} of {cell.images} not found" + (" and scored as background." if failed else ".")


def _true_center_grid(dataset: PaperDataset, cells: Sequence[CellResult]) -> Iterator[str]:
    yield f"| Method | {' | '.join(f'{metric.title} (%)' for metric in dataset.metrics)} |"
    yield f"|---|{'---:|' * len(dataset.metrics)}"
    for cell in cells:
        if cell.true_center_figures:
            yield f"| {cell.cell.method.title} | {' | '.join(map(ours_text, cell.true_center_figures))} |"


def _grid(dataset: PaperDataset, cells: Sequence[CellResult]) -> Iterator[str]:
    titles = [title for metric in dataset.metrics for title in (f"{metric.title} (%)", "paper")]
    yield f"| Method | {' | '.join(titles)} | training |"
    yield f"|---|{'---:|' * len(titles)}---:|"
    for cell in cells:
        differences = cell.differences() if cell.figures else [None] * len(cell.published)
        words: list[str] = []
        for index, published in enumerate(cell.published):
            ours = ours_text(cell.figures[index]) if cell.figures else status_text(cell)
            words += [ours, paper_text(published, differences[index])]
        time = duration(cell.training_seconds) if cell.scored else ""
        if cell.scored and cell.status != DONE:
            time += f" ({status_text(cell)})"
        yield f"| {cell.cell.method.title} | {' | '.join(words)} | {time} |"


def _details(result: TableResult) -> list[str]:
    """A sentence per cell that is not as it should be; the same sentence only once."""
    sentences = [
        f"{cell.cell.method.title}: {cell.detail}"
        if cell.cell.method.not_run is not None
        else f"{cell.cell.method.title} on {cell.cell.dataset.title}: {cell.status}: {cell.detail}"
        for cell in result.cells
        if cell.detail
    ]
    return list(dict.fromkeys(sentences))


def _rows(result: TableResult) -> Iterator[list[object]]:
    table, profile = result.plan.request.table.name, result.plan.request.profile
    for cell in result.cells:
        differences = cell.differences() if cell.figures else [None] * len(cell.published)
        for index, metric in enumerate(cell.cell.dataset.metrics):
            ours = _figure_cells(cell.figures[index]) if cell.figures else [""] * 5
            yield [
                table,
                cell.cell.dataset.key,
                cell.cell.method.key,
                metric.key,
                cell.status,
                *ours,
                _number(cell.true_center_figures[index].mean) if cell.true_center_figures else "",
                _number(cell.published[index]),
                _number(differences[index]),
                len(cell.scored),
                cell.images or "",
                cell.centers,
                *(_joined(cell, fact) for fact in ("epochs", "encoder", "encoder_weights", "device")),
                f"{cell.training_seconds:.1f}" if cell.scored else "",
                profile,
            ]


def _figure_cells(figure: Figure) -> list[str]:
    low, high = figure.interval or (None, None)
    return [_number(value) for value in (figure.mean, figure.deviation, low, high, figure.image_mean)]


def _joined(cell: CellResult, fact: str) -> str:
    return "; ".join(dict.fromkeys(str(facts[fact]) for facts in cell.facts))


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"
