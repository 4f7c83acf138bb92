"""The tables of `etnet evaluate`: overlap, boundary and clinical scores, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etnet.cli.console import counted

if TYPE_CHECKING:
    from etnet.inference.evaluate_regions import LocalizationReport, RegionEvaluation
    from etnet.metrics.report import AucSummary, EvaluationReport, RegionScores, Summary

REGION_TITLES = {"whole_image": "Whole image", "field_of_view": "Inside the field of view"}
GENERAL_TITLES = {
    "accuracy": "accuracy",
    "mean_iou": "mean IoU",
    "mean_foreground_dice": "mean foreground Dice",
    "auc": "area under the ROC curve",
}
CLASS_TITLES = {"dice": "Dice", "iou": "IoU", "sensitivity": "sensitivity", "specificity": "specificity"}
SURFACE_TITLES = {
    "hd95_px": "HD95 (px)",
    "assd_px": "ASSD (px)",
    "surface_dice_1px": "surface Dice at 1 px",
    "surface_dice_2px": "surface Dice at 2 px",
    "surface_dice_3px": "surface Dice at 3 px",
    "boundary_iou": "boundary IoU",
}

TRUE_CENTERS_ALONE = (
    "Region of interest: around the TRUE centres, because this network finds none; these scores leave out what "
    "localization costs. Score a bundle to see both.\n"
)

SUMMARY_COLUMNS = ("mean", "95 % interval", "images", "left out")


def report_tables(report: EvaluationReport) -> Iterator[RenderableType]:
    """All tables of a report, from the region that holds all pixels to the clinical errors."""
    for name, region in report.regions.items():
        title = region_title(name)
        yield region_table(title, region, report.class_names)
        if region.auc is not None:
            yield Text.assemble(("Area under the ROC curve: ", "bold"), f"{auc_text(region.auc)}\n")
        yield boundary_table(title, region)
    if report.clinical:
        yield clinical_table(report.clinical)
    yield Text(
        "Below each score, or beside it, is its 95 % bootstrap interval over images. The mean Dice is over the "
        "foreground classes, the mean IoU over all classes. Images left out are those where a score is undefined.\n"
    )


def region_title(name: str) -> str:
    """What a region is called in a title.

    >>> region_title("whole_image"), region_title("true_centres")
    ('Whole image', 'True centres')
    """
    return REGION_TITLES.get(name, name.replace("_", " ").capitalize())


def score_title(name: str) -> str:
    """What a column of `per_image.csv` is called, without its region.

    >>> score_title("optic_cup_hd95_px"), score_title("vessel_dice"), score_title("mean_iou")
    ('optic_cup HD95 (px)', 'vessel Dice', 'mean IoU')
    >>> score_title("vertical_cdr_annotators_error"), score_title("lung_area_absolute_error")
    ('vertical CDR error to annotators', 'lung area absolute error (relative)')
    """
    if name in GENERAL_TITLES:
        return GENERAL_TITLES[name]
    for key, title in (SURFACE_TITLES | CLASS_TITLES).items():
        if name.endswith(f"_{key}"):
            return f"{name.removesuffix(f'_{key}')} {title}"
    title = name.replace("_", " ").replace("cdr", "CDR")
    if " annotators" in title:
        title = title.replace(" annotators", "") + " to annotators"
    return f"{title} (relative)" if " area " in title else title


def region_table(title: str, region: RegionScores, class_names: tuple[str, ...]) -> Table:
    """The overlap scores of a region: pooled first, the mean over images below; each interval is under its score."""
    table = score_table(f"{title}, {counted(region.images, 'image')}", *CLASS_TITLES.values(), "accuracy")
    parts = (
        ("All pixels pooled", region.pooled.to_dict(), region.pooled_interval),
        ("Mean over images", region.image_mean, region.image_mean_interval),
    )
    for label, scores, intervals in parts:
        table.add_row(Text(label, style="italic"))
        places = [("classes", name) for name in class_names] + [("groups", name) for name in region.pooled.groups]
        for kind, name in places:
            cells = [_stacked(scores[kind][name][key], intervals[kind][name][key]) for key in CLASS_TITLES]
            table.add_row(Text(f"  {name}"), *cells)
        means = [_stacked(scores[key], intervals[key]) for key in ("mean_foreground_dice", "mean_iou", "accuracy")]
        table.add_row("  mean of classes", *means[:2], "", "", means[2], style="bold", end_section=True)
    return table


def centers_text(evaluation: RegionEvaluation) -> Group:
    """What centres the scores are around, how far they are off, and what true centres would give."""
    localization = evaluation.localization
    if evaluation.found_centers is None or localization is None:
        return Group(Text(TRUE_CENTERS_ALONE))
    names = [*evaluation.report.class_names[1:], *(name for name, _ in evaluation.report.class_groups)]
    titles = (f"Dice {name}" for name in names)
    table = score_table("Found and true centres, all pixels pooled", *titles, "mean IoU")
    for label, report in (("found", evaluation.found_centers), ("true", evaluation.true_centers)):
        for region, scores in report.regions.items():
            values = scores.pooled.to_dict()
            dice = {**values["classes"], **values["groups"]}
            cells = [shown(dice[name]["dice"]) for name in names]
            table.add_row(f"{label}, {region.replace('_', ' ')}", *cells, shown(values["mean_iou"]))
    return Group(table, *map(Text, localization_lines(localization)))


def localization_lines(localization: LocalizationReport, *, most: int | None = None) -> Iterator[str]:
    """How far found centres are off, and where none was found.

    Args:
        localization: What localization gave.
        most: How many of the images without a centre are named; None names all.
    """
    values = localization.to_dict()
    error = values["error_in_disc_diameters"]
    if error is not None:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in error.items())
        yield f"Localization error in diameters of the structure: {figures} ({counted(values['found'], 'image')})"
    yield f"Nothing was found in {len(localization.failed)} of {counted(values['images'], 'image')}."
    for image in localization.failed[:most]:
        yield f"  {image.id}, scored as background: {image.reason}"
    if most is not None and len(localization.failed) > most:
        yield f"  ... and {len(localization.failed) - most} more; see localization.csv"
    yield ""


def boundary_table(title: str, region: RegionScores) -> Group:
    """The boundary scores of a region, one row each, and how many images have none."""
    table = score_table(f"Boundary, {title[0].lower()}{title[1:]}, mean over images", *SUMMARY_COLUMNS)
    remarks = []
    for name, boundary in region.boundary.items():
        table.add_row(Text(name, style="italic"))
        for key, summary in boundary.scores.items():
            _add_summary(table, SURFACE_TITLES[key], summary)
        table.add_section()
        if boundary.missed or boundary.false_alarms:
            remarks.append(
                f"{name}: missed in {counted(boundary.missed, 'image')}, predicted where there is none in "
                f"{boundary.false_alarms}; HD95 and ASSD are of the other images alone."
            )
    return Group(table, *(Text(f"{remark}\n") for remark in remarks))


def clinical_table(summaries: Mapping[str, Summary]) -> Table:
    """The clinical errors, one row each."""
    table = score_table("Clinical, predicted minus true, mean over images", *SUMMARY_COLUMNS)
    for name, summary in summaries.items():
        _add_summary(table, score_title(name), summary)
    return table


def score_table(title: str, *columns: str) -> Table:
    """An empty table of numbers whose first column holds names; only names are broken where the terminal is narrow."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def shown(value: float | None) -> str:
    """A score with four digits, or a dash where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def shown_interval(interval: Any, *, digits: int = 3) -> str:
    """An interval; empty where it is undefined."""
    return "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def auc_text(auc: AucSummary) -> str:
    """Both areas under the ROC curve with their intervals."""
    from etnet.metrics.overlap import plain
    from etnet.metrics.report import plain_interval

    pooled = with_interval(plain(auc.pooled), plain_interval(auc.pooled_interval))
    images = with_interval(plain(auc.per_image.mean), plain_interval(auc.per_image.interval))
    return f"pooled {pooled}, mean over images {images}"


def with_interval(value: float | None, interval: Any) -> str:
    """A score and its interval in parentheses, on one line.

    >>> with_interval(0.91234, [0.9, 0.92]), with_interval(0.5, None)
    ('0.9123 (0.900 to 0.920)', '0.5000')
    """
    span = shown_interval(interval)
    return f"{shown(value)} ({span})" if span else shown(value)


def _add_summary(table: Table, name: str, summary: Summary) -> None:
    values = summary.to_dict()
    table.add_row(
        Text(f"  {name}"),
        shown(values["mean"]),
        shown_interval(values["interval"]),
        str(summary.images),
        str(summary.left_out) if summary.left_out else "",
    )


def _stacked(value: float | None, interval: Any) -> Text:
    """A score with its interval below."""
    if interval is None:
        return Text(shown(value))
    return Text.assemble(shown(value), ("\n{:.3f}-{:.3f}".format(*interval), "dim not bold"))
