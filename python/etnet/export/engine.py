"""Engines on their way from trained weights: the ONNX file in between, and the comparison where a GPU can run them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from etnet.errors import CheckFailed
from etnet.inference.compare import Comparison, ComparisonImage, compare_predictors
from etnet.inference.predictor import Predictor
from etnet.output import disk_faults
from etnet.sidecar import Sidecar, sidecar_path, write_sidecar
from etnet.trt.builder import PreparedBuild, run_build
from etnet.trt.plan import Obstacle, examine
from etnet.trt.progress import BuildObserver


@dataclass(frozen=True)
class BuiltEngine:
    """A finished engine.

    Attributes:
        sidecar: What its sidecar says.
        comparison: With the reference; None where none was made.
        not_compared: Why none was made; empty where one was.
    """

    sidecar: Sidecar
    comparison: Comparison | None
    not_compared: str = ""


def build_checked(
    prepared: PreparedBuild,
    reference: Path,
    images: Sequence[ComparisonImage],
    *,
    max_drop: float = 0.005,
    observer: BuildObserver | None = None,
    progress: Callable[[str], None] | None = None,
) -> BuiltEngine:
    """Build an engine; where it can run here, it gets its name only after it was compared on real images.

    Args:
        prepared: What to build.
        reference: The weights, or the ONNX file where only that is there; an engine should say the same.
        images: Real images; none skips the comparison.
        max_drop: Largest loss of mean foreground Dice.
        observer: Receives the progress of the build.
        progress: Called with the id of each image that was compared.

    Raises:
        CheckFailed: The engine loses more; nothing is left under its name.
    """
    if not prepared.driver.gpus:
        return BuiltEngine(
            run_build(prepared, observer),
            None,
            f"it runs on a GPU only, and none can be used here: {prepared.driver.problem}",
        )
    if not images:
        return BuiltEngine(run_build(prepared, observer), None, "no images were given; name some with --verify DIR")
    output = prepared.output
    with ExitStack() as stack:
        with disk_faults(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            # Beside the output, so that taking its name is one step.
            drafts = stack.enter_context(
                tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".etnet-engine-")
            )
        draft = Path(drafts) / output.name
        sidecar = run_build(replace(prepared, output=draft), observer)
        found = examine(draft, sidecar, driver=prepared.driver)
        comparison = None
        if not isinstance(found, Obstacle):
            comparison = _compare(draft, reference, images, progress)
            _require_small_drop(comparison, max_drop, prepared)
            sidecar = replace(sidecar, verification={**comparison.to_dict(), "max_drop": max_drop})
            write_sidecar(draft, sidecar)
        with disk_faults(output):
            # A sidecar of other bytes is refused, so no reader takes the new description for the old engine.
            sidecar_path(draft).replace(sidecar_path(output))
            draft.replace(output)
    return BuiltEngine(sidecar, comparison, "" if comparison else str(found))


def _compare(
    engine: Path, reference: Path, images: Sequence[ComparisonImage], progress: Callable[[str], None] | None
) -> Comparison:
    with Predictor.load(reference) as wanted, Predictor.load(engine, backend="tensorrt") as candidate:
        return compare_predictors(wanted.of_regions(), candidate.of_regions(), images, progress=progress)


def _require_small_drop(comparison: Comparison, max_drop: float, prepared: PreparedBuild) -> None:
    # The negation also refuses a drop that is no number.
    if not comparison.dice_drop <= max_drop:
        raise CheckFailed(
            f"{prepared.output}: not written, because the engine loses {comparison.dice_drop:.4f} mean foreground Dice "
            f"against {comparison.reference} on {comparison.images} images ({100 * comparison.differing_labels:.3f} % "
            f"of the labels differ), more than --max-drop {max_drop}; build it in another precision than "
            f"{prepared.precision}"
        )
