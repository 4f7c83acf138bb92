"""Whether a folder holds as many pairs as the official download, and why it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from etnet.data.catalog import CATALOG
from etnet.data.datasets.pairing import FoundPairs
from etnet.data.file_tree import list_files
from etnet.data.findings import Finding, Report

FEWER_PAIRS = "fewer-pairs"
"""Rule of the warning about a part that is smaller than the official one."""

_PURPOSES = {"train": "training", "test": "testing"}


def report_incomplete(
    pairs: FoundPairs, *, dataset: str, root: Path, part: Literal["train", "test"], report: Report
) -> None:
    """Reports fewer pairs than the official ones: an error beside an archive or a broken download, else a warning.

    Args:
        pairs: What was found.
        dataset: Value of `data.dataset`.
        root: Folder of the data set.
        part: Which part.
        report: Takes the finding.
    """
    card = CATALOG.get(dataset)
    if card is None:
        return
    expected = card.train if part == "train" else card.test
    if len(pairs.ids) >= expected:
        return
    files = list_files(root)
    leftovers = (*files.unfinished, *files.archives)
    held = f"{root}: holds {len(pairs.ids)} of the {expected} pairs of {card.title} for {_PURPOSES[part]}"
    if leftovers:
        sentence = (
            f"{held}, beside {leftovers[0].name}; expected all of them; unpack the archive again, completely, or "
            "remove it, or name the images to use in data.split_file"
        )
        report(Finding("error", "half-unpacked", sentence, leftovers))
    else:
        report(Finding("warning", FEWER_PAIRS, f"{held}; expected all of them; copy the others too"))
