"""Renders benchmarks/RESULTS.md, and the table of speed in README.md, from the files in benchmarks/results/.

    python benchmarks/report.py                     # write both from the newest file of each kind and machine
    python benchmarks/report.py --add build/bench   # first copy the result files of that folder to benchmarks/results/
    python benchmarks/report.py --check             # exit code 1 where a document is not what the files give

Only what was measured is reported. Files that are no results are refused with the reason (exit code 3); the others are
added all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reporting.document import render
from reporting.highlights import fill, region
from reporting.results import NoResult, add, read_all

BENCHMARKS = Path(__file__).resolve().parent
RESULTS_LINK = "benchmarks/RESULTS.md"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, metavar="DIR", help="folder of result files to take over first")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a document is old")
    parser.add_argument("--root", type=Path, default=BENCHMARKS.parent, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.add is not None and options.check:
        parser.error("--add writes and --check does not; give one of them")
    if options.add is not None and not options.add.is_dir():
        parser.error(f"--add {options.add}: is no folder")
    return options


def documents(root: Path) -> dict[Path, str]:
    """What the documents below a repository's root should hold.

    Raises:
        NoResult: A file in benchmarks/results/ is none.
        ValueError: README.md has no place for the table.
    """
    results = read_all(root / "benchmarks" / "results")
    readme = root / "README.md"
    return {
        root / RESULTS_LINK: render(results),
        readme: fill(readme.read_text("utf-8"), region(results, RESULTS_LINK)),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Add, check or write; returns the exit code."""
    options = arguments(words)
    refused: list[str] = []
    try:
        if options.add is not None:
            copies, refused = add(options.add, options.root / "benchmarks" / "results")
            print("\n".join([f"added {path.name}" for path in copies] or ["nothing was added"]))
        expected = documents(options.root)
    except (NoResult, ValueError) as error:
        print(error, file=sys.stderr)
        return 3
    old = [path for path, text in expected.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in old:
        print(f"{path.relative_to(options.root)} {'is not up to date' if options.check else 'written'}")
        if not options.check:
            path.write_text(expected[path], "utf-8")
    print("\n".join(refused), end="\n" * bool(refused), file=sys.stderr)
    return 3 if refused else int(options.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
