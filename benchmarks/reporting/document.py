"""The whole of RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reporting import accuracy, speed
from reporting.markdown import blocks, number, paragraph, table, times
from reporting.results import Result

INTRODUCTION = (
    "What was measured of etnet, with the machine, the date and the command of every figure; `report.py` writes this "
    "file from [results/](results/), and README and notes take their figures from here."
)
RATIOS = (
    "A ratio says how many times better ours is: above 1, etnet takes less time or memory, or does more per second. "
    "Both sides ran in turns in one run, and the ratio is the median of the rounds' ratios."
)


def render(results: Sequence[Result]) -> str:
    """RESULTS.md.

    Args:
        results: The newest of each kind, subject and machine.
    """
    machines = dict.fromkeys(result.machine for result in results if result.kind in speed.TITLES)
    parts = [
        "# Results",
        paragraph(INTRODUCTION),
        paragraph(RATIOS),
        "## Where the other side is better",
        behind(results),
        "## Targets that are missed",
        missed(results),
        "## Not measured",
        not_measured(results),
    ]
    for machine in machines:
        parts += [f"## {machine}", *_sections([result for result in results if result.machine == machine])]
    trained = [result for kind in accuracy.TITLES for result in results if result.kind == kind]
    parts += ["## Accuracy", *(blocks(*_accuracy(result)) for result in trained)] if trained else []
    return blocks(*parts) + "\n"


def behind(results: Sequence[Result]) -> str:
    """Every row in which the rival is better, by machine."""
    return _by_machine(results, lambda row: row["ratio"] < 1, "In no row.")


def missed(results: Sequence[Result]) -> str:
    """Every row below its target, and targets that are no ratios."""
    rows = _by_machine(results, lambda row: row.get("target") is not None and row["ratio"] < row["target"], "")
    others = [
        f"- {aim['figure']}: {number(aim['value'])}, target {'at least' if aim['at_least'] else 'at most'} "
        f"{number(aim['bound'])} ({result.machine})"
        for result in results
        for aim in result.content.get("targets", [])
        if aim["met"] is False
    ]
    return blocks(rows, "\n".join(others)) or "None."


def _by_machine(results: Sequence[Result], chosen: Any, otherwise: str) -> str:
    """A table for each machine of the chosen rows, the worst first."""
    found: dict[str, list[list[str]]] = {}
    aimed = False
    for result in results:
        for row in sorted(filter(chosen, result.rows), key=lambda row: row["ratio"]):
            found.setdefault(result.machine, []).append(
                [
                    f"{row['subject']}, {row['case']}",
                    speed.side(row["ours"], row["unit"]),
                    speed.side(row["theirs"], row["unit"]),
                    times(row["ratio"]),
                    speed.verdict(row),
                ]
            )
            aimed = aimed or row.get("target") is not None
    headings = ["what", "ours", "theirs", "ratio", "target"]
    count = len(headings) if aimed else len(headings) - 1
    tables = [
        blocks(f"On {machine}:", table(headings[:count], [row[:count] for row in rows], numbers=("ratio",)))
        for machine, rows in found.items()
    ]
    return blocks(*tables) or otherwise


def not_measured(results: Sequence[Result]) -> str:
    """What has no figures yet."""
    missing = [title for kind, title in speed.TITLES.items() if not any(result.kind == kind for result in results)]
    gpus = dict.fromkeys(result.gpu for result in results if result.gpu is not None)
    sentences = [f"On a GPU: {', '.join(gpus)}." if gpus else "Nothing was measured on a GPU."]
    if missing:
        sentences.append(f"No file has figures yet for: {'; '.join(missing)}.")
    return paragraph(" ".join(sentences))


def _sections(results: Sequence[Result]) -> list[str]:
    """The results of one machine, in the order of their headings."""
    return [
        blocks(f"### {title}", about(result), speed.section(result))
        for kind, title in speed.TITLES.items()
        for result in results
        if result.kind == kind
    ]


def _accuracy(result: Result) -> list[str]:
    variant = result.content.get("variant")
    title = f"`{variant}`" if variant else accuracy.TITLES[result.kind]
    return [f"### {title}", about(result), accuracy.section(result)]


def about(result: Result) -> str:
    """Under which conditions the figures of a result hold, and how to repeat it."""
    content = result.content
    threads = content.get("threads")
    facts = [
        result.machine,
        "" if threads is None else f"{threads} thread{'s' * (threads != 1)}",
        content["date"],
        f"commit {content['commit']}" if content.get("commit") else "",
        f"seed {content['seed']}" if "seed" in content else "",
        content.get("conditions", ""),
    ]
    versions = {name: version for name, version in content["versions"].items() if version}
    commands = content.get("commands") or [content["command"]] if "command" in content or "commands" in content else []
    what = f"{content['what'][0].upper()}{content['what'][1:]}."
    what += f" Data: {content['data']}." if isinstance(content.get("data"), str) else ""
    what += f" Note: {content['note']}." if "note" in content else ""
    return blocks(
        paragraph(what),
        paragraph("; ".join(fact for fact in facts if fact) + "."),
        paragraph(
            "Versions: " + ", ".join(f"{name} {version.split('+')[0]}" for name, version in versions.items()) + "."
        ),
        "```sh\n" + "\n".join(commands) + "\n```" if commands else "",
    )
