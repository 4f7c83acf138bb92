"""What a user chooses for an engine, how that is written on a command line, and what fits a library and a model."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from etnet.errors import UsageError
from etnet.sidecar import InputSpec, NetworkPrecision, Sidecar
from etnet.trt.library import TITLES, Library, LibraryName

HardwareCompatibility = Literal["ampere_plus", "same_compute_capability"]
HARDWARE_COMPATIBILITY: tuple[HardwareCompatibility, ...] = get_args(HardwareCompatibility)

Sizes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

MINIMUM_HALF_SHARE = 0.8
"""Share of the layers that must be half for an engine that is asked for in fp16; the rest normalises and decides."""


@dataclass(frozen=True)
class BuildSettings:
    """What is asked for.

    Attributes:
        library: Library that builds.
        precision: Expected precision of the ONNX file's network; None takes it as it is.
        batch: Smallest, best and largest number of images; None takes those of the ONNX file.
        size_profile: (height, width) at least, at best and at most, for an ONNX file with free size.
        workspace_gb: Most scratch memory on the GPU in GiB; None leaves it to the library.
        timing_cache: File that keeps measured times from one build to the next.
        optimization_level: 0 (fast build) to 5 (fast engine); None leaves it to the library.
        version_compatible: Whether later versions of the library can run the engine.
        hardware_compatible: Other GPUs that can run the engine.
        targets: Compute capabilities to build for without a GPU, such as `sm86`; empty takes the library's choice.
    """

    library: LibraryName = "tensorrt"
    precision: NetworkPrecision | None = None
    batch: tuple[int, int, int] | None = None
    size_profile: Sizes | None = None
    workspace_gb: float | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: HardwareCompatibility | None = None
    targets: tuple[str, ...] = ()

    def recorded(self) -> dict[str, Any]:
        """What the sidecar keeps beside what it says anyway."""
        values = {
            "workspace_gb": self.workspace_gb,
            "optimization_level": self.optimization_level,
            "timing_cache": None if self.timing_cache is None else self.timing_cache.name,
        }
        return {name: value for name, value in values.items() if value is not None}


def parse_size_profile(text: str) -> Sizes:
    """Read `--size-profile`: height and width at least, at best and at most.

    >>> parse_size_profile("256x256,512x512,1024x1536")
    ((256, 256), (512, 512), (1024, 1536))

    Raises:
        UsageError: It is written in another way, or the sizes do not grow.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5}),(\d{1,5})x(\d{1,5}),(\d{1,5})x(\d{1,5})", text.replace(" ", "").lower())
    if match is None:
        raise UsageError(f"--size-profile is '{text}'; expected MIN,OPT,MAX as HxW, such as 256x256,512x512,1024x1024")
    numbers = [int(part) for part in match.groups()]
    heights, widths = numbers[::2], numbers[1::2]
    if heights != sorted(heights) or widths != sorted(widths):
        raise UsageError(f"--size-profile is '{text}'; expected sizes that grow from MIN over OPT to MAX")
    smallest, best, largest = zip(heights, widths, strict=True)
    return smallest, best, largest


def parse_targets(text: str) -> tuple[str, ...]:
    """Read `--target`: compute capabilities separated by commas.

    >>> parse_targets("SM86,8.9")
    ('sm86', 'sm89')

    Raises:
        UsageError: One of them is none.
    """
    targets = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", part.strip().lower())
        if match is None:
            raise UsageError(f"--target is '{text}'; expected compute capabilities such as sm86,sm89")
        targets.append(f"sm{match[1]}{match[2]}")
    return tuple(dict.fromkeys(targets))


def check_settings(settings: BuildSettings, library: Library) -> None:
    """Refuse what this library does not offer.

    Raises:
        UsageError: An option has no meaning for it, or a value is out of range.
    """
    unknown = [target for target in settings.targets if target not in library.targets]
    if unknown and not library.targets:
        raise UsageError(
            f"--target: {library.title} builds for the GPU of this machine only; leave --target out, or build with "
            "--backend tensorrt-rtx"
        )
    if unknown:
        raise UsageError(
            f"--target: {library.title} does not build for {', '.join(unknown)}; it does for "
            f"{', '.join(library.targets)}"
        )
    if settings.timing_cache is not None and library.builds_without_gpu:
        raise UsageError(
            f"--timing-cache: {TITLES[library.name]} measures nothing while it builds; leave the option out"
        )
    level, workspace = settings.optimization_level, settings.workspace_gb
    if level is not None and not 0 <= level <= 5:
        raise UsageError(f"--optimization-level is {level}; expected 0 to 5")
    if workspace is not None and not 0 < workspace <= 1024:
        raise UsageError(f"--workspace is {workspace:g}; expected GiB above 0 and up to 1024")
    wanted = settings.hardware_compatible
    if wanted is not None and (
        library.builds_without_gpu or library.member("HardwareCompatibilityLevel", wanted.upper()) is None
    ):
        hint = "use --target instead" if library.builds_without_gpu else "leave the option out"
        raise UsageError(f"--hardware-compatible {wanted}: {library.title} does not offer it; {hint}")
    if settings.version_compatible and library.member("BuilderFlag", "VERSION_COMPATIBLE") is None:
        raise UsageError(f"--version-compatible: {library.title} does not offer it; leave the option out")


def resolve_input(settings: BuildSettings, sidecar: Sidecar, onnx: Path) -> InputSpec:
    """What the engine will take: the ONNX file's input with the ranges that are asked for.

    Raises:
        UsageError: A size profile for a fixed size, none for a free one, sizes that the network cannot take, or a batch
            that is none.
    """
    given = sidecar.input
    batch = settings.batch or given.batch
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise UsageError(f"--batch is {','.join(map(str, batch))}; expected 1 <= MIN <= OPT <= MAX, such as 1,4,8")
    if given.height is not None and given.width is not None:
        if settings.size_profile is not None:
            raise UsageError(
                f"--size-profile: {onnx} has the fixed size {given.height}x{given.width}; leave the option out, or "
                f"export with: etnet export {shlex.quote(sidecar.source.weights)} --dynamic"
            )
        _require_multiples("--size", ((given.height, given.width),), sidecar)
        return InputSpec(given.height, given.width, batch)
    profile = settings.size_profile or given.size_profile
    if profile is None:
        raise UsageError(
            f"{onnx} takes images of any size, an engine needs limits; add for instance "
            "--size-profile 256x256,512x512,1024x1024 (MIN,OPT,MAX)"
        )
    _require_multiples("--size-profile", profile, sidecar)
    return InputSpec(None, None, batch, profile)


def _require_multiples(option: str, sizes: Sequence[tuple[int, int]], sidecar: Sidecar) -> None:
    """The library does not check this: a wrong size would fail, or worse, when the engine runs."""
    multiple = sidecar.contract.size_multiple
    wrong = [f"{height}x{width}" for height, width in sizes if height % multiple or width % multiple]
    if wrong:
        fitting = ",".join(f"{_up(height, multiple)}x{_up(width, multiple)}" for height, width in sizes)
        raise UsageError(
            f"{option}: the network takes multiples of {multiple} pixels, not {', '.join(wrong)}; use "
            f"{option} {fitting}"
        )


def _up(value: int, multiple: int) -> int:
    return max(multiple, -(-value // multiple) * multiple)
