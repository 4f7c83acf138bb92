"""Tables of trainings: scores on test images, formats, losses and options."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from reporting.markdown import blocks, number, table
from reporting.results import Result

Scores = dict[str, Any]

TITLES = {
    "accuracy": "Trainings of the suite",
    "loss_methods": "Exact and binned loss",
    "ablation": "Options beyond the paper",
}
"""Headings of the kinds, in the order in which they are reported; a variant is its own heading."""


def section(result: Result) -> str:
    """All figures of one result, without its heading."""
    content = result.content
    if result.kind == "loss_methods":
        return losses(content)
    if result.kind == "ablation":
        return options(content)
    if "data_sets" in content:
        return blocks(*(data_set(name, found) for name, found in content["data_sets"].items()))
    return formats(content) if "rows" in content else training(content)


def training(content: Scores) -> str:
    """One training and its scores."""
    scores = content.get("scores", content)
    variants = {"": scores["regions"]}
    if "regions_with_mirror_images" in content:
        variants[", mirror images averaged"] = content["regions_with_mirror_images"]
    if "true_centers" in scores:
        variants[", around the true centres"] = scores["true_centers"]["regions"]
    rows = {
        f"{region.replace('_', ' ')}{variant}, {how}": {**figures[key], "roc_auc": roc_area(figures, key)}
        for variant, regions in variants.items()
        for region, figures in regions.items()
        for key, how in (("pooled", "pixels pooled"), ("image_mean", "mean over images"))
        if key in figures
    }
    return blocks(minutes(content), region_table(rows), clinical(scores))


def roc_area(figures: Scores, averaged: str) -> float | None:
    """Area under the ROC curve, which problems of two classes have.

    >>> roc_area({"auc": {"pooled": 0.5, "image_mean": {"mean": 0.75}}}, "image_mean"), roc_area({}, "pooled")
    (0.75, None)
    """
    area: Any = figures.get("auc", {}).get(averaged)
    return area["mean"] if isinstance(area, dict) else area


def minutes(content: Scores) -> str:
    """How long it trained."""
    took = content.get("training_minutes")
    if took is None:
        return ""
    named = took if isinstance(took, dict) else {content.get("variant", "the recipe"): took}
    return "Training: " + ", ".join(f"{name} {value:.0f} minutes" for name, value in named.items()) + "."


def region_table(rows: dict[str, Scores]) -> str:
    """A line for each region and way of averaging; structures in columns."""
    structures = dict.fromkeys(name for figures in rows.values() for name, _ in foreground(figures))
    headings = ["region", "accuracy", "mIoU", *(f"{name} Dice" for name in structures)]
    has_areas = any(figures.get("roc_auc") is not None for figures in rows.values())
    headings += ["ROC area"] if has_areas else []
    lines = []
    for name, figures in rows.items():
        dice = dict(foreground(figures))
        values = [figures["accuracy"], figures["mean_iou"], *(dice.get(one) for one in structures)]
        values += [figures.get("roc_auc")] if has_areas else []
        lines.append([name, *("" if value is None else f"{value:.4f}" for value in values)])
    return table(headings, lines, numbers=headings[1:])


def foreground(figures: Scores) -> Iterator[tuple[str, float]]:
    """Dice of every structure but the background, groups of classes behind the classes."""
    for part in ("classes", "groups"):
        for name, scores in figures.get(part, {}).items():
            if name != "background" and scores["dice"] is not None:
                yield name, scores["dice"]


def clinical(scores: Scores) -> str:
    """What is measured on the masks, and how well the disc was found."""
    sentences = []
    error = scores.get("clinical", {}).get("vertical_cdr_annotators_absolute_error")
    if error is not None:
        sentences.append(
            "Mean absolute error of the vertical cup-to-disc ratio against the annotators' mean: "
            f"{error['mean']:.3f} ({error['images']} images)."
        )
    found = scores.get("localization")
    if found is not None:
        away = found["error_in_disc_diameters"]["mean"]
        sentences.append(
            f"Disc found in {found['found']} of {found['images']} images, {away:.3f} of its diameter away on average."
        )
    return " ".join(sentences)


def data_set(name: str, found: Scores) -> str:
    """What the suite trained on one data set."""
    if found["status"] != "done":
        return f"**{name}**: {found['status']}, {found['reason']}."
    rows = {f"{region.replace('_', ' ')}, pixels pooled": scores for region, scores in found["scores"].items()}
    speed = found.get("images_per_second")
    return blocks(
        f"**{name}** on {found['data']}: {found['epochs']} epochs, {found['steps']} steps"
        + (f", {number(speed)} images/s" if speed else "")
        + f", {found['test_images']} test images",
        region_table(rows),
        "Commands: " + "; ".join(f"`{command}`" for command in found.get("commands", [])),
    )


def formats(content: Scores) -> str:
    """One network in many formats."""
    rows = [
        [row["name"], row["ran_on"], f"{row['mean_dice']:.4f}", f"{1e4 * row['differing_labels']:.1f}"]
        for row in content["rows"]
        if row["mean_dice"] is not None
    ]
    headings = ("format", "ran on", "mean Dice", "labels of 10,000 that differ from the first")
    return table(headings, rows, numbers=headings[2:])


def losses(content: Scores) -> str:
    """Exact and binned loss on the same seeds."""
    rows = []
    for name, task in content["tasks"].items():
        for method, runs in task["dice"].items():
            seeds = ", ".join(f"{run['mean']:.4f}" for run in runs)
            rows.append([name, method, spread([run["mean"] for run in runs]), seeds])
    gains = ", ".join(f"{name} {task['histogram_minus_sort']:+.4f}" for name, task in content["tasks"].items())
    return blocks(
        table(["trained on", "method", "mean Dice", "of each seed"], rows), f"Histogram minus sort, means: {gains}."
    )


def options(content: Scores) -> str:
    """Options beyond the paper."""
    rows = [
        [
            row["variant"],
            row.get("compared_with") or "",
            str(len(row["dice"])),
            spread(row["dice"]),
            spread(row["gains"], sign="+"),
            spread(row["accuracy"]),
            spread(row["flips_dice"]),
        ]
        for row in content["rows"]
    ]
    headings = ("option", "compared with", "seeds", "Dice", "gain of Dice", "accuracy", "Dice, mirror images averaged")
    work = content.get("giga_multiply_adds_at_512x512", {})
    told = ", ".join(f"{name} {value:.1f}" for name, value in work.items())
    return blocks(
        table(headings, rows, numbers=("seeds",)), f"Billion multiply-adds at 512x512: {told}." if told else ""
    )


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and, for several seeds, the standard deviation between them.

    >>> spread([0.5, 0.7]), spread([0.25], sign="+"), spread([])
    ('0.6000 ± 0.1414', '+0.2500', '')
    """
    if not values:
        return ""
    mean = format(statistics.fmean(values), f"{sign}.4f")
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean
