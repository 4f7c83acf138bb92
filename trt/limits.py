"""What an engine takes: batches and sizes outside of it are refused with the command that builds a fitting engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from etnet.errors import UsageError
from etnet.sidecar import Sidecar
from etnet.trt.plan import rebuild_command


def check_images(path: Path, sidecar: Sidecar, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse images that the engine does not take.

    Args:
        path: The engine, for the sentence.
        sidecar: Its description.
        shape: Shape of the images.
        dtype: Their type.

    Raises:
        UsageError: They are no uint8 RGB images, too many or too few, or of another size.
    """
    if len(shape) != 4 or shape[3] != 3 or dtype != "uint8":
        raise UsageError(f"{path}: expected images [N, H, W, 3] of uint8, got {dtype} {list(shape)}")
    count, height, width = shape[:3]
    smallest, best, largest = sidecar.input.batch
    if not smallest <= count <= largest:
        fitting = (min(smallest, max(count, 1)), max(1, min(best, count)), max(largest, count))
        wanted = replace(sidecar, input=replace(sidecar.input, batch=fitting))
        raise UsageError(
            f"{path}: takes {smallest} to {largest} images at once, got {count}; use another --batch-size, or build "
            f"the engine again with: {rebuild_command(path, wanted)}"
        )
    _check_size(path, sidecar, (height, width))


def _check_size(path: Path, sidecar: Sidecar, size: tuple[int, int]) -> None:
    multiple, spec = sidecar.contract.size_multiple, sidecar.input
    shown = f"{size[0]}x{size[1]}"
    if spec.size is not None and size != spec.size:
        raise UsageError(
            f"{path}: takes images of {spec.size[0]}x{spec.size[1]} pixels, got {shown}; build one for this size with: "
            f"etnet build-engine RUN --{sidecar.precision} --size {shown}"
        )
    if size[0] % multiple or size[1] % multiple:
        fitting = "x".join(str(-(-side // multiple) * multiple) for side in size)
        raise UsageError(f"{path}: the network takes multiples of {multiple} pixels, got {shown}; pad it to {fitting}")
    if spec.size_profile is None:
        return
    low, best, high = spec.size_profile
    if any(not least <= side <= most for least, side, most in zip(low, size, high, strict=True)):
        wider = (
            (min(low[0], size[0]), min(low[1], size[1])),
            best,
            (max(high[0], size[0]), max(high[1], size[1])),
        )
        wanted = replace(sidecar, input=replace(spec, size_profile=wider))
        raise UsageError(
            f"{path}: takes images from {low[0]}x{low[1]} to {high[0]}x{high[1]} pixels, got {shown}; build it for "
            f"more with: {rebuild_command(path, wanted)}"
        )
