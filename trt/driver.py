"""What the NVIDIA driver says about the GPUs of this machine, asked directly.

Creating a TensorRT runtime on a machine without a GPU ends the process in some versions, so this is asked first.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_KERNEL_MODULE_VERSION = Path("/sys/module/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: Its number, as in `cuda:N`.
        name: Such as `NVIDIA GeForce RTX 4090`.
        compute_capability: (major, minor).
    """

    index: int
    name: str
    compute_capability: tuple[int, int]

    @property
    def target(self) -> str:
        """The compute capability as `--target` writes it.

        >>> Gpu(0, "NVIDIA GeForce RTX 5090", (12, 0)).target
        'sm120'
        """
        major, minor = self.compute_capability
        return f"sm{major}{minor}"


@dataclass(frozen=True)
class Driver:
    """The answer of the driver.

    Attributes:
        gpus: The GPUs that it offers.
        version: Version of the driver; None without one.
        cuda_version: Newest CUDA version that the driver supports; None without one.
        problem: Why there are no GPUs, in words; empty where there are some.
    """

    gpus: tuple[Gpu, ...] = ()
    version: str | None = None
    cuda_version: str | None = None
    problem: str = ""


@functools.cache
def ask_driver() -> Driver:
    """Ask libcuda once per process."""
    return query(lambda: ctypes.CDLL("libcuda.so.1"))


def query(load: Callable[[], Any]) -> Driver:
    """Ask the driver library that `load` returns."""
    try:
        cuda = load()
    except OSError:
        return Driver(problem="no NVIDIA driver is installed (libcuda.so.1 was not found)")
    status = cuda.cuInit(0)
    if status != 0:
        reason = "it sees no GPU" if status == 100 else f"cuInit returned error {status}"
        return Driver(problem=f"the NVIDIA driver cannot be used: {reason}")
    count = ctypes.c_int(0)
    status = cuda.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return Driver(problem="the NVIDIA driver sees no GPU")
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    cuda_version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return Driver(tuple(_gpu(cuda, index) for index in range(count.value)), _driver_version(), cuda_version)


def _gpu(cuda: Any, index: int) -> Gpu:
    device = ctypes.c_int(0)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGetName(name, len(name), device)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return Gpu(index, name.value.decode(errors="replace"), (major.value, minor.value))


def _driver_version() -> str | None:
    try:
        return _KERNEL_MODULE_VERSION.read_text().strip()
    except OSError:
        # Jetson boards and some containers have no such file.
        return None
