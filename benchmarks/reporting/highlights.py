"""The short table of README.md: for some subjects the row in which ours gains least."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reporting.markdown import blocks, paragraph, table, times
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
        case: That of what it was measured on.
    """

    title: str
    kind: str
    subject: str
    ours: str = ""
    case: str = ""


HIGHLIGHTS = (
    Highlight("training step and data path, ResNet-50", "train_step", "training step", case=r"\bresnet50"),
    Highlight("training step and data path, ResNet-18", "train_step", "training step", case=r"\bresnet18"),
    Highlight("training step of the same U-Net", "peers_smp", "training step", r"\bUnet\b"),
    Highlight("exact Lovász loss with gradient", "ops", "Lovasz-Softmax, loss", r"\(sort\)"),
    Highlight("binned Lovász loss with gradient", "ops", "Lovasz-Softmax, loss", r"\(histogram\)"),
    Highlight("training crops, one thread", "peers_data", "training crops"),
    Highlight("prediction, OpenVINO in its own precision", "inference", "prediction", "openvino$"),
    Highlight("prediction, ONNX Runtime", "inference", "prediction", "onnxruntime$"),
    Highlight("prediction, OpenVINO int8", "inference", "prediction", "openvino-int8$"),
    Highlight("large image in tiles", "peers_monai", "a large image in tiles"),
    Highlight("masks of a folder, whole command", "peers_nnunet", "masks of a folder, the whole"),
    Highlight("masks of a folder, network loaded", "peers_nnunet", "masks of a folder, with the network"),
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
        f"Each line is the lowest ratio of the rows it names. Of all {len(rows)} rows in [RESULTS.md]({link}), the "
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
            and re.search(highlight.case, row["case"])
        ]
        if rows:
            row = min(rows, key=lambda row: row["ratio"])
            ours = {**row["ours"], "name": row["ours"]["name"].removeprefix("etnet, ")}
            sides = (side(contestant, row["unit"]) for contestant in (ours, row["theirs"]))
            lines.append([highlight.title, *sides, times(row["ratio"])])
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
