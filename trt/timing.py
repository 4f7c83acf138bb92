"""The timing cache: measured times of kernels that a later build need not measure again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.output import write_bytes
from etnet.trt.progress import BuildState


def attach_timing_cache(config: Any, path: Path, state: BuildState) -> None:
    """Let a build start from the cache file, or from an empty cache where there is none yet.

    Raises:
        ModelFileError: The file is damaged, or from another GPU or version.
        EnvironmentFault: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise EnvironmentFault(f"{path}: the timing cache cannot be read ({error.strerror})") from None
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise ModelFileError(
            f"{path}: is no timing cache of this GPU and TensorRT version ({'; '.join(state.errors) or 'refused'}); "
            f"delete it, or name another file with --timing-cache"
        )


def save_timing_cache(config: Any, path: Path) -> None:
    """Write the cache with what this build measured.

    Raises:
        EnvironmentFault: The disk refuses.
    """
    write_bytes(path, bytes(config.get_timing_cache().serialize()))
