"""Runs that repeat bit for bit, also on a GPU: `training.deterministic`, `etnet train --deterministic`.

What it takes, operation by operation:

- convolutions: cuDNN's deterministic algorithms, chosen without timing them;
- matrix products: cuBLAS with a fixed workspace, which it reads from the environment when CUDA starts;
- bilinear enlarging, and the polar maps of M-Net: gradients of our own in `etnet.ops.bilinear`;
- cross-entropy: summed by us, since torch's own sum over pixels of a map has no deterministic algorithm on CUDA;
- Lovasz-Softmax: both kernels and the twin are deterministic already, so every `loss.method` stays. The kernels' only
  atomic additions count pixels in integers, whose order does not matter; floating point is summed in a fixed order, and
  the sort is a stable radix sort;
- the weighted block: its kernels add pieces in a fixed order, without atomics;
- maximum pooling: its gradient reads the windows of a pixel one after the other;
- what else torch would sum in any order has a deterministic algorithm (indexing, scatter, cumsum) or raises.

The same machine, versions and number of processes are meant: another GPU or cuDNN rounds differently. What this leaves
out: the order in which NCCL adds the gradients of several GPUs, which torch does not control. No GPU has run this yet;
the tests marked `gpu` compare the bits of two runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from etnet.errors import UsageError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACES = (":4096:8", ":16:8")
"""The two values with which cuBLAS is deterministic (cuBLAS documentation, "Results reproducibility")."""


@contextmanager
def reproducible(asked: bool) -> Iterator[None]:
    """Let torch choose deterministic algorithms only, and refuse operations that have none; undone at the end.

    On a CPU, where results do not depend on it, this only makes sure of that.

    Args:
        asked: The recipe's `training.deterministic`; without it nothing is changed.

    Raises:
        UsageError: CUDA runs already without a fixed workspace; or, from the block, an operation has no deterministic
            algorithm.
    """
    if not asked:
        yield
        return
    fix_workspace()
    former = _Settings.now()
    # No timing of algorithms, whose winner differs from run to run; no TF32, whose default differs by version.
    _Settings(True, False, "highest", False, True, False).apply()
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        operation = str(error).split()[0]
        raise UsageError(
            f"training.deterministic: the operation {operation} has no deterministic algorithm on this device; train "
            "on a CPU, take another model.name or model.encoder, or leave --deterministic away"
        ) from error
    finally:
        former.apply()


@dataclass(frozen=True)
class _Settings:
    """What torch lets one choose about repeating results."""

    deterministic: bool
    warns_only: bool
    matmul_precision: str
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    cudnn_tf32: bool

    @classmethod
    def now(cls) -> _Settings:
        cudnn = torch.backends.cudnn
        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_float32_matmul_precision(),
            cudnn.benchmark,
            cudnn.deterministic,
            cudnn.allow_tf32,
        )

    def apply(self) -> None:
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warns_only)
        torch.set_float32_matmul_precision(self.matmul_precision)
        cudnn = torch.backends.cudnn
        cudnn.benchmark, cudnn.deterministic = self.cudnn_benchmark, self.cudnn_deterministic
        cudnn.allow_tf32 = self.cudnn_tf32


def fix_workspace() -> None:
    """Set the workspace of cuBLAS for this process, before CUDA starts.

    Raises:
        UsageError: Another one is set, or CUDA runs already without one.
    """
    current = os.environ.get(WORKSPACE)
    if current in FIXED_WORKSPACES:
        return
    if current is not None:
        raise UsageError(
            f"training.deterministic: {WORKSPACE} is {current!r}, with which cuBLAS is not deterministic; expected "
            f"{' or '.join(FIXED_WORKSPACES)}, or the variable unset"
        )
    if torch.cuda.is_initialized():
        raise UsageError(
            f"training.deterministic: CUDA runs already without {WORKSPACE}; set the variable to "
            f"{FIXED_WORKSPACES[0]} before the process starts"
        )
    os.environ[WORKSPACE] = FIXED_WORKSPACES[0]
