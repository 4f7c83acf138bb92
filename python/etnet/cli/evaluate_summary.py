"""What `etnet evaluate` prints: the scores that are asked for first, on one screen; the rest is in the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etnet.cli.console import counted
from etnet.cli.evaluate_table import (
    auc_text,
    region_title,
    score_table,
    score_title,
    shown,
    shown_interval,
    with_interval,
)

if TYPE_CHECKING:
    from etnet.inference.evaluate_regions import RegionEvaluation
    from etnet.metrics.report import EvaluationReport, RegionScores

TABLES = "tables.txt"
"""File with all tables beside metrics.json."""

_LEGEND = Text(
    "Mean: Dice of the foreground classes, IoU of all classes. Intervals are 95 % bootstrap intervals over images. "
    f"HD95: mean over images. {TABLES} holds all scores, also as means over images.\n",
    style="dim",
)
_SHOWN_FAILURES = 3
_DISTANCE = "hd95_px"


def summary(evaluation: EvaluationReport | RegionEvaluation) -> Group:
    """The overlap of all structures in all regions, what was missed, and clinical errors."""
    from etnet.inference.evaluate_regions import RegionEvaluation

    if not isinstance(evaluation, RegionEvaluation):
        return Group(*_of_report(evaluation), _LEGEND)
    return Group(*_of_report(evaluation.report), *_centers_lines(evaluation), _LEGEND)


def _of_report(report: EvaluationReport) -> Iterator[RenderableType]:
    yield _overlap_table(report)
    yield from _general_lines(report)
    yield from _missed_lines(report)
    yield from _clinical_lines(report)


def _overlap_table(report: EvaluationReport) -> Table:
    images = len(report.images)
    columns = ("Dice", "95 % interval", "IoU", "sensitivity", "specificity", "HD95 (px)")
    table = score_table(f"{counted(images, 'image')}, all pixels pooled", *columns)
    for name, region in report.regions.items():
        title = region_title(name)
        if region.images != images:
            title += f", {counted(region.images, 'image')}"
        table.add_row(Text(title, style="italic"))
        _add_region(table, region, report.class_names)
    return table


def _add_region(table: Table, region: RegionScores, class_names: tuple[str, ...]) -> None:
    scores, intervals = region.pooled.to_dict(), region.pooled_interval
    places = [("classes", name) for name in class_names[1:]] + [("groups", name) for name in region.pooled.groups]
    for kind, name in places:
        found, interval = scores[kind][name], intervals[kind][name]["dice"]
        rates = (shown(found[key]) for key in ("iou", "sensitivity", "specificity"))
        table.add_row(
            Text(f"  {name}"), shown(found["dice"]), shown_interval(interval), *rates, _distance(region, name)
        )
    dice, interval = scores["mean_foreground_dice"], intervals["mean_foreground_dice"]
    table.add_row("  mean", shown(dice), shown_interval(interval), shown(scores["mean_iou"]), style="bold")
    table.add_section()


def _distance(region: RegionScores, structure: str) -> str:
    boundary = region.boundary.get(structure)
    value = None if boundary is None else boundary.scores[_DISTANCE].to_dict()["mean"]
    return "-" if value is None else f"{value:.2f}"


def _general_lines(report: EvaluationReport) -> Iterator[RenderableType]:
    for name, region in report.regions.items():
        accuracy = with_interval(region.pooled.to_dict()["accuracy"], region.pooled_interval["accuracy"])
        line = Text.assemble((f"{region_title(name)}: ", "bold"), f"accuracy {accuracy}")
        if region.auc is not None:
            line.append(f", area under the ROC curve {auc_text(region.auc)}")
        yield line


def _missed_lines(report: EvaluationReport) -> Iterator[RenderableType]:
    region = next(iter(report.regions.values()))
    for name, boundary in region.boundary.items():
        if boundary.missed or boundary.false_alarms:
            yield Text(
                f"{name}: missed in {counted(boundary.missed, 'image')}, predicted where there is none in "
                f"{boundary.false_alarms}"
            )


def _clinical_lines(report: EvaluationReport) -> Iterator[RenderableType]:
    for name, errors in report.clinical.items():
        if name.endswith("_absolute_error") and "_annotators" not in name:
            values = errors.to_dict()
            left_out = f", {errors.left_out} left out" if errors.left_out else ""
            mean = with_interval(values["mean"], values["interval"])
            yield Text.assemble(
                (f"{score_title(name)}: ", "bold"), f"{mean}, mean of {counted(errors.images, 'image')}{left_out}"
            )


def _centers_lines(evaluation: RegionEvaluation) -> Iterator[RenderableType]:
    """What centres the scores are around, and what true ones would give."""
    from etnet.cli.evaluate_table import TRUE_CENTERS_ALONE, localization_lines

    localization = evaluation.localization
    if evaluation.found_centers is None or localization is None:
        yield Text(TRUE_CENTERS_ALONE)
        return
    for name, region in evaluation.true_centers.regions.items():
        found = evaluation.found_centers.regions[name].pooled.mean_dice
        yield Text.assemble(
            (f"Around the true centres, {region_title(name).lower()}: ", "bold"),
            f"mean Dice {shown(region.pooled.mean_dice)} instead of {shown(found)}",
        )
    yield from map(Text, localization_lines(localization, most=_SHOWN_FAILURES))
