"""What the NVIDIA driver says about the GPUs of this machine, asked before any library of TensorRT is.

Creating a TensorRT runtime on a machine without a GPU ends the process in some versions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from etnet.environment import cuda_driver


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
    """Ask the driver, once per process."""
    answer = cuda_driver.ask()
    gpus = []
    for index, gpu in enumerate(answer["gpus"]):
        major, minor = (int(part) for part in gpu["compute_capability"].split("."))
        gpus.append(Gpu(index, gpu["name"], (major, minor)))
    return Driver(tuple(gpus), answer["driver"], answer["cuda"], answer["reason"])
