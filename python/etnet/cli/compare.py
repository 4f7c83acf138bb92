"""`etnet compare`: two evaluations of the same images, side by side."""

from __future__ import annotations

import itertools
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etnet.cli.console import closing_lines, counted, note, output

if TYPE_CHECKING:
    from etnet.metrics.comparison import ScoreDifference, StoredEvaluation

RUNS = Path("runs/compare")
EVALUATIONS = Path("runs/evaluate")
SIGNIFICANT = 0.05


@click.command("compare", short_help="Compare two evaluations image by image.")
@click.argument("run_a", metavar="A", type=click.Path(path_type=Path))
@click.argument("run_b", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "output_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Folder for results [default: {RUNS}/A-B].",
)
@click.option("--overwrite", is_flag=True, help="Write into an --output folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print comparison.json to stdout, and nothing else there.")
def command(run_a: Path, run_b: Path, output_folder: Path | None, overwrite: bool, as_json: bool) -> None:
    """Compare two evaluations of the same images.

    \b
    etnet compare runs/evaluate/first runs/evaluate/second

    A and B are folders that `etnet evaluate` wrote, or run directories, whose newest evaluation in runs/evaluate is
    taken. For every score: the means, the mean difference over the images with its 95 % bootstrap interval, and the p
    value of a paired permutation test of that difference. Writes comparison.json and comparison.csv.
    """
    from etnet.metrics.comparison import compare_evaluations, read_evaluation
    from etnet.output import check_output_folder, create_output_folder, json_text, write_csv, write_json

    if output_folder is not None:
        check_output_folder(output_folder, overwrite=overwrite)
    a, b = (read_evaluation(_evaluation_folder(path)) for path in (run_a, run_b))
    _require_two(a, b)
    differences = compare_evaluations(a, b)
    content = _content(a, b, differences)
    target = create_output_folder(output_folder, parent=RUNS, name=f"{_name(a)}-{_name(b)}")
    write_json(target / "comparison.json", content)
    rows = [_csv_row(row) for row in content["scores"]]
    write_csv(target / "comparison.csv", list(rows[0]), [list(row.values()) for row in rows])
    if as_json:
        click.echo(json_text(content))
    else:
        _print_tables(a, b, differences)
    better = b if _mean_dice(b) > _mean_dice(a) else a
    next_command = f"etnet infer YOUR_IMAGES --model {shlex.quote(better.metrics['model']['path'])} --overlay"
    closing_lines(target, next_command, to_stderr=as_json)


def _evaluation_folder(path: Path) -> Path:
    """The folder of an evaluation: the path itself, or the newest evaluation of a run's weights."""
    from etnet.errors import DataError
    from etnet.inference.bundle import is_bundle
    from etnet.manifest import BUNDLE_FILE, read_weights_info, resolve_model
    from etnet.metrics.comparison import METRICS_FILE, is_evaluation
    from etnet.sidecar import file_sha256

    if is_evaluation(path):
        return path
    if path.is_dir() and (path / METRICS_FILE).is_file():
        # An evaluation that lost a file, which reading it will name.
        return path
    if not path.exists():
        raise DataError(f"{path}: no such folder; expected one that 'etnet evaluate' wrote, or a run directory")
    sha256 = file_sha256(path / BUNDLE_FILE) if is_bundle(path) else read_weights_info(resolve_model(path)).sha256
    found = [folder for folder in EVALUATIONS.glob("*") if is_evaluation(folder) and _scored(folder) == sha256]
    if not found:
        raise DataError(
            f"{path}: has no evaluation in {EVALUATIONS}; write one with: "
            f"etnet evaluate {shlex.quote(str(path))} --data LABELLED_DATA"
        )
    newest = max(found, key=lambda folder: (folder / METRICS_FILE).stat().st_mtime_ns)
    note(f"Evaluation of {path}: {newest}")
    return newest


def _scored(folder: Path) -> str | None:
    """SHA-256 of the weights that an evaluation scored; None where its file cannot be read."""
    from etnet.metrics.comparison import METRICS_FILE

    try:
        content = json.loads((folder / METRICS_FILE).read_text("utf-8"))
        return str(content["model"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _require_two(a: StoredEvaluation, b: StoredEvaluation) -> None:
    from etnet.errors import UsageError

    if a.folder.resolve() == b.folder.resolve():
        raise UsageError(f"{a.folder}: A and B are the same evaluation; give two")


def _name(evaluation: StoredEvaluation) -> str:
    return evaluation.folder.resolve().name


def _mean_dice(evaluation: StoredEvaluation) -> float:
    region = next(iter(evaluation.metrics["regions"].values()))
    value = region["pooled"]["mean_foreground_dice"]
    return -1.0 if value is None else float(value)


def _content(a: StoredEvaluation, b: StoredEvaluation, differences: Sequence[ScoreDifference]) -> dict[str, Any]:
    from etnet import __version__
    from etnet.metrics.statistics import LEVEL, PERMUTATIONS, RESAMPLES, SEED

    return {
        "etnet_version": __version__,
        "a": {"folder": str(a.folder), "model": a.metrics["model"]},
        "b": {"folder": str(b.folder), "model": b.metrics["model"]},
        "images": len(a.images),
        "interval": {
            "method": "percentile bootstrap over images, paired",
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
        },
        "test": {"method": "paired permutation test of the mean difference, two-sided", "permutations": PERMUTATIONS},
        "scores": [difference.to_dict() for difference in differences],
    }


def _csv_row(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"] or (None, None)
    return {key: value for key, value in row.items() if key != "interval"} | {"low": low, "high": high}


def _print_tables(a: StoredEvaluation, b: StoredEvaluation, differences: Sequence[ScoreDifference]) -> None:
    from rich.text import Text

    from etnet.cli.evaluate_table import region_title

    console = output()
    for letter, evaluation in (("A", a), ("B", b)):
        console.print(Text(f"{letter}: {evaluation.folder}"), soft_wrap=True)
    console.print(
        f"{counted(len(a.images), 'image')}; means are over those where a score is defined for both (pairs).\n",
        soft_wrap=True,
    )
    tested = 0
    for region, members in itertools.groupby(differences, key=lambda difference: difference.region):
        shown = [row for row in members if not row.score.startswith("background_")]
        console.print(_table(region_title(region), shown))
        tested += sum(not math.isnan(row.paired.p_value) for row in shown)
    console.print(
        f"{tested} scores are tested: about {max(1, round(SIGNIFICANT * tested))} of them would have p < {SIGNIFICANT} "
        "if the models were alike. Choose the score that decides before you look, or ask for "
        f"p < {SIGNIFICANT / max(1, tested):.1g} (Bonferroni).\n",
        soft_wrap=True,
    )


def _table(title: str, rows: Sequence[ScoreDifference]) -> Any:
    from rich.text import Text

    from etnet.cli.evaluate_table import score_table, score_title, shown, shown_interval

    table = score_table(title, "A", "B", "B - A", "95 % interval", "p", "pairs", "better")
    for row in rows:
        values = row.to_dict()
        table.add_row(
            Text(score_title(row.score)),
            shown(values["mean_a"]),
            shown(values["mean_b"]),
            "-" if values["difference"] is None else f"{values['difference']:+.4f}",
            shown_interval(values["interval"], digits=4),
            _shown_p(values["p_value"]),
            str(row.paired.pairs),
            row.winner or "",
        )
    return table


def _shown_p(value: float | None) -> str:
    """A p value with three digits.

    >>> _shown_p(0.0312), _shown_p(0.0002), _shown_p(None)
    ('0.031', '<0.001', '-')
    """
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
