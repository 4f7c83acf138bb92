"""The short table of README.md: for some subjects the row in which ours gains least."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reporting.markdown import blocks, number, paragraph, table, times
from reporting.results import Result
from reporting.speed import side

BEGIN, END = "<!-- speed: begin. benchmarks/report.py writes what follows. -->", "<!-- speed: end -->"


@dataclass(frozen=True)
class Highlight:
    """Rows of which the one with the lowest ratio is shown.

    Attributes:
        title: What users call it.
        kind: Benchmark.
        subject: Beginning of the rows' subject.
        ours: Regular expression of the name of ours.
        theirs: That of the rival's.
    """

    title: str
    kind: str
    subject: str
    ours: str = ""
    theirs: str = ""


HIGHLIGHTS = (
    Highlight("training step and data path, ResNet-50", "train_step", "training step"),
    Highlight("training step of the same U-Net", "peers_smp", "training step", r"\bUnet\b"),
    Highlight("exact Lovász loss with gradient", "ops", "Lovasz-Softmax, loss", r"\(sort\)", "segmentation_models"),
    Highlight(
        "binned Lovász loss with gradient", "ops", "Lovasz-Softmax, loss", r"\(histogram\)", "segmentation_models"
    ),
    Highlight("training crops, one core", "data", "training samples", "normalised"),
    Highlight("prediction, OpenVINO", "inference", "prediction", "openvino$"),
    Highlight("prediction, ONNX Runtime", "inference", "prediction", "onnxruntime$"),
    Highlight("prediction, OpenVINO int8", "inference", "prediction", "openvino-int8$"),
    Highlight("large image in tiles", "peers_monai", "a large image in tiles"),
    Highlight("masks of a folder, whole command", "peers_nnunet", "masks of a folder, the whole"),
)


def region(results: Sequence[Result], link: str) -> str:
    """What stands between the marks.

    Args:
        results: All that are reported.
        link: Where RESULTS.md is, from the document.
    """
    rows = [row for result in results for row in result.rows]
    if not rows:
        return f"[RESULTS.md]({link}) has no comparison of speed yet; `make bench` measures them."
    losing = sum(row["ratio"] < 1 for row in rows)
    better = f"in {losing}, which stand at its top" if losing else "in none"
    counted = paragraph(
        f"Each line is the row of its kind with the lowest ratio. Of all {len(rows)} rows in [RESULTS.md]({link}), the "
        f"other side is better {better}."
    )
    machines = dict.fromkeys(result.machine for result in results if result.rows)
    return blocks(*(_machine(name, [one for one in results if one.machine == name]) for name in machines), counted)


def _machine(name: str, results: Sequence[Result]) -> str:
    lines = []
    for highlight in HIGHLIGHTS:
        rows = [
            row
            for result in results
            for row in result.rows
            if result.kind == highlight.kind
            and row["subject"].startswith(highlight.subject)
            and re.search(highlight.ours, row["ours"]["name"])
            and re.search(highlight.theirs, row["theirs"]["name"])
        ]
        if rows:
            row = min(rows, key=lambda row: row["ratio"])
            ours = f"{number(row['ours']['value'])} {row['unit']}"
            lines.append([highlight.title, ours, side(row["theirs"], row["unit"]), times(row["ratio"])])
    dates = sorted({result.content["date"] for result in results if result.rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    headings = ("what", "etnet", "the other side", "ratio")
    return blocks(f"{name}, {when}:", table(headings, lines, numbers=("ratio",))) if lines else ""


def fill(document: str, text: str) -> str:
    """The document with the text between its marks.

    Raises:
        ValueError: It does not have the marks exactly once.
    """
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), flags=re.DOTALL)
    filled, count = pattern.subn(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", document)
    if count != 1:
        raise ValueError(f"the document has {count} regions between {BEGIN} and {END}, expected 1")
    return filled
