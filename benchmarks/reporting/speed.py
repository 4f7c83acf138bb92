"""Ours beside rivals, and the tables of single benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reporting.markdown import blocks, number, table, times
from reporting.results import Result

Row = dict[str, Any]

TITLES = {
    "peers_smp": "Beside segmentation_models_pytorch",
    "peers_monai": "Beside MONAI",
    "peers_data": "Data paths beside torchvision and OpenCV",
    "peers_nnunet": "Beside nnU-Net",
    "ops": "Operators: the loss",
    "weighted_block": "Operators: the weighted block",
    "ndops": "Operators on NumPy masks",
    "inference": "Inference formats",
    "data": "Data path",
    "train_step": "Training step",
    "infer": "A folder of images",
    "roofline": "What the machine can do at most",
    "build": "Build",
    "tests": "Tests on this machine",
}
"""Headings of the kinds, in the order in which they are reported."""


SHORT = 45
"""Letters that the column on the results may have."""


def side(contestant: Row, unit: str) -> str:
    """What ran, and what it took."""
    version = (contestant.get("version") or "").split("+")[0]
    return f"{number(contestant['value'])} {unit}, {contestant['name']}" + (f" ({version})" if version else "")


def verdict(row: Row) -> str:
    """The target, and whether it is met."""
    if row.get("target") is None:
        return ""
    return f"{row['target']:g}x {'met' if row['ratio'] >= row['target'] else 'missed'}"


def comparison_tables(rows: Sequence[Row]) -> str:
    """A table for each subject; what all its rows share stands above it."""
    subjects = dict.fromkeys(row["subject"] for row in rows)
    return blocks(*(_subject(name, [row for row in rows if row["subject"] == name]) for name in subjects))


def _subject(name: str, rows: Sequence[Row]) -> str:
    columns = {
        "on": [row["case"] for row in rows],
        "ours": [side(row["ours"], row["unit"]) for row in rows],
        "theirs": [side(row["theirs"], row["unit"]) for row in rows],
        "ratio": [times(row["ratio"]) for row in rows],
        "target": [verdict(row) for row in rows],
        "results": [row["result"] for row in rows],
    }
    shared = {key: columns[key][0] for key in ("on", "results") if len(set(columns[key])) == 1}
    notes = "" if "results" in shared else _numbered(columns)
    above = "".join(f"; {key}: {text}" if key == "results" else f", {text}" for key, text in shared.items())
    shown = {key: cells for key, cells in columns.items() if key not in shared and any(cells)}
    rounds = sorted({row["rounds"] for row in rows})
    counted = f"medians of {rounds[0]}" + (f" to {rounds[-1]}" if len(rounds) > 1 else "") + " rounds"
    if rounds == [1]:
        counted = "one round"
    return blocks(
        f"**{name}**{above} ({counted})",
        table(list(shown), list(zip(*shown.values(), strict=True)), numbers=("ratio",)),
        notes,
    )


def _numbered(columns: dict[str, list[str]]) -> str:
    """Long words on the results as numbered notes below the table, in whose column only the numbers stay."""
    texts = list(dict.fromkeys(columns["results"]))
    if max(map(len, texts)) <= SHORT:
        return ""
    columns["results"] = [f"({texts.index(text) + 1})" for text in columns["results"]]
    return "Results:\n\n" + "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1))


def inference(content: Row) -> str:
    """Every format with its time and memory."""
    rows = []
    for row in content["rows"]:
        for latency in row["latencies"]:
            total = latency["milliseconds"]["total"]
            memory = row["peak_bytes"].get("host")
            rows.append(
                [
                    row["name"],
                    row["ran_on"],
                    str(latency["batch"]),
                    f"{number(total['p50'])} ms",
                    f"{number(total['p95'])} ms",
                    f"{number(latency['images_per_second'])} images/s",
                    "" if memory is None else f"{number(memory / 2**20)} MiB",
                    f"{number(row['file_bytes'] / 2**20)} MiB",
                ]
            )
    headings = ("format", "ran on", "batch", "p50", "p95", "speed", "peak memory", "file")
    idle = [row["name"] for row in content["rows"] if not row["latencies"]]
    height, width = content["size"]
    return blocks(
        f"{content['network']}, {height}x{width}, {content['runs']} runs of each format in turns",
        table(headings, rows, numbers=headings[2:]),
        f"Could not run there: {', '.join(idle)}." if idle else "",
    )


def train_step(content: Row) -> str:
    """Where the time of a step goes."""
    rows = []
    for name, figures in content["results"].items():
        busy = figures.get("busy_share")
        rows.append(
            [
                name,
                f"{number(figures['data_wait_ms'])} ms",
                f"{number(figures['step_ms'])} ms",
                "" if busy is None else f"{100 * busy:.0f} %",
            ]
        )
    headings = ["contestant", "waits for data", "the rest of the step", "GPU busy"]
    places = [place for place in range(4) if any(row[place] for row in rows)]
    return table(
        [headings[place] for place in places], [[row[place] for place in places] for row in rows], numbers=headings[1:]
    )


def infer(content: Row) -> str:
    """The folder run beside its network."""
    whole = f"{number(content['images_per_s'])} images/s"
    return (
        f"{content['images']} images of {content['height_px']}x{content['width_px']}, {content['ran_on']}: the network "
        f"alone {number(content['network_images_per_s'])} images/s, all of `etnet infer` {whole}; "
        f"{100 * content['overhead']:+.1f} % time, the median of {len(content['rounds'])}."
    )


def libraries(content: Row) -> str:
    """Operators on masks for which there is only the library's."""
    rows = []
    for kind in ("vessels", "blobs"):
        for name, figures in content.get(kind, {}).items():
            medians = figures["median_ms"]
            if "ours" not in medians:
                rows.append([name, kind, ", ".join(f"{one} {number(value)} ms" for one, value in medians.items())])
    return blocks("Where etnet calls a library:", table(["operator", "on", "time"], rows)) if rows else ""


def bandwidth(content: Row) -> str:
    """Share of a copy's bandwidth that the weighted block reaches on a GPU."""
    blocks_of = content["rows"] if content["benchmark"] == "weighted_block" else content.get("weighted_block", [])
    rows = [
        ["x".join(map(str, row["shape"])), row["dtype"], row["layout"], f"{100 * row['share_of_copy_bandwidth']:.0f} %"]
        for row in blocks_of
        if "share_of_copy_bandwidth" in row
    ]
    return table(["map", "type", "layout", "of a copy's bandwidth"], rows) if rows else ""


DETAILS: dict[str, Callable[[Row], str]] = {
    "inference": inference,
    "train_step": train_step,
    "infer": infer,
    "ndops": libraries,
    "ops": bandwidth,
    "weighted_block": bandwidth,
}
"""What a kind has to tell beside its comparisons."""


def section(result: Result) -> str:
    """All figures of one result, without its heading."""
    content = result.content
    failed = content.get("failed")
    # A benchmark that failed may lack what its table needs.
    detail = DETAILS[result.kind](content) if result.kind in DETAILS and not failed else ""
    return blocks(
        f"Failed: {failed}" if failed else "", content.get("headline", ""), comparison_tables(result.rows), detail
    )
