"""Export that ends with a file which says what PyTorch says, or with none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from etnet.errors import CheckFailed
from etnet.export.onnx import export_onnx
from etnet.export.quantize import quantize_onnx
from etnet.inference.compare import Comparison, ComparisonImage, compare_predictors
from etnet.inference.predictor import Predictor
from etnet.manifest import read_weights_info
from etnet.output import disk_faults
from etnet.sidecar import QuantizedFor, Sidecar, sidecar_path, write_sidecar
from etnet.types import UInt8Array


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        weights: Weights file of a training run.
        output: ONNX file to write.
        precision: Precision of the network inside.
        size: (height, width) that the network takes; None for all multiples of 16.
        batch: Smallest, best and largest batch of the engine built from the file.
        calibration: Images [H, W, 3], uint8, that show int8 the range of every layer; unused otherwise.
        quantized_for: Runtime of an int8 file; unused otherwise.
    """

    weights: Path
    output: Path
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    size: tuple[int, int] | None = (512, 512)
    batch: tuple[int, int, int] = (1, 1, 8)
    calibration: Sequence[UInt8Array] = ()
    quantized_for: QuantizedFor = "processor"


def export_checked(
    request: ExportRequest,
    images: Sequence[ComparisonImage],
    *,
    max_drop: float = 0.005,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> tuple[Sidecar, Comparison | None]:
    """Export under a temporary name, compare with PyTorch, and give the file its name when both agree.

    Args:
        request: What to export.
        images: Real images to compare on; none skips the comparison.
        max_drop: Largest loss of mean foreground Dice.
        device: Where PyTorch runs.
        progress: Called with the id of each image that was compared.

    Returns:
        The sidecar, and the comparison if there was one.

    Raises:
        CheckFailed: The file loses more; nothing is left under `output`.
        ModelFileError: The weights are damaged.
        EnvironmentFault: A package is missing, or the disk refuses.
    """
    folder = request.output.parent
    with ExitStack() as stack:
        with disk_faults(request.output):
            folder.mkdir(parents=True, exist_ok=True)
            # Beside the output, so that taking its name is one step.
            drafts = stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".etnet-export-"))
        draft = Path(drafts) / request.output.name
        sidecar = _write(request, draft)
        comparison = None
        if images:
            comparison = _compare(request.weights, draft, images, device=device, progress=progress)
            _require_small_drop(comparison, max_drop, request)
            sidecar = replace(sidecar, verification={**comparison.to_dict(), "max_drop": max_drop})
            write_sidecar(draft, sidecar)
        with disk_faults(request.output):
            # A sidecar of other bytes is refused, so that no reader takes the old description for the new file.
            draft.replace(request.output)
            sidecar_path(draft).replace(sidecar_path(request.output))
    return sidecar, comparison


def _write(request: ExportRequest, draft: Path) -> Sidecar:
    if request.precision != "int8":
        return export_onnx(request.weights, draft, precision=request.precision, size=request.size, batch=request.batch)
    exact = draft.with_name("float.onnx")
    sidecar = export_onnx(request.weights, exact, size=request.size, batch=request.batch)
    return quantize_onnx(exact, draft, sidecar, request.calibration, target=request.quantized_for)


def _compare(
    weights: Path,
    draft: Path,
    images: Sequence[ComparisonImage],
    *,
    device: str,
    progress: Callable[[str], None] | None,
) -> Comparison:
    ignore_index = read_weights_info(weights).recipe.data.ignore_index
    with Predictor.load(weights, device=device) as reference, Predictor.load(draft, backend="onnxruntime") as candidate:
        regions = (reference.of_regions(), candidate.of_regions())
        return compare_predictors(*regions, images, ignore_index=ignore_index, progress=progress)


def _require_small_drop(comparison: Comparison, max_drop: float, request: ExportRequest) -> None:
    # The negation also refuses a drop that is no number.
    if not comparison.dice_drop <= max_drop:
        advice = (
            "calibrate with more images like those it will see, or export with --fp16"
            if request.precision == "int8"
            else "export in another precision"
        )
        raise CheckFailed(
            f"{request.output}: not written, because in {request.precision} the network loses "
            f"{comparison.dice_drop:.4f} mean foreground Dice against PyTorch on {comparison.images} images "
            f"({100 * comparison.differing_labels:.3f} % of the labels differ), "
            f"more than --max-drop {max_drop}; {advice}"
        )
