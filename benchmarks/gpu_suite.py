"""One command for an hour with a GPU: build, test, measure and train, in parts that are bounded in time and resumed.

    python benchmarks/gpu_suite.py --minutes 25 --data DATA/ --packages WHEELS/ --out results/
    python benchmarks/gpu_suite.py --device cpu --only ops,infer,train,peers --minutes 25 --out build/bench
    python benchmarks/gpu_suite.py --device cpu --smoke --out build/smoke

Needs Python with torch, CMake, Ninja, pybind11, scikit-build-core and, for a GPU, nvcc; no network, and no installed
etnet. What else is missing comes as wheels with --packages. Every step is a process of its own, whose result is
`OUT/<step>.json` and whose output is `OUT/logs/<step>.log`; `OUT/suite.json` says what was done. The same command goes
on where it was stopped, however it was: it skips what was done by the same command on the same sources and machine. A
step that fails does not stop the others. The exit code is 0 when all are done or left out for a reason, else 1.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from suite.parts import steps
from suite.progress import ALL, Stopped, Suite, stoppable
from suite.state import State, SuiteFault, locked
from suite.steps import PARTS, Settings, Step
from suite.table import table

DATA_SETS = ("DRIVE", "Drishti-GS", "Montgomery")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results, also to go on in")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="what is measured [default: cuda]")
    parser.add_argument("--minutes", type=float, default=25, help="time in all; divided among the steps [default: 25]")
    parser.add_argument("--only", metavar="PART,...", help=f"parts out of {','.join(PARTS)} [default: all]")
    parser.add_argument("--again", action="append", default=[], metavar="NAME", help="part or step to repeat, or all")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: shows that all works, measures nothing")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=f"holds {', '.join(DATA_SETS)} or some of them")
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="wheels of packages that this machine lacks")
    parser.add_argument("--encoder-weights", type=Path, metavar="FILE", help="to begin trainings with [default: none]")
    return parser.parse_args(words)


def settings_of(options: argparse.Namespace) -> Settings:
    """What the command line asks for.

    Raises:
        SuiteFault: It asks for something that there is not.
    """
    if not math.isfinite(options.minutes) or options.minutes <= 0:
        raise SuiteFault(f"--minutes {options.minutes:g}: expected a number over 0", 2)
    parts = tuple(part.strip() for part in (options.only or ",".join(PARTS)).split(",") if part.strip())
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise SuiteFault(f"--only {options.only}: expected parts out of {', '.join(PARTS)}", 2)
    for name, path in (("--data", options.data), ("--packages", options.packages)):
        if path is not None and not path.is_dir():
            raise SuiteFault(f"{name} {path}: is no folder", 2)
    if options.data is not None and not any((options.data / name).is_dir() for name in DATA_SETS):
        raise SuiteFault(f"--data {options.data}: holds none of the folders {', '.join(DATA_SETS)}", 2)
    if options.encoder_weights is not None and not options.encoder_weights.is_file():
        raise SuiteFault(f"--encoder-weights {options.encoder_weights}: is no file", 2)
    places = (options.out, options.data, options.packages, options.encoder_weights)
    out, data, packages, weights = (None if place is None else place.resolve() for place in places)
    return Settings(out, options.device, options.smoke, options.minutes, parts, data, packages, weights)


def main(words: Sequence[str] | None = None) -> int:
    """Run the suite; its exit code."""
    options = arguments(words)
    try:
        settings = settings_of(options)
        planned = steps(settings)
        known = {ALL, *PARTS, *(step.name for step in planned)}
        if unknown := [name for name in options.again if name not in known]:
            raise SuiteFault(f"--again {unknown[0]}: expected a part or a step out of {', '.join(sorted(known))}", 2)
        with locked(settings.out), stoppable():
            return _go(settings, planned, options.again)
    except SuiteFault as fault:
        print(f"gpu_suite.py: {fault}", file=sys.stderr)
        return fault.code


def _go(settings: Settings, planned: Sequence[Step], again: Sequence[str]) -> int:
    state = State(settings.out)
    try:
        complete = Suite(settings, planned, state).run(again=again)
    except (KeyboardInterrupt, Stopped):
        print(f"\nStopped; the same command goes on.\n{table(planned, state.steps)}", flush=True)
        return 130
    print(f"\n{table(planned, state.steps)}\nResults: {settings.out}", flush=True)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
